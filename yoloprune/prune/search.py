"""Where a loss curve is worth measuring: predicted from the error at the outputs, confirmed by measurement.

Pruning disturbs the heads' scores. How much accuracy that costs depends on the network and the pictures, less on which
group was pruned: over the groups of a network, loss against output error is one curve, about a power law, with each
group's own deviation around it and the measurement's noise (docs/experiments.md shows it). The output error needs no
labels, a few pictures tell it, and it grows smoothly with the units that go. So it is the proxy measurement that comes
before each measurement of accuracy, and accuracy is measured only where a decision hangs on it.
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
FIRST_PROXY: Final = 0.95
"""Sparsity of a group's first proxy measurement."""
TRIES: Final = 3
"""Measurements that may just miss a loss before less precise knowledge has to do."""
CAUTION: Final = 0.8
"""A count is tried for a loss of which it is expected to take this share at the most: a miss costs a measurement."""
_GUESS: Final = (0.03, 0.02, 0.3)
"""Before any measurement: an error, the share of all accuracy that it costs, the share of a measurement this counts."""
_POWERS: Final = np.arange(0.35, 1.61, 0.05)[:, None]
"""Of output error, that loss may grow with ..."""
_POWER: Final = (0.75, 0.1)
"""... and what is expected of it, with its standard deviation."""
_SATURATED: Final = 0.6
"""Beyond this output error little is left to lose."""
_NOISE: Final = 0.03
"""Standard deviation of an accuracy measured on one image, over prunings that differ little; falls with their root."""
_OWN: Final = 0.3
"""Standard deviation over groups of what they lose, as a share of what is expected of their output errors ..."""
_ALIKE: Final = 1.0
"""... and how far apart output errors are, as natural logarithms, over which a group stays alike in that."""
_SMALL_ERROR: Final = 0.3
"""Up to here a mean proportion of loss to output error says something."""


@dataclass(frozen=True)
class Expectation:
    """Loss against the network that is pruned: scale times output error^power."""

    scale: float
    power: float

    @classmethod
    def of(cls, sensitivity: Sensitivity, last: Curve | None = None) -> Expectation:
        """The most probable one, given everything measured in the curves up to `last` (default: all).

        Curves behind `last` are left out, so that what is measured next does not depend on when a run was interrupted.
        """
        output_error, lost, share = _GUESS
        known = [(output_error, lost * sensitivity.baseline, share), *_measured(sensitivity, last)]
        output_errors, losses, shares = np.array([each for each in known if each[0] <= _SATURATED]).T
        grown = np.maximum(output_errors, 1e-9) ** _POWERS  # [P, M]
        scale = np.full((len(_POWERS), 1), lost * sensitivity.baseline / output_error)
        for _ in range(5):  # how far a measurement may be off depends on what is expected of it
            variance = _noise(sensitivity) ** 2 / shares + (_OWN * scale * grown) ** 2
            scale = ((losses * grown / variance).sum(1) / (grown**2 / variance).sum(1)).clip(min=1e-3)[:, None]
        misfit = ((losses - scale * grown) ** 2 / variance + np.log(variance)).sum(1)
        mean, deviation = _POWER
        best = int(np.argmin(misfit + ((_POWERS[:, 0] - mean) / deviation) ** 2))
        return cls(float(scale[best, 0]), float(_POWERS[best, 0]))

    def at(self, output_error: float) -> float:
        """The loss to expect."""
        return float(self.scale * max(output_error, 0.0) ** self.power)


def _noise(sensitivity: Sensitivity) -> float:
    """Standard deviation of an accuracy measured on all pictures, over prunings that differ little."""
    return _NOISE / math.sqrt(sensitivity.setup.images)


def _measured(sensitivity: Sensitivity, last: Curve | None = None) -> list[tuple[float, float, float]]:
    """The output error, loss against the pruned network, and share of the images, of all points up to curve `last`."""
    measured = []
    for curve in sensitivity.curves:
        if curve.proxy:
            measured += [
                (output_error_at(curve, point.dropped), sensitivity.start - point.accuracy, point.share)
                for point in curve.points
            ]
        if last is not None and curve.label == last.label:
            break
    return measured


def loss_per_output_error(sensitivity: Sensitivity) -> float:
    """What a small output error costs for each of its units, over all groups; more than 0."""
    output_error, lost, _ = _GUESS
    small = [(output_error, lost * sensitivity.baseline)]
    small += [(output_error, loss) for output_error, loss, _ in _measured(sensitivity) if output_error <= _SMALL_ERROR]
    output_errors, losses = map(sum, zip(*small, strict=True))
    return max(losses / output_errors, 1e-9)


def output_error_at(curve: Curve, dropped: int) -> float:
    """A group's output error at any count: log-linear between its proxy measurements, from 0 at what is gone."""
    counts = np.array([curve.gone, *(count for count, _ in curve.proxy)], np.float64)
    output_errors = np.array([0.0, *(output_error for _, output_error in curve.proxy)])
    if dropped <= counts[1]:
        return float(output_errors[1] * (dropped - counts[0]) / max(counts[1] - counts[0], 1))
    return math.exp(float(np.interp(dropped, counts[1:], np.log(np.maximum(output_errors[1:], 1e-12)))))


def next_count(sensitivity: Sensitivity, curve: Curve) -> tuple[int, float] | None:
    """The count of `curve` to measure next, so that what prunable at each of `losses` is known, and the loss it is for.

    Larger losses come first, each with the largest count that is expected to hold. It is known when nothing further
    than `RESOLUTION` beyond what was measured to hold, and before what was measured to fail, is expected to;
    or, once anything holds, after `TRIES` near misses: on noisy curves there is always another count that might. None
    when all are known.
    """
    possible = grid_counts(curve, STEPS)
    expected = dict(zip(possible, expected_losses(sensitivity, curve, possible), strict=True))
    larger = 2 * max(sensitivity.tolerances, default=0.0)
    for loss in sorted(sensitivity.tolerances, reverse=True):
        low, high = _bracket(sensitivity, curve, loss)
        missed = [point for point in curve.points if point.dropped > low and loss < sensitivity.loss(point) <= larger]
        larger = loss
        if (len(missed) >= TRIES and low > curve.gone) or high - low <= RESOLUTION * curve.size:
            continue
        # A measurement that was given up for a smaller loss says too little here.
        known = {point.dropped for point in curve.points if point.share == 1 or sensitivity.loss(point) > loss}
        between = [count for count in possible if low < count < high and count not in known]
        hopeful = [count for count in between if expected[count] <= CAUTION * loss]
        if not hopeful and not _measured(sensitivity, curve):
            hopeful = between[:1]  # a guess alone rules nothing out
        if hopeful and (low == curve.gone or hopeful[-1] - low > RESOLUTION * curve.size):
            # Where the expectation has failed twice, halving what is left is never much worse than following it again.
            return (min(hopeful[-1], between[len(between) // 2]) if len(missed) > 1 else hopeful[-1]), loss
    return None


def expected_losses(sensitivity: Sensitivity, curve: Curve, counts: Sequence[int]) -> NDArray[np.float64]:
    """[counts]: what a group is expected to lose at these counts against the original network; it never falls.

    The common curve times 1 + r, where r over the logarithm of the output error is a Gaussian process with mean 0,
    standard deviation _OWN and length _ALIKE, given what this group was measured to lose (Rasmussen and Williams 2006,
    "Gaussian Processes for Machine Learning", eq. 2.25).
    """
    if not counts:
        return np.zeros(0)
    common = Expectation.of(sensitivity, curve)
    noise = _noise(sensitivity)

    def of(dropped: Iterable[int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        output_errors = [max(output_error_at(curve, count), 1e-9) for count in dropped]
        return np.log(output_errors), np.array(
            [max(common.at(output_error), noise / 2) for output_error in output_errors]
        )

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
    low = sensitivity.prunable_within(curve, loss)
    over = [point.dropped for point in curve.points if point.dropped > low and sensitivity.loss(point) > loss]
    return low, min(over, default=curve.size)


def is_whole(sensitivity: Sensitivity, curve: Curve) -> bool:
    """Whether nothing of a curve is missing that was asked for."""
    measured = {point.dropped for point in curve.points}
    if not measured.issuperset(grid_counts(curve, sensitivity.sparsities)):
        return False
    if not sensitivity.tolerances or not grid_counts(curve, STEPS):
        return True
    return bool(curve.proxy) and next_count(sensitivity, curve) is None


class Measurer(Protocol):
    """Who prunes a group and measures (group_evaluator.py)."""

    def output_error(self, curve: Curve, dropped: int) -> float:
        """How far pruning disturbs the heads' scores. What it computes need not be computed again by `point`."""

    def point(self, curve: Curve, dropped: int, most: float = math.inf) -> Point:
        """A measurement; it may be given up where there is little hope that no more than `most` is lost."""


def analyse(
    sensitivity: Sensitivity, evaluator: Measurer, on_change: Callable[[Sensitivity, Curve], None]
) -> Sensitivity:
    """Measure what is missing of every curve, each group alone: on the grid, or where the losses need it.

    `on_change` hears of every new measurement and may save: what is there is not measured again, and what is measured
    next follows from what is there alone.
    """
    for label in [curve.label for curve in sensitivity.curves]:
        for curve in _growing(sensitivity, label, evaluator):
            sensitivity = sensitivity.with_curve(curve)
            on_change(sensitivity, curve)
    return sensitivity


def _growing(sensitivity: Sensitivity, label: str, evaluator: Measurer) -> Iterator[Curve]:
    """A curve, more of it each time, until it is whole."""
    curve = next(each for each in sensitivity.curves if each.label == label)
    for dropped in grid_counts(curve, sensitivity.sparsities):
        if all(point.dropped != dropped for point in curve.points):
            curve = curve.with_point(evaluator.point(curve, dropped))
            yield curve
    possible = grid_counts(curve, STEPS) if sensitivity.tolerances else ()
    if possible and not curve.proxy:
        first = min(possible, key=lambda count: abs(count - FIRST_PROXY * curve.size))
        curve = _with_proxy(curve, first, evaluator)
        yield curve
    while possible and (following := next_count(sensitivity.with_curve(curve), curve)) is not None:
        dropped, loss = following
        if any(dropped == count for count, _ in curve.proxy):
            curve = curve.with_point(evaluator.point(curve, dropped, loss))
        else:
            curve = _with_proxy(curve, dropped, evaluator)
        yield curve


def _with_proxy(curve: Curve, dropped: int, evaluator: Measurer) -> Curve:
    return replace(curve, proxy=tuple(sorted((*curve.proxy, (dropped, evaluator.output_error(curve, dropped))))))
