"""The smallest network that keeps an accuracy: which share each round removes, found by those before it.

A round removes half of what is left. One that has lost too much after its training is taken back, and from then on
rounds remove half the share that they did, until that is too little to be worth a round.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self

from yoloprune.artefacts import load_json, save_json, typed
from yoloprune.errors import InputError, NothingGoesError
from yoloprune.prune.sensitivity import ROUNDING
from yoloprune.steps.undo import undo
from yoloprune.workspace import Workspace

_KIND: Final = "search"
_FIRST: Final = 1 / 2
_LAST: Final = 1 / 8
"""Shares of what is left that a round removes."""


@dataclass(frozen=True)
class Attempt:
    """A round that was tried."""

    ratio: float
    """Share of the objective that was to be gone after it."""
    accuracy: float | None
    """After its training; None where as much could not go."""


@dataclass(frozen=True)
class Search:
    """What was tried to find the smallest network of at least `target`."""

    target: float
    attempts: tuple[Attempt, ...] = ()

    def kept(self, attempt: Attempt) -> bool:
        """Whether a round is accurate enough to stay."""
        return attempt.accuracy is not None and attempt.accuracy >= self.target - ROUNDING

    @property
    def rounds(self) -> int:
        """How many stay."""
        return sum(map(self.kept, self.attempts))

    @property
    def next(self) -> float | None:
        """Share of the objective to be gone after the next round; None at the end."""
        share, ratio = _FIRST, 0.0
        for attempt in self.attempts:
            if self.kept(attempt):
                ratio = attempt.ratio
            else:
                share /= 2
        return None if share < _LAST else 1 - (1 - ratio) * (1 - share)

    def after(self, attempt: Attempt) -> Self:
        """With one more."""
        return replace(self, attempts=(*self.attempts, attempt))

    @classmethod
    def of(cls, workspace: Workspace, target: float) -> Self:
        """The search of a workspace as far as it is; a new one where nothing is pruned yet.

        InputError for an accuracy that the original network doesn't have, and where another was searched for.
        """
        assert workspace.original is not None
        found, file = workspace.original.accuracy, workspace.search_file
        if target > found:
            raise InputError(f"--target-map: expected at most the original's {found:.4f}, found {target:g}")
        if not file.exists():
            return cls(target)
        search = typed(cls, load_json(file, _KIND), file)
        if search.target != target:
            expected = f"expected {search.target:g}, as it was begun, found {target:g}"
            raise InputError(f"--target-map: {expected}; -w names another workspace", file=file)
        while search.rounds > len(workspace.rounds):  # one was taken back since: it is tried anew
            search = replace(search, attempts=search.attempts[:-1])
        return search

    def save(self, workspace: Workspace) -> None:
        """Write what was tried."""
        attempts = [vars(attempt) for attempt in self.attempts]
        save_json(workspace.search_file, _KIND, {"target": self.target, "attempts": attempts})


def smallest(folder: Path, target: float, attempt: Callable[[int, float], None]) -> None:
    """Prune and train round after round until no smaller network of the accuracy is found.

    attempt(number, ratio) makes a round, or what is missing of it. The workspace ends with the rounds that kept the
    accuracy. NothingGoesError where there are none.
    """
    search = Search.of(Workspace.load(folder), target)
    while True:
        known = Workspace.load(folder)
        tried = [each.ratio for each in search.attempts]
        if len(known.rounds) > search.rounds and known.last.options.ratio in tried:
            undo(folder)  # it lost too much
            continue
        ratio = search.next
        if len(known.rounds) > search.rounds and known.last.options.ratio != ratio:
            expected = "expected a workspace without rounds, or with those of this search alone"
            raise InputError(f"--target-map: {expected}; -w names another", file=folder)
        if ratio is None:
            break
        accuracy = None
        try:
            attempt(search.rounds + 1, ratio)
        except NothingGoesError:
            pass  # a smaller share may
        else:
            trained = Workspace.load(folder).last.finetuned
            assert trained is not None
            accuracy = trained.accuracy
        search = search.after(Attempt(ratio, accuracy))
        search.save(known)
    if not search.rounds:
        raise NothingGoesError(f"--target-map {target:g}: no smaller network was found that keeps it after training")
