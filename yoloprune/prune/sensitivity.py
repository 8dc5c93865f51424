"""How accuracy falls as a group of channels is pruned alone: `sensitivity.json`."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from yoloprune.artefacts import load_json, save_json, typed
from yoloprune.errors import InputError
from yoloprune.options import AnalysisOptions
from yoloprune.prune.granularity import Granularity

TOLERANCES: Final = (0.005, 0.01, 0.02, 0.05)
"""Losses of accuracy for which curves are measured unless the user names others."""
ROUNDING: Final = 1e-9
"""A loss that exceeds what is allowed by no more than this has met it."""
RESOLUTION: Final = 0.05
"""Of sparsity: how close measurements lie where a decision hangs on them."""


@dataclass(frozen=True)
class Setup:
    """What a measurement depends on; a curve is of use only for the same."""

    cfg: str
    """SHA-256 of the .cfg."""
    weights: str
    """SHA-256 of the weights that are pruned."""
    data: str
    """SHA-256 of the measured pictures' file names and their truth (`Measure.digest`)."""
    dialect: str
    letterbox: bool
    metric: str
    images: int
    """Measured images."""
    calibration: str = ""
    """SHA-256 of the calibration images' file names."""


@dataclass(frozen=True)
class Point:
    """One measurement."""

    dropped: int
    """Units of the group that are gone, in all."""
    accuracy: float
    """Where only a share of the pictures was measured, the others count as found like before pruning."""
    interval: tuple[float, float] | None = None
    """90 % of bootstrap resamples of the pictures lose between these, against the original."""
    share: float = 1.0
    """Of the pictures that it was measured on: under 1 where the first ones left little hope, so it never holds."""

    @property
    def width(self) -> float | None:
        """Of the interval; None without one."""
        return None if self.interval is None else self.interval[1] - self.interval[0]


@dataclass(frozen=True)
class Curve:
    """One group's sensitivity curve: its measurements, by growing `dropped`."""

    producers: tuple[int, ...]
    size: int
    """Units of the group."""
    order: tuple[int, ...]
    """Positions in the group in the order they go; those gone before come first. Empty where which units go depends on
    how many."""
    gone: int
    """How many were gone before."""
    points: tuple[Point, ...] = ()
    proxy: tuple[tuple[int, float], ...] = ()
    """For some counts of dropped units, the output error of what the heads say (search.py)."""
    counts: tuple[int, ...] = ()
    """How many units may be dropped, where not any number may."""

    @property
    def label(self) -> str:
        """As Group.label."""
        return "+".join(map(str, self.producers))

    def with_point(self, point: Point) -> Self:
        """One more, or in the place of one that was given up."""
        others = (each for each in self.points if each.dropped != point.dropped)
        return replace(self, points=tuple(sorted((*others, point), key=lambda each: each.dropped)))


@dataclass(frozen=True)
class Sensitivity:
    """All curves of a network."""

    setup: Setup
    options: AnalysisOptions
    """What was asked for, criterion and compensation named, of all that `ana` was called for so far."""
    baseline: float
    """Accuracy of the original network, from which losses count."""
    start: float
    """Accuracy of the weights that are pruned here."""
    curves: tuple[Curve, ...]

    @property
    def tolerances(self) -> tuple[float, ...]:
        """Losses for which it is to be known how far each group is prunable; empty with a grid."""
        return self.options.tolerances or ()

    @property
    def sparsities(self) -> tuple[float, ...]:
        """The grid on which every curve is to be measured; empty where measurements follow the tolerances."""
        return self.options.sparsities or ()

    @property
    def orders(self) -> dict[str, tuple[int, ...]]:
        """For each group by label, positions of its units in the order they go."""
        return {curve.label: curve.order for curve in self.curves}

    def loss(self, point: Point) -> float:
        """Accuracy lost against the original network; below 0 for a gain."""
        return self.baseline - point.accuracy

    def prunable_within(self, curve: Curve, loss: float) -> int:
        """The largest count of dropped units that was measured to lose at most `loss`, all the way by the rising fit.

        On all pictures, that is: what others left out might lose, nobody knows.
        A single lucky measurement among bad ones is not followed, a single bad one among good ones does not stop.
        """
        known = [(curve.gone, self.baseline - self.start, 1.0)]
        known += [(point.dropped, self.loss(point), point.share) for point in curve.points]
        counts, losses, weights = (np.array(each, np.float64) for each in zip(*known, strict=True))
        good = (np.maximum(losses, monotone(losses, weights)) <= loss + ROUNDING) & (weights == 1)
        return int(counts[good].max(initial=curve.gone))

    def margin(self, curve: Curve, loss: float) -> float | None:
        """Half the width of the interval of what a group loses where it is prunable at `loss`; None where it isn't."""
        held = self.prunable_within(curve, loss)
        widths = (each.width for each in curve.points if each.dropped == held)
        return next((width / 2 for width in widths if width is not None), None)

    def asked_for(self, options: AnalysisOptions, also: Sequence[float] = ()) -> Self:
        """The same measurements, with more to measure; TOLERANCES where nothing else was ever asked for.

        also: tolerances that matter too, unless the user wants a grid.
        """
        wanted = {*self.tolerances, *(options.tolerances or ())}
        grid = {*self.sparsities, *(options.sparsities or ())}
        wanted = wanted if wanted or grid else set(TOLERANCES)
        tolerances = tuple(sorted(wanted.union(also) if wanted else wanted))
        return replace(self, options=replace(self.options, tolerances=tolerances, sparsities=tuple(sorted(grid))))

    def with_curve(self, curve: Curve) -> Self:
        """The curve of its label replaced."""
        return replace(self, curves=tuple(curve if old.label == curve.label else old for old in self.curves))

    def save(self, path: Path) -> None:
        """Write `sensitivity.json`."""
        curves = [{**vars(curve), "points": [vars(point) for point in curve.points]} for curve in self.curves]
        about = {"setup": vars(self.setup), "options": vars(self.options)}
        save_json(path, "sensitivity", {**vars(self), **about, "curves": curves})

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read `sensitivity.json`. InputError if it is not what `save` writes."""
        known = typed(cls, load_json(path, "sensitivity"), path)
        _expect(path, "tolerances", known.tolerances, all(each > 0 for each in known.tolerances), "numbers over 0")
        shares = all(0 < share < 1 for share in known.sparsities)
        _expect(path, "sparsities", known.sparsities, shares, "numbers between 0 and 1")
        for at, curve in enumerate(known.curves):
            _check(path, f"curves[{at}]", curve)
        return known

    def check_groups(self, units: Granularity, path: Path) -> None:
        """InputError unless each curve is of a group of its own, with what is gone of it so far first in its order."""
        groups = {group.label: group for group in units.groups}
        known = f"groups among {', '.join(groups)}, each once"
        for at, curve in enumerate(self.curves):
            _expect(path, f"curves[{at}].producers", curve.producers, curve.label in groups, known)
            group = groups.pop(curve.label)
            gone, counts = group.size - units.left(group), tuple(group.counts)
            _expect(path, f"curves[{at}].size", curve.size, curve.size == group.size, str(group.size))
            _expect(path, f"curves[{at}].gone", curve.gone, curve.gone == gone, str(gone))
            _expect(path, f"curves[{at}].counts", curve.counts, curve.counts == counts, str(counts))
            fits, expected = units.fits(group, curve.order), "one of this group, what is gone of it first"
            _expect(path, f"curves[{at}].order", curve.order, fits, expected)


def _expect(path: Path, key: str, found: object, right: bool, expected: str) -> None:
    if not right:
        raise InputError(f"{key}: expected {expected}, found {reprlib.repr(found)}", file=path)


def _check(path: Path, key: str, curve: Curve) -> None:
    """InputError unless a curve is one that can be measured on, whatever its group is."""
    order, most = curve.order, curve.size - 1
    _expect(path, f"{key}.order", order, sorted(order) == list(range(len(order))), "positions from 0 on, each once")
    _expect(path, f"{key}.size", curve.size, curve.size > 0, "a number over 0")
    _expect(path, f"{key}.size", curve.size, not order or curve.size == len(order), f"{len(order)}, as in its order")
    _expect(path, f"{key}.gone", curve.gone, 0 <= curve.gone <= most, f"0..{most}")
    measured = [point.dropped for point in curve.points]
    looked_at = [count for count, _ in curve.proxy]
    for name, counts in (("points", measured), ("proxy", looked_at)):
        rising = counts == sorted(set(counts)) and all(curve.gone < count <= most for count in counts)
        _expect(path, f"{key}.{name}", counts, rising, f"rising counts within {curve.gone + 1}..{most}")
    for at, point in enumerate(curve.points):
        where, (low, high) = f"{key}.points[{at}]", point.interval or (0.0, 0.0)
        _expect(path, f"{where}.share", point.share, 0 < point.share <= 1, "a share over 0, 1 at the most")
        _expect(path, f"{where}.interval", point.interval, low <= high, "the lower loss first")
    output_errors = [output_error for _, output_error in curve.proxy]
    _expect(path, f"{key}.proxy", output_errors, min(output_errors, default=0) >= 0, "output_errors of 0 or more")


def grid_counts(curve: Curve, sparsities: Sequence[float]) -> tuple[int, ...]:
    """How many units are gone at these sparsities: more than before, and at least one stays.

    Where only some counts may be, all of those.
    """
    counts = {round(sparsity * curve.size) for sparsity in sparsities}
    if counts and curve.counts:
        counts = set(curve.counts)
    return tuple(sorted(count for count in counts if curve.gone < count < curve.size))


def monotone(values: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """The rising sequence that is closest to `values` [P] in weighted squares.

    Pool adjacent violators (Ayer et al. 1955, "An empirical distribution function for sampling").
    """
    blocks: list[tuple[float, float, int]] = []  # mean, weight, length
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        block = (value, weight, 1)
        while blocks and blocks[-1][0] >= block[0]:
            mean, before, length = blocks.pop()
            total = before + block[1]
            block = ((mean * before + block[0] * block[1]) / total, total, length + block[2])
        blocks.append(block)
    return np.repeat([mean for mean, _, _ in blocks], [length for _, _, length in blocks])
