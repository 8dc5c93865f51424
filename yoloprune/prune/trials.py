"""Cuts of single groups, tried on a measure's pictures: how far they disturb the heads, how much accuracy they cost."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, Final

import torch
from torch import Tensor

from yoloprune.detect.front import Front
from yoloprune.detect.measure import Measure, network_for_measuring
from yoloprune.detect.outcome import LEVEL, Outcome, interval, resamples
from yoloprune.prune.cutter import Cutter
from yoloprune.prune.sensitivity import Curve, Point

_SURE: Final = 0.98
"""A measurement is given up when this share of the resamples of the first pictures agrees that too much is lost."""


class Trials:
    """Cuts of a cutter's network, each against the original.

    original: gives what the original network finds in each of the measure's pictures, from which losses count; called
    once, when it is needed.
    """

    def __init__(self, cutter: Cutter, measure: Measure, original: Callable[[], list[Any]], seed: int = 0) -> None:
        self.cutter, self.measure, self.seed = cutter, measure, seed
        self._find_original = original
        self._base = network_for_measuring(cutter.model, cutter.device)
        self._variant = network_for_measuring(cutter.model, cutter.device)
        self._front = Front(measure, self._base)
        self._known: dict[int, _Original] = {}

    @cached_property
    def _original(self) -> list[Any]:
        return self._find_original()

    @cached_property
    def baseline(self) -> float:
        """Accuracy of the original on all pictures."""
        return self._of_first(len(self._original)).outcome.accuracy

    @cached_property
    def _before(self) -> list[Tensor]:
        return list(self._front.scores(self._base))

    def drift(self, curve: Curve, dropped: int) -> float:
        """Sum of squared changes of what the heads rank their answers by, over the sum of its squares."""
        self._cut(curve, dropped)
        before, changed = (torch.zeros((), dtype=torch.float64) for _ in range(2))
        for a, b in zip(self._front.scores(self._variant), self._before, strict=True):
            changed += (a - b).double().square().sum().cpu()
            before += b.double().square().sum().cpu()
        return float(changed / before.clamp(min=1e-30))

    def point(self, curve: Curve, dropped: int, most: float = float("inf")) -> Point:
        """One measurement; given up early where the first pictures leave no doubt that it loses more than `most`."""
        self._cut(curve, dropped)

        def hopeless(outcome: Outcome, seen: int) -> bool:
            return self._of_first(seen).interval(outcome, _SURE)[0] > most

        outcome, seen = self._front.outcome(self._variant, hopeless)
        there = self._of_first(seen)
        loss = there.outcome.accuracy - outcome.accuracy
        return Point(dropped, self.baseline - loss, there.interval(outcome), seen / len(self._original))

    def _cut(self, curve: Curve, dropped: int) -> None:
        self._front.advance(self.cutter.first_reader(curve))
        keep = curve.keep(self.cutter.channels, self.cutter.keep, dropped)
        self._variant.set_weights(self.cutter.alone(keep).weights)

    def _of_first(self, pictures: int) -> _Original:
        if pictures not in self._known:
            self._known[pictures] = _Original(self.measure.outcome(self._original[:pictures]), pictures, self.seed)
        return self._known[pictures]


class _Original:
    """The original's outcome on the first pictures, and on resamples of them."""

    def __init__(self, outcome: Outcome, pictures: int, seed: int) -> None:
        self.outcome = outcome
        self._counts = resamples(pictures, seed)
        self._accuracies = outcome.resampled(self._counts)

    def interval(self, outcome: Outcome, level: float = LEVEL) -> tuple[float, float]:
        """Of the loss from this to `outcome`."""
        return interval(self._accuracies - outcome.resampled(self._counts), level)
