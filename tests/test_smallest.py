"""`run --target-map`: rounds until no smaller network keeps an accuracy."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.drawn import Bench, fingerprint, trained
from tests.jobs import run
from yoloprune.errors import InputError, NothingGoesError
from yoloprune.options import FinetuneOptions, PruneOptions, Settings
from yoloprune.steps.smallest import Attempt, Search, smallest
from yoloprune.steps.undo import undo
from yoloprune.workspace import Figures, Input, Round, Workspace

Fall = Callable[[float], float | None]
"""Accuracy after training of a network with so much gone; None where that cannot be."""


def figures(accuracy: float, gone: float = 0.0) -> Figures:
    return Figures("top1", accuracy, 1 - gone, 1 - gone, 100, 100, 400)


@pytest.fixture(scope="module")
def made(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return trained(tmp_path_factory.mktemp("set") / "set")


@pytest.fixture
def space(tmp_path: Path) -> Path:
    """A workspace whose original network has an accuracy of 0.9."""
    known = Input("x", "0" * 64)
    Workspace(tmp_path / "space", known, known, known, Settings(), figures(0.9)).save()
    return tmp_path / "space"


def searched(space: Path, target: float, fall: Fall, stop: int | None = None) -> list[float]:
    """The ratios tried. stop: after so many writes of the workspace, as a kill would."""
    tried: list[float] = []
    writes = 0

    def write(workspace: Workspace) -> None:
        nonlocal writes
        if writes == stop:
            raise KeyboardInterrupt
        writes += 1
        workspace.save()

    def attempt(number: int, ratio: float) -> None:
        tried.append(ratio)
        found = fall(ratio)
        if found is None:
            raise NothingGoesError("as much cannot go")
        known = Workspace.load(space)
        if len(known.rounds) < number:
            pruned = Round(number, PruneOptions(ratio=ratio), 0.0, figures(0.9), figures(found / 2, ratio))
            write(known.with_round(pruned))
            known = Workspace.load(space)
        if not known.last.finetuned:
            finetuned = replace(known.last, finetuned=figures(found, ratio), finetuning=FinetuneOptions())
            write(known.with_round(finetuned))

    smallest(space, target, attempt)
    return tried


@pytest.mark.parametrize(
    ("fall", "tried", "kept"),
    [
        (
            lambda gone: 0.9 if gone < 0.7 else 0.5,
            [0.5, 0.75, 0.625, 0.71875, 0.671875, 0.712890625],
            [0.5, 0.625, 0.671875],
        ),
        (lambda gone: 0.9 if gone < 0.3 else 0.5, [0.5, 0.25, 0.4375, 0.34375], [0.25]),
        (lambda gone: 0.9 if gone < 0.6 else None, [0.5, 0.75, 0.625, 0.5625, 0.6171875], [0.5, 0.5625]),
    ],
)
def test_rounds_halve_what_is_left_then_less(space: Path, fall: Fall, tried: list[float], kept: list[float]) -> None:
    """By hand: each removes a share of what is left, 1/2 at first, half of that after each that failed, 1/8 at last."""
    found = searched(space, 0.8, fall)
    assert found == tried
    assert [each.options.ratio for each in Workspace.load(space).rounds] == kept
    search = Search.of(Workspace.load(space), 0.8)
    assert search.next is None
    assert search.rounds == len(kept)
    assert searched(space, 0.8, fall) == []  # nothing is left to do


def test_it_goes_on_from_wherever_it_was_stopped(space: Path, tmp_path: Path) -> None:
    def fall(gone: float) -> float:
        return 0.9 if gone < 0.7 else 0.5

    searched(space, 0.8, fall)
    whole = json.loads((space / "workspace.json").read_text())["rounds"], (space / "search.json").read_bytes()
    for stop in range(10):
        other = tmp_path / f"stop-{stop}"
        Workspace.load(space).without_last()
        replace(Workspace.load(space), folder=other, rounds=()).save()
        with pytest.raises(KeyboardInterrupt):
            searched(other, 0.8, fall, stop)
        searched(other, 0.8, fall)
        assert (json.loads((other / "workspace.json").read_text())["rounds"], (other / "search.json").read_bytes()) == (
            whole
        )


def test_a_round_that_was_judged_and_not_taken_back_yet_goes(space: Path) -> None:
    """Killed between the two writes."""
    known = Workspace.load(space)
    Search(0.8, (Attempt(0.5, 0.7),)).save(known)
    failed = Round(1, PruneOptions(ratio=0.5), 0.0, figures(0.9), figures(0.1), figures(0.7), FinetuneOptions())
    known.with_round(failed).save()
    assert searched(space, 0.8, lambda gone: 0.85 if gone < 0.3 else 0.7) == [0.25, 0.4375, 0.34375]


def test_what_is_no_search_is_refused(space: Path) -> None:
    known = Workspace.load(space)
    with pytest.raises(InputError, match=r"at most the original's 0.9000, found 0.95"):
        searched(space, 0.95, lambda _: 0.9)
    with pytest.raises(NothingGoesError, match="no smaller network was found that keeps it"):
        searched(space, 0.8, lambda _: 0.1)
    with pytest.raises(InputError, match=r"expected 0.8, as it was begun, found 0.7"):
        searched(space, 0.7, lambda _: 0.9)
    known.search_file.unlink()
    known.with_round(Round(1, PruneOptions(threshold=0.1), 0.1, figures(0.9), figures(0.8))).save()
    with pytest.raises(InputError, match="without rounds, or with those of this search"):
        searched(space, 0.8, lambda _: 0.9)


def test_of_a_network(made: Bench, tmp_path: Path) -> None:
    """A target that any network keeps ends where no more can go; one stopped goes on, and rounds can be taken back."""
    files, space = (made.cfg, made.weights, made.data), tmp_path / "space"
    options: dict[str, Any] = {"calibrate": 0, "multiple": 1, "iterations": 1, "workers": 0, "workspace": space}
    done = run(*files, tmp_path / "slim", target_map=0.3, **options)
    assert done.before.accuracy > 0.4
    assert done.after.bflops < done.before.bflops
    last = done.workspace.last
    assert last.finetuned is not None
    assert last.finetuned.accuracy >= 0.3
    undo(space)
    again = run(*files, tmp_path / "again", target_map=0.3, **options)
    assert again.workspace.rounds == done.workspace.rounds
    assert fingerprint(tmp_path / "again") == fingerprint(tmp_path / "slim")
    with pytest.raises(InputError, match="expected no --rounds"):
        run(*files, tmp_path / "other", target_map=0.5, rounds=2, **options)
    with pytest.raises(
        InputError, match="expected one of --threshold, --total-loss, --ratio, --sparsity, --global-sparsity and"
    ):
        run(*files, tmp_path / "other", target_map=0.5, ratio=0.2, **options)


@pytest.mark.parametrize("goal", ["round_ratios", "round_total_losses"])
def test_rounds_by_ratio_and_by_total_loss(made: Bench, tmp_path: Path, goal: str) -> None:
    options: dict[str, Any] = {"calibrate": 0, "multiple": 1, "iterations": 1, "workers": 0}
    done = run(
        made.cfg, made.weights, made.data, tmp_path / "slim", workspace=tmp_path / "space", export_for="opencv",
        **{goal: (0.2, 0.4)}, **options,
    )  # fmt: skip
    name = {"round_ratios": "ratio", "round_total_losses": "total_loss"}[goal]
    assert [getattr(each.options, name) for each in done.workspace.rounds] == [0.2, 0.4][: len(done.workspace.rounds)]
    if goal == "round_ratios":
        gone = [1 - each.pruned.bflops / done.before.bflops for each in done.workspace.rounds]
        assert all(reached >= asked for reached, asked in zip(gone, (0.2, 0.4), strict=True))
    else:
        lost = [done.before.accuracy - each.pruned.accuracy for each in done.workspace.rounds]
        assert all(each <= most + 1e-9 for each, most in zip(lost, (0.2, 0.4), strict=False))
