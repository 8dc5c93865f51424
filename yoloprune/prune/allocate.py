"""How much of each group goes: what allocators have in common, one threshold for all, and what saves nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from yoloprune.errors import NothingGoesError
from yoloprune.prune.granularity import Allocation, AllocationCosts
from yoloprune.prune.limits import Limits, prunable_count
from yoloprune.prune.sensitivity import ROUNDING, Curve, Sensitivity, monotone

_DEVIATIONS: Final = 3.0
"""Standard deviations of the noise in the noise margin."""
_LEAST_NOISE: Final = 1e-3
"""Noise of accuracy that is always reckoned with."""
_BUMP: Final = 1.1
"""Times are measured: beyond a count that costs so much more, none is looked for that costs no more again."""
_FIRST_TRIAL: Final = 1e-3
"""Tolerable loss that is tried first at the least: from nothing, doubling leads nowhere."""


class Allocator(Protocol):
    """A family of allocations that grow with one number."""

    def at(self, loss: float) -> Allocation:
        """What goes at a tolerable loss, in the allocator's own meaning of it."""

    def most(self) -> float:
        """A loss beyond which no more goes."""

    def for_ratio(self, ratio: float) -> Allocation:
        """The first that removes a share `ratio` of the cost. NothingGoesError if there is none."""


def added_loss(sensitivity: Sensitivity, curve: Curve, dropped: Sequence[int]) -> NDArray[np.float64]:
    """What a group adds to the loss with so many units gone [n]: its isotonic regression less that at its start; >= 0.

    A curve starts at the units gone before with the loss there; it ends at its last measurement.
    """
    counts = [curve.gone, *(point.dropped for point in curve.points)]
    start = sensitivity.baseline - sensitivity.start
    losses = np.array([start, *(sensitivity.loss(point) for point in curve.points)])
    losses = monotone(losses, np.array([1.0, *(point.share for point in curve.points)]))
    return np.maximum(np.interp(dropped, counts, losses) - start, 0)


def noise(sensitivity: Sensitivity) -> float:
    """Root mean square of how far measurements lie off their curves as `added_loss` reads them."""
    start = sensitivity.baseline - sensitivity.start
    off = [
        sensitivity.loss(point) - start - added
        for curve in sensitivity.curves
        for point, added in zip(
            curve.points, added_loss(sensitivity, curve, [each.dropped for each in curve.points]), strict=True
        )
    ]
    return math.sqrt(sum(each**2 for each in off) / max(len(off), 1))


def noise_margin(sensitivity: Sensitivity) -> float:
    """Loss that the measurements' noise may hide where all of a group goes."""
    return _DEVIATIONS * max(noise(sensitivity), _LEAST_NOISE)


def removed_share(costs: AllocationCosts, allocation: Allocation) -> float:
    """Share of the original network's cost that is gone."""
    return 1 - costs.total(allocation) / costs.whole


def check_ratio(ratio: float, most: float, limits: Limits) -> None:
    """NothingGoesError where at most a share `most` of the cost can go, and `ratio` is more."""
    if most < ratio:
        can_go = f"at most {most:.4f} of the cost can go within what was measured"
        raise NothingGoesError(f"--ratio {ratio:g}: {can_go}{limits.advice}")


@dataclass(frozen=True)
class ThresholdAllocator:
    """One threshold for all: each group goes as far as it is prunable at that loss, whatever that saves."""

    sensitivity: Sensitivity
    limits: Limits
    costs: AllocationCosts
    rule: str

    def at(self, loss: float) -> Allocation:
        """Each group within this loss."""
        return {
            curve.label: self.limits.allowed(curve, prunable_count(self.sensitivity, curve, loss, self.rule))
            for curve in self.sensitivity.curves
        }

    def most(self) -> float:
        """The largest loss that was measured."""
        curves = self.sensitivity.curves
        return max([0.0, *(self.sensitivity.loss(point) for curve in curves for point in curve.points)])

    def for_ratio(self, ratio: float) -> Allocation:
        """Of the smallest threshold that removes that much."""
        low, high = self.sensitivity.baseline - self.sensitivity.start, self.most()
        check_ratio(ratio, self._removed(high), self.limits)
        for _ in range(40):
            middle = (low + high) / 2
            if self._removed(middle) >= ratio:
                high = middle
            else:
                low = middle
        return self.at(high)

    def _removed(self, loss: float) -> float:
        return removed_share(self.costs, self.at(loss))


def loss_for_total(joint_loss: Callable[[float], float], total: float, most: float, steps: int = 8) -> float | None:
    """The largest tolerable loss found whose `joint_loss(loss)`, as measured, is at most `total`; None without one.

    Doubled from `total` (or `_FIRST_TRIAL`) on while it holds, up to `most`, where nothing more can go; then bisected
    in `steps`. Joint losses are noisy: what comes back was itself measured to hold.
    """
    good: float | None = None
    bad: float | None = None
    trial = min(max(total, _FIRST_TRIAL), most)
    while bad is None:
        if joint_loss(trial) > total + ROUNDING:
            bad = trial
        elif trial >= most:
            return trial
        else:
            good, trial = trial, min(2 * trial, most)
    low = 0.0 if good is None else good
    for _ in range(steps):
        middle = (low + bad) / 2
        if joint_loss(middle) > total + ROUNDING:
            bad = middle
        else:
            low = good = middle
    return good


def drop_useless_pruning(
    sensitivity: Sensitivity, limits: Limits, costs: AllocationCosts, allocation: Allocation
) -> Allocation:
    """The allocation with units put back whose going saves nothing: pruning that isn't faster is no use."""
    result = dict(allocation)
    if costs.each_saves:
        return result
    for curve in sensitivity.curves:
        label = curve.label
        most = costs.around(label, result, [result[label]])[0] * (1 + 1e-9)
        for count in range(result[label] - 1, curve.gone - 1, -1):
            if limits.allowed(curve, count) != count:
                continue
            (cost,) = costs.around(label, result, [count])
            if cost > _BUMP * most:
                break
            if cost <= most:
                result[label] = count
    return result
