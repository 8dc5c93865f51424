"""Which allocation costs the least accuracy for what it saves: groups trade loss against cost at one price.

At a price p, each group prunes as many units as make its own loss, plus p times what the network still costs, least
(Everett 1963: what solves the priced problem, the Lagrangian, solves the bounded one). Costs of neighbours depend on
each other, so groups are gone through again until none moves.

Where the analysis has proxy measurements (search.py), a group's loss is in proportion to its output error, which has
next to no noise and tells apart losses that are far below what can be measured, of which joint pruning adds up dozens.

Else losses are the isotonic regression of the measurements (pool adjacent violators: Ayer et al. 1955), so neither a
lucky measurement nor a gain draws a group further than its neighbours bear out. How far the measurements lie off these
curves tells their noise, and noise can hide a loss: the noise margin, growing with the square of the share that goes,
is added. Without that, groups whose loss happens to measure as nothing are emptied, and such losses do add up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from yoloprune.prune.allocate import added_loss, check_ratio, noise_margin, removed_share
from yoloprune.prune.granularity import Allocation, AllocationCosts
from yoloprune.prune.limits import Limits
from yoloprune.prune.search import loss_per_output_error, output_error_at
from yoloprune.prune.sensitivity import Curve, Sensitivity

_STOPS: Final = 32
"""A group may stop at about so many counts, beside those that were measured."""
_PRICES: Final = (1e-6, 1e6)
"""Accuracy for the whole network's cost: nothing goes for the first, all that may for the second."""
_BISECTIONS: Final = 24
_SWEEPS: Final = 20


@dataclass(frozen=True)
class _Stops:
    """Where a group may stop."""

    curve: Curve
    dropped: tuple[int, ...]
    """Growing; the first is what was gone before."""
    losses: NDArray[np.float64]
    """What each adds to the loss, with the noise margin [n]."""


class LagrangianAllocator:
    """Groups trade: the loss of an allocation is the sum of what its groups add, with the noise margin."""

    def __init__(self, sensitivity: Sensitivity, limits: Limits, costs: AllocationCosts) -> None:
        self.sensitivity, self.limits, self.costs = sensitivity, limits, costs
        self._margin, self._per_error = noise_margin(sensitivity), loss_per_output_error(sensitivity)
        self._stops = [self._stops_of(curve) for curve in sensitivity.curves]
        self._priced = cache(self._at_price)

    def at(self, loss: float) -> Allocation:
        """About the largest saving within a loss of all groups, summed up."""
        return self._parted(lambda allocation: self.loss(allocation) > loss)[0]

    def most(self) -> float:
        """The loss where all goes that is measured and allowed."""
        return self.loss(self._priced(_PRICES[1]))

    def for_ratio(self, ratio: float) -> Allocation:
        """About the least loss at which that share of the cost is gone."""
        check_ratio(ratio, removed_share(self.costs, self._priced(_PRICES[1])), self.limits)
        return self._parted(lambda allocation: removed_share(self.costs, allocation) >= ratio)[1]

    def loss(self, allocation: Allocation) -> float:
        """What the groups add to the loss, each alone, summed up; with the margin where only measurements tell."""
        return sum(float(self._losses(each.curve, [allocation[each.curve.label]])[0]) for each in self._stops)

    def _losses(self, curve: Curve, dropped: Sequence[int]) -> NDArray[np.float64]:
        if curve.proxy:
            return self._per_error * np.array([output_error_at(curve, count) for count in dropped])
        share = (np.array(dropped) - curve.gone) / curve.size
        return added_loss(self.sensitivity, curve, dropped) + self._margin * share**2

    def _parted(self, over: Callable[[Allocation], bool]) -> tuple[Allocation, Allocation]:
        """Two neighbours among the allocations, `over` false for the first and true for the second.

        Where `over` is false for all, the largest twice; where it is true for all, the smallest twice.
        """
        low, high = map(math.log, _PRICES)
        below: Allocation = {each.curve.label: each.curve.gone for each in self._stops}
        above = self._priced(_PRICES[1])
        if over(below) or not over(above):
            return (below, below) if over(below) else (above, above)
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            allocation = self._priced(math.exp(middle))
            if over(allocation):
                high, above = middle, allocation
            else:
                low, below = middle, allocation
        return self._between(below, above, over)

    def _between(
        self, below: Allocation, above: Allocation, over: Callable[[Allocation], bool]
    ) -> tuple[Allocation, Allocation]:
        """The same on the straight way from one allocation to the other: prices jump over what lies between."""
        start, end, low, high = below, above, 0.0, 1.0
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            counts = {label: round((1 - middle) * start[label] + middle * end[label]) for label in start}
            curves = (each.curve for each in self._stops)
            allocation = {curve.label: self.limits.allowed(curve, counts[curve.label]) for curve in curves}
            if over(allocation):
                high, above = middle, allocation
            else:
                low, below = middle, allocation
        return below, above

    def _at_price(self, price: float) -> Allocation:
        """From nothing gone on, group after group, until none moves."""
        allocation = {each.curve.label: each.curve.gone for each in self._stops}
        for _ in range(_SWEEPS):
            before = dict(allocation)
            for stops in self._stops:
                costs = self.costs.around(stops.curve.label, allocation, stops.dropped)
                best = int(np.argmin(stops.losses + price * costs / self.costs.whole))
                allocation[stops.curve.label] = stops.dropped[best]
            if allocation == before:
                break
        return allocation

    def _stops_of(self, curve: Curve) -> _Stops:
        measured = {curve.gone, *(point.dropped for point in curve.points), *(count for count, _ in curve.proxy)}
        step = 1
        while (curve.size - curve.gone) > step * _STOPS:
            step *= 2
        first = curve.gone + (curve.size - curve.gone) % step
        even = set(range(first, max(measured) + 1, step))
        dropped = tuple(sorted({self.limits.allowed(curve, count) for count in measured | even}))
        return _Stops(curve, dropped, self._losses(curve, dropped))
