"""Where a loss curve is worth measuring: predicted from how far what the heads say drifts, confirmed by measurement.

A cut disturbs what the heads say. How much accuracy that costs depends on the network and the pictures, hardly on
which group was cut: over the groups of a network, loss against drift is one curve with the measurement's own noise
around it (docs/method.md shows it). Drift needs no labels, a few pictures tell it, and it grows smoothly with the cut.
So it is looked at for some counts of each group, the common curve is fitted on whatever has been measured, and accuracy
is measured only where a decision hangs on it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from yoloprune.prune.sensitivity import RESOLUTION, Curve, Point, Sensitivity, grid_counts, monotone

STEPS: Final = (*(step / 20 for step in range(1, 20)), 0.975)
"""Sparsities that may be measured."""
SCREENED: Final = (0.1, 0.25, 0.4, 0.55, 0.7, 0.85, 0.95)
"""Sparsities at which the drift is looked at."""
TRIES: Final = 3
"""Measurements that may just miss a loss before less precise knowledge has to do."""
_GUESS: Final = 0.01
"""A drift of so much is taken to have lost its share of all accuracy, before any measurement."""
_SMALL_DRIFT: Final = 0.3
"""Up to here loss grows about in proportion; beyond, little is left to lose."""
_LINE: Final = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
_LINE_WEIGHT: Final = 0.3
"""The proportion found so far stands in where no measurement is near: as points at these drifts, each with the weight
of so many measurements."""
_NOISE: Final = 0.05
"""Standard deviation of an accuracy measured on one picture, over cuts that differ little; falls with their root."""
_OWN: Final = 0.5
"""Standard deviation over groups of what they lose, as a share of what is expected of their drifts ..."""
_ALIKE: Final = 1.0
"""... and how far apart drifts are, as natural logarithms, over which a group stays alike in that."""


@dataclass(frozen=True)
class Expectation:
    """Loss against the network that is cut, as a function of drift; linear between knots."""

    drifts: NDArray[np.float64]
    losses: NDArray[np.float64]

    @classmethod
    def of(cls, sensitivity: Sensitivity, last: Curve | None = None) -> Expectation:
        """Fitted on everything measured in the curves up to `last` (default: all), rising (pool adjacent violators).

        Curves behind `last` are left out, so that what is measured next does not depend on when a run was interrupted.
        """
        measured = _measured(sensitivity, last)
        slope = _proportion(sensitivity, measured)
        line = [(drift, drift * max(slope, 0.0), _LINE_WEIGHT) for drift in _LINE]
        drifts, losses, weights = np.array(sorted([(0.0, 0.0, 1.0), *line, *measured])).T
        return cls(drifts, monotone(losses, weights))

    def at(self, drift: float) -> float:
        """The loss to expect."""
        return float(np.interp(drift, self.drifts, self.losses))


def _measured(sensitivity: Sensitivity, last: Curve | None = None) -> list[tuple[float, float, float]]:
    """Drift, loss against the network that is cut, and share of the pictures, of all points up to the curve `last`."""
    measured = []
    for curve in sensitivity.curves:
        if curve.screen:
            measured += [
                (drift_at(curve, point.dropped), sensitivity.start - point.accuracy, point.share)
                for point in curve.points
            ]
        if last is not None and curve.label == last.label:
            break
    return measured


def _proportion(sensitivity: Sensitivity, measured: Sequence[tuple[float, float, float]]) -> float:
    """Loss over drift, of small drifts and their losses."""
    small = [(drift, loss) for drift, loss, _ in measured if drift <= _SMALL_DRIFT]
    return (_GUESS * sensitivity.baseline + sum(loss for _, loss in small)) / (_GUESS + sum(d for d, _ in small))


def loss_per_drift(sensitivity: Sensitivity) -> float:
    """What a small drift costs for each of its units, over all groups; more than 0."""
    return max(_proportion(sensitivity, _measured(sensitivity)), 1e-9)


def drift_at(curve: Curve, dropped: int) -> float:
    """A group's drift at any count: log-linear between what was looked at, through 0 at what is gone already."""
    counts = np.array([curve.gone, *(count for count, _ in curve.screen)], np.float64)
    drifts = np.array([0.0, *(drift for _, drift in curve.screen)])
    if dropped <= counts[1]:
        return float(drifts[1] * (dropped - counts[0]) / max(counts[1] - counts[0], 1))
    return math.exp(float(np.interp(dropped, counts[1:], np.log(np.maximum(drifts[1:], 1e-12)))))


def screened_counts(curve: Curve) -> tuple[int, ...]:
    """Counts at which to look at the drift."""
    possible = grid_counts(curve, STEPS)
    wanted = {round(share * curve.atoms) for share in SCREENED}
    return tuple(sorted({min(possible, key=lambda count: abs(count - want)) for want in wanted})) if possible else ()


def next_count(sensitivity: Sensitivity, curve: Curve) -> int | None:
    """The count of `curve` to measure next, so that what may go at each of `losses` is known; None where it is.

    Larger losses come first, each with the largest count that is expected to hold. It is known when nothing further
    than `RESOLUTION` beyond what was measured to hold, and before what was measured to fail, is expected to;
    or, once anything holds, after `TRIES` near misses: on noisy curves there is always another count that might.
    """
    possible = grid_counts(curve, STEPS)
    expected = dict(zip(possible, expected_losses(sensitivity, curve, possible), strict=True))
    measured = {point.dropped for point in curve.points}
    larger = 2 * max(sensitivity.losses, default=0.0)
    for loss in sorted(sensitivity.losses, reverse=True):
        low, high = _bracket(sensitivity, curve, loss)
        missed = [point for point in curve.points if point.dropped > low and loss < sensitivity.loss(point) <= larger]
        larger = loss
        if (len(missed) >= TRIES and low > curve.gone) or high - low <= RESOLUTION * curve.atoms:
            continue
        between = [count for count in possible if low < count < high and count not in measured]
        hopeful = [count for count in between if expected[count] <= loss]
        if hopeful and (low == curve.gone or hopeful[-1] - low > RESOLUTION * curve.atoms):
            # Where the expectation has failed twice, halving what is left is never much worse than following it again.
            return min(hopeful[-1], between[len(between) // 2]) if len(missed) > 1 else hopeful[-1]
    return None


def expected_losses(sensitivity: Sensitivity, curve: Curve, counts: Sequence[int]) -> NDArray[np.float64]:
    """[counts]: what a group is expected to lose at these counts against the original network; it never falls.

    The common curve times 1 + r, where r over the logarithm of the drift is a Gaussian process with mean 0, standard
    deviation _OWN and length _ALIKE, given what this group was measured to lose (Rasmussen and Williams 2006, "Gaussian
    Processes for Machine Learning", eq. 2.25).
    """
    if not counts:
        return np.zeros(0)
    common = Expectation.of(sensitivity, curve)
    noise = _NOISE / math.sqrt(sensitivity.setup.images)

    def of(dropped: Iterable[int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        drifts = [max(drift_at(curve, count), 1e-9) for count in dropped]
        return np.log(drifts), np.array([max(common.at(drift), noise / 2) for drift in drifts])

    def alike(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
        covariance: NDArray[np.float64] = _OWN**2 * np.exp(-0.5 * ((one[:, None] - other) / _ALIKE) ** 2)
        return covariance

    at, losses = of(counts)
    if curve.points:
        seen, predicted = of(point.dropped for point in curve.points)
        lost = np.array([sensitivity.start - point.accuracy for point in curve.points])
        shares = np.array([point.share for point in curve.points])
        uncertain = np.diag((noise / predicted) ** 2 / shares)
        losses = losses * (1 + alike(at, seen) @ np.linalg.solve(alike(seen, seen) + uncertain, lost / predicted - 1))
    return sensitivity.baseline - sensitivity.start + monotone(losses, np.ones(len(losses)))


def _bracket(sensitivity: Sensitivity, curve: Curve, loss: float) -> tuple[int, int]:
    """The largest count that holds at `loss`, and the smallest one beyond that was measured to lose more."""
    low = sensitivity.holds(curve, loss)
    over = [point.dropped for point in curve.points if point.dropped > low and sensitivity.loss(point) > loss]
    return low, min(over, default=curve.atoms)


class Measurer(Protocol):
    """Who cuts a group and looks (trials.py)."""

    def drift(self, curve: Curve, dropped: int) -> float:
        """How far a cut disturbs what the heads say."""

    def point(self, curve: Curve, dropped: int, most: float = math.inf) -> Point:
        """A measurement; it may be given up where more than `most` is lost for sure."""


def analyse(sensitivity: Sensitivity, trials: Measurer, on_change: Callable[[Sensitivity, Curve], None]) -> Sensitivity:
    """Measure what is missing of every curve, each group alone: on the grid, or where the losses need it.

    `on_change` hears of every new measurement and may save: what is there is not measured again, and what is measured
    next follows from what is there alone.
    """
    for label in [curve.label for curve in sensitivity.curves]:
        for curve in _growing(sensitivity, label, trials):
            sensitivity = sensitivity.with_curve(curve)
            on_change(sensitivity, curve)
    return sensitivity


def _growing(sensitivity: Sensitivity, label: str, trials: Measurer) -> Iterator[Curve]:
    """A curve, more of it each time, until it is whole."""
    curve = next(each for each in sensitivity.curves if each.label == label)
    for dropped in grid_counts(curve, sensitivity.sparsities):
        if all(point.dropped != dropped for point in curve.points):
            curve = curve.with_point(trials.point(curve, dropped))
            yield curve
    if not sensitivity.losses:
        return
    counts = screened_counts(curve)
    if counts and not curve.screen:
        curve = replace(curve, screen=tuple((count, trials.drift(curve, count)) for count in counts))
        yield curve
    while curve.screen and (following := next_count(sensitivity.with_curve(curve), curve)) is not None:
        curve = curve.with_point(trials.point(curve, following, max(sensitivity.losses)))
        yield curve
