"""What pruning may lose, or what it is to remove: checked as a user says it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Self

from yoloprune.errors import InputError
from yoloprune.options import PruneOptions

_POINTS: Final = 100
"""Of accuracy in a whole; people name losses in points and shares in percent."""


@dataclass(frozen=True)
class Goal:
    """Exactly one of three is given."""

    threshold: float | None = None
    """Accuracy that each group, pruned alone, may lose against the original network."""
    ratio: float | None = None
    """Share of the objective to remove."""
    total_loss: float | None = None
    """Accuracy that all groups together may lose."""

    @classmethod
    def of(cls, options: PruneOptions) -> Self:
        """As given. InputError unless there is exactly one, and in its range; if relative, a loss."""
        goal = cls(options.threshold, options.ratio, options.total_loss)
        if list(vars(goal).values()).count(None) != 2:
            raise InputError("expected one of --threshold, --ratio and --total-loss")
        if options.relative and goal.ratio is not None:
            raise InputError("--relative is for --threshold and --total-loss, found --ratio")
        for option, loss in (("--threshold", goal.threshold), ("--total-loss", goal.total_loss)):
            if loss is not None:
                check_loss(option, loss)
        if goal.ratio is not None:
            check_share("--ratio", goal.ratio)
        return goal

    @property
    def loss(self) -> float | None:
        """What may be lost, by each group or by all; None where a share is to go."""
        return self.total_loss if self.threshold is None else self.threshold

    def scaled(self, accuracy: float) -> Self:
        """The losses, given as fractions of `accuracy`, as accuracy."""
        threshold, total_loss = (
            None if loss is None else loss * accuracy for loss in (self.threshold, self.total_loss)
        )
        return replace(self, threshold=threshold, total_loss=total_loss)


def check_loss(option: str, loss: float) -> None:
    """InputError unless a loss of accuracy is at least 0 and under 1, where nothing would be left."""
    if not 0 <= loss < 1:
        raise InputError(f"{option}: expected a loss of at least 0 and under 1, found {loss:g}{meant(loss)}")


def check_share(option: str, share: float) -> None:
    """InputError unless a share is between 0 and 1."""
    if not 0 < share < 1:
        raise InputError(f"{option}: expected a share between 0 and 1, found {share:g}{meant(share)}")


def meant(*values: float) -> str:
    """A guess, to end an error with, where points or percent were given."""
    if not values or not all(1 <= each < _POINTS for each in values):
        return ""
    return f"; did you mean {','.join(f'{each / _POINTS:g}' for each in values)}?"
