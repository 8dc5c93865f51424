"""How accuracy falls as a group of channels is pruned alone: `sensitivity.json`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from yoloprune.artefacts import load_json, save_json
from yoloprune.errors import InputError
from yoloprune.prune.channels import Channels, KeepAtoms

GRID = tuple(n / 10 for n in range(1, 10))
"""The classic nine sparsities."""


@dataclass(frozen=True)
class Setup:
    """What a measurement depends on; a curve is of use only for the same."""

    cfg: str
    """SHA-256 of the .cfg."""
    weights: str
    """SHA-256 of the weights that are cut."""
    data: str
    """SHA-256 of the measured pictures' file names and their truth (`Measure.digest`)."""
    dialect: str
    letterbox: bool
    metric: str
    images: int
    """Measured images."""
    criterion: str
    compensation: str
    """How consumers were refitted, or "none"."""


@dataclass(frozen=True)
class Point:
    """One measurement."""

    dropped: int
    """Atoms of the group that are gone, in all."""
    accuracy: float


@dataclass(frozen=True)
class Curve:
    """One group's measurements, by growing `dropped`."""

    producers: tuple[int, ...]
    atoms: int
    order: tuple[int, ...]
    """Positions in the group in the order they go; those gone before come first."""
    gone: int
    """How many were gone before."""
    points: tuple[Point, ...] = ()

    @property
    def label(self) -> str:
        """As Group.label."""
        return "+".join(map(str, self.producers))

    def with_point(self, point: Point) -> Self:
        """One more."""
        points = sorted((*self.points, point), key=lambda each: each.dropped)
        return replace(self, points=tuple(points))

    def keep(self, channels: Channels, keep: KeepAtoms, dropped: int) -> KeepAtoms:
        """`keep` with the first `dropped` atoms of the order gone."""
        group = next(group for group in channels.groups if group.producers == self.producers)
        result = keep.copy()
        result[group.atoms[list(self.order[:dropped])]] = False
        return result


@dataclass(frozen=True)
class Sensitivity:
    """All curves of a network."""

    setup: Setup
    baseline: float
    """Accuracy of the original network, from which losses count."""
    start: float
    """Accuracy of the weights that are cut here."""
    sparsities: tuple[float, ...]
    """Where each curve is to be measured; it is whole when all of these are."""
    curves: tuple[Curve, ...]

    def loss(self, point: Point) -> float:
        """Accuracy lost against the original network; below 0 for a gain."""
        return self.baseline - point.accuracy

    def with_curve(self, curve: Curve) -> Self:
        """The curve of its label replaced."""
        return replace(self, curves=tuple(curve if old.label == curve.label else old for old in self.curves))

    def save(self, path: Path) -> None:
        """Write `sensitivity.json`."""
        save_json(path, "sensitivity", asdict(self))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read `sensitivity.json`. InputError if it is not what `save` writes."""
        payload = load_json(path, "sensitivity")
        try:
            curves = tuple(_curve(each) for each in payload["curves"])
            setup = Setup(**payload["setup"])
            sparsities = tuple(map(float, payload["sparsities"]))
            return cls(setup, float(payload["baseline"]), float(payload["start"]), sparsities, curves)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"expected what ana writes, found a file that lacks or garbles {error}", file=path
            ) from error


def _curve(payload: Mapping[str, Any]) -> Curve:
    points = tuple(Point(int(each["dropped"]), float(each["accuracy"])) for each in payload["points"])
    numbers = {key: tuple(map(int, payload[key])) for key in ("producers", "order")}
    return Curve(**numbers, atoms=int(payload["atoms"]), gone=int(payload["gone"]), points=points)


def grid_counts(curve: Curve, sparsities: Sequence[float]) -> tuple[int, ...]:
    """How many atoms are gone at these sparsities: more than before, and at least one stays."""
    counts = {round(sparsity * curve.atoms) for sparsity in sparsities}
    return tuple(sorted(count for count in counts if curve.gone < count < curve.atoms))


def analyse(
    sensitivity: Sensitivity,
    accuracy_of: Callable[[Curve, int], float],
    on_point: Callable[[Sensitivity, Curve, Point], None],
) -> Sensitivity:
    """Measure what is missing of every curve, each group alone.

    `accuracy_of(curve, dropped)` cuts and measures; `on_point` hears of every new point and may save.
    """
    for label in [curve.label for curve in sensitivity.curves]:
        curve = next(each for each in sensitivity.curves if each.label == label)
        known = {point.dropped for point in curve.points}
        for dropped in grid_counts(curve, sensitivity.sparsities):
            if dropped not in known:
                point = Point(dropped, accuracy_of(curve, dropped))
                curve = curve.with_point(point)
                sensitivity = sensitivity.with_curve(curve)
                on_point(sensitivity, curve, point)
    return sensitivity
