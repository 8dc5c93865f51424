"""Which cut costs the least accuracy for what it saves: groups trade loss against cost at one price.

At a price p, each group drops as many units as make its own loss, plus p times what the network still costs, least
(Everett 1963: what solves the priced problem solves the bounded one). Costs of neighbours depend on each other, so
groups are gone through again until none moves.

Where the analysis looked at output error (search.py), a group's loss is in proportion to it: output error has next to
no noise and tells apart losses that are far below what can be measured, of which a joint cut adds up dozens.

Else losses are the curves read as never falling: the least-squares monotone curve through the measurements (pool
adjacent violators: Ayer et al. 1955), so neither a lucky measurement nor a gain draws a group further than its
neighbours bear out. How far the measurements lie off these curves tells their noise, and noise can hide a loss:
`_DOUBTS` times it, growing with the square of the share that goes, is added. Without that, groups whose loss happens to
measure as nothing are emptied, and such losses do add up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from yoloprune.errors import InputError
from yoloprune.prune.channels import Channels, KeepMask
from yoloprune.prune.cost import Costs
from yoloprune.prune.plan import Limits, choose, keep_mask
from yoloprune.prune.search import loss_per_output_error, output_error_at
from yoloprune.prune.sensitivity import Curve, Sensitivity, monotone

Allocation = Mapping[str, int]
"""For each group by label, how many units are gone."""
_DOUBTS: Final = 3.0
_LEAST_DOUBT: Final = 1e-3
"""Noise of accuracy that is always reckoned with."""
_STOPS: Final = 32
"""A group may stop at about so many counts, beside those that were measured."""
_PRICES: Final = (1e-6, 1e6)
"""Accuracy for the whole network's cost: nothing goes for the first, all that may for the second."""
_BISECTIONS: Final = 24
_BUMP: Final = 1.1
"""Times are measured: beyond a count that costs so much more, none is looked for that costs no more again."""
_SWEEPS: Final = 20


class Allocator(Protocol):
    """A family of choices that grow with one number."""

    def at(self, loss: float) -> Allocation:
        """What goes at a tolerable loss, in the way's own meaning of it."""

    def most(self) -> float:
        """A loss beyond which no more goes."""

    def for_ratio(self, ratio: float) -> Allocation:
        """The first that removes a share `ratio` of the cost. InputError if there is none."""


def added_loss(sensitivity: Sensitivity, curve: Curve, dropped: Sequence[int]) -> NDArray[np.float64]:
    """What a group adds to the loss with so many units gone [n]: its monotone curve over that curve's start; never < 0.

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


def doubt(sensitivity: Sensitivity) -> float:
    """Loss that the measurements' noise may hide where all of a group goes."""
    return _DOUBTS * max(noise(sensitivity), _LEAST_DOUBT)


def removed_share(sensitivity: Sensitivity, channels: Channels, costs: Costs, allocation: Allocation) -> float:
    """Share of the original network's cost that is gone."""
    return 1 - costs.total(keep_mask(sensitivity, channels, allocation)) / costs.whole


@dataclass(frozen=True)
class ThresholdAllocator:
    """One threshold for all: each group goes as far as it bears that loss, whatever that saves."""

    sensitivity: Sensitivity
    channels: Channels
    limits: Limits
    costs: Costs
    rule: str

    def at(self, loss: float) -> Allocation:
        """Each group within this loss."""
        return choose(self.sensitivity, loss, self.limits, self.rule)

    def most(self) -> float:
        """The largest loss that was measured."""
        curves = self.sensitivity.curves
        return max([0.0, *(self.sensitivity.loss(point) for curve in curves for point in curve.points)])

    def for_ratio(self, ratio: float) -> Allocation:
        """Of the smallest threshold that removes that much."""
        low, high = self.sensitivity.baseline - self.sensitivity.start, self.most()
        _check_ratio(ratio, self._removed(high), self.limits)
        for _ in range(40):
            middle = (low + high) / 2
            if self._removed(middle) >= ratio:
                high = middle
            else:
                low = middle
        return self.at(high)

    def _removed(self, loss: float) -> float:
        return removed_share(self.sensitivity, self.channels, self.costs, self.at(loss))


def _check_ratio(ratio: float, most: float, limits: Limits) -> None:
    if most < ratio:
        can_go = f"at most {most:.4f} of the cost can go within what was measured"
        raise InputError(f"--ratio {ratio:g}: {can_go}{limits.advice}")


@dataclass(frozen=True)
class _Stops:
    """Where a group may stop."""

    curve: Curve
    units: NDArray[np.int64]
    """In the order they go."""
    dropped: tuple[int, ...]
    """Growing; the first is what was gone before."""
    losses: NDArray[np.float64]
    """What each adds to the loss, with doubt [n]."""


class LagrangianAllocator:
    """Groups trade: the loss of a allocation is the sum of what its groups add, with doubt."""

    def __init__(self, sensitivity: Sensitivity, channels: Channels, limits: Limits, costs: Costs) -> None:
        self.sensitivity, self.channels, self.limits, self.costs = sensitivity, channels, limits, costs
        self._doubt, self._per_output_error = doubt(sensitivity), loss_per_output_error(sensitivity)
        groups = {group.label: group.units for group in channels.groups}
        self._stops = [self._stops_of(curve, groups[curve.label][list(curve.order)]) for curve in sensitivity.curves]
        self._priced = cache(self._at_price)

    def at(self, loss: float) -> Allocation:
        """About the largest saving within a loss of all groups, summed up."""
        return self._parted(lambda allocation: self.loss(allocation) > loss)[0]

    def most(self) -> float:
        """The loss of all that may go."""
        return self.loss(self._priced(_PRICES[1]))

    def for_ratio(self, ratio: float) -> Allocation:
        """About the least loss at which that share of the cost is gone."""
        _check_ratio(ratio, self._removed(self._priced(_PRICES[1])), self.limits)
        return self._parted(lambda allocation: self._removed(allocation) >= ratio)[1]

    def loss(self, allocation: Allocation) -> float:
        """What the groups add to the loss, each alone, summed up; with doubt where only measurements tell."""
        return sum(float(self._losses(each.curve, [allocation[each.curve.label]])[0]) for each in self._stops)

    def _removed(self, allocation: Allocation) -> float:
        return removed_share(self.sensitivity, self.channels, self.costs, allocation)

    def _losses(self, curve: Curve, dropped: Sequence[int]) -> NDArray[np.float64]:
        if curve.proxy:
            return self._per_output_error * np.array([output_error_at(curve, count) for count in dropped])
        share = (np.array(dropped) - curve.gone) / curve.units
        return added_loss(self.sensitivity, curve, dropped) + self._doubt * share**2

    def _parted(self, over: Callable[[Allocation], bool]) -> tuple[Allocation, Allocation]:
        """Two neighbours among the choices, `over` false for the first and true for the second.

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
            allocation = {
                each.curve.label: self.limits.allowed(each.curve, counts[each.curve.label]) for each in self._stops
            }
            if over(allocation):
                high, above = middle, allocation
            else:
                low, below = middle, allocation
        return below, above

    def _at_price(self, price: float) -> Allocation:
        """From nothing gone on, group after group, until none moves."""
        allocation = {each.curve.label: each.curve.gone for each in self._stops}
        keep = keep_mask(self.sensitivity, self.channels, allocation)
        for _ in range(_SWEEPS):
            before = dict(allocation)
            for stops in self._stops:
                keep[stops.units] = True
                costs = self._costs_at(stops, keep)
                best = stops.dropped[int(np.argmin(stops.losses + price * costs / self.costs.whole))]
                allocation[stops.curve.label] = best
                keep[stops.units[:best]] = False
            if allocation == before:
                break
        return allocation

    def _costs_at(self, stops: _Stops, keep: KeepMask) -> NDArray[np.float64]:
        """Of the layers around a group with more and more of its units gone [n]."""
        tried = np.tile(keep, (len(stops.dropped), 1))
        for row, count in zip(tried, stops.dropped, strict=True):
            row[stops.units[:count]] = False
        return self.costs.around(stops.curve.label, tried)

    def _stops_of(self, curve: Curve, units: NDArray[np.int64]) -> _Stops:
        measured = {curve.gone, *(point.dropped for point in curve.points), *(count for count, _ in curve.proxy)}
        step = 1
        while (curve.units - curve.gone) > step * _STOPS:
            step *= 2
        even = {count for count in range(curve.gone, max(measured) + 1) if (curve.units - count) % step == 0}
        dropped = tuple(sorted({self.limits.allowed(curve, count) for count in measured | even}))
        return _Stops(curve, units, dropped, self._losses(curve, dropped))


def drop_useless_pruning(
    sensitivity: Sensitivity, channels: Channels, limits: Limits, costs: Costs, allocation: Allocation
) -> Allocation:
    """The allocation with units put back whose going saves nothing: a cut that isn't faster is no use."""
    groups = {group.label: group.units for group in channels.groups}
    result = dict(allocation)
    keep = keep_mask(sensitivity, channels, result)
    for curve in sensitivity.curves:
        units = groups[curve.label][list(curve.order)]
        most = costs.around(curve.label, keep[None])[0] * (1 + 1e-9)
        for count in range(result[curve.label] - 1, curve.gone - 1, -1):
            if limits.allowed(curve, count) != count:
                continue
            tried = keep.copy()
            tried[units[count:]] = True
            (cost,) = costs.around(curve.label, tried[None])
            if cost > _BUMP * most:
                break
            if cost <= most:
                keep, result[curve.label] = tried, count
    return result
