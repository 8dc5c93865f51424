"""A measurement in detail, for people: each class, what is taken for what, and what is found in single pictures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import torch
from numpy.typing import NDArray

from yoloprune.artefacts import load_json, save_json, typed
from yoloprune.detect.outcome import Outcome, interval, resamples

Rows = tuple[tuple[float, ...], ...]
PICTURES: Final = 500
"""Pictures, the first of the list, of which is kept what was found."""
RECALLS: Final = 101
"""Recalls 0, 0.01 .. 1 at which precision is kept."""
_SEED: Final = 0
"""Of the resamples: the same for all networks, so that what is resampled can be subtracted."""
_DIGITS: Final = 5


@dataclass(frozen=True)
class ClassDetails:
    """One class."""

    name: str
    objects: int
    """Of a classifier, pictures."""
    accuracy: float | None
    """Average precision, or the share of pictures that is right; None where there are no objects."""
    precision: tuple[float, ...] = ()
    """Of detectors, the best precision at each of `RECALLS` or beyond; 0 where that many objects are never found."""


@dataclass(frozen=True)
class PictureDetails:
    """One picture."""

    name: str
    """Of its file."""
    objects: Rows
    """Detectors: class, centre x, y, width, height as fractions. Classifiers: one row, the class; -1 unknown."""
    found: Rows
    """Detectors: class, probability, centre x, y, width, height, of all that is shown. Classifiers: one row, the most
    probable class and its score."""


@dataclass(frozen=True)
class Details:
    """A network's measurement on I images of K classes."""

    metric: str
    """As in `Figures`."""
    accuracy: float
    images: int
    resampled: tuple[float, ...]
    """Accuracy on each of the `resamples`."""
    classes: tuple[ClassDetails, ...]
    confusion: tuple[tuple[int, int, int], ...]
    """True class, class that was found, how often; only where that is over 0. K is none: an object that was not found,
    or a find that is no object."""
    pictures: tuple[PictureDetails, ...]
    """The first `PICTURES`."""
    data: str
    """SHA-256 of what was measured on (`Measure.digest`)."""

    @property
    def interval(self) -> tuple[float, float]:
        """Of the accuracy, 90 % of the resamples."""
        return interval(np.array(self.resampled))

    def loss_interval(self, other: Self) -> tuple[float, float]:
        """Of what `other` loses against this one, on the same resamples of the same images."""
        return interval(np.array(self.resampled) - np.array(other.resampled))

    def save(self, path: Path) -> None:
        """Write it as JSON on one line."""
        save_json(path, "details", asdict(self), indent=None)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read it. InputError if it is not what `save` writes."""
        return typed(cls, load_json(path, "details", "yoloprune report measures anew without it"), path)


def resampled(outcome: Outcome, images: int) -> tuple[float, ...]:
    """[R]: accuracy on resamples that are the same for all networks."""
    return rounded(outcome.resampled(resamples(images, _SEED)).tolist())


def rounded(values: Iterable[float]) -> tuple[float, ...]:
    """What is worth keeping of them; what is no finite number is 0."""
    return tuple(round(value, _DIGITS) if np.isfinite(value) else 0.0 for value in values)


def by_picture(
    paths: Sequence[Path], objects: Sequence[NDArray[Any]], found: torch.Tensor, image: torch.Tensor
) -> tuple[PictureDetails, ...]:
    """The first `PICTURES`. objects: rows of each picture; found [M, N]: rows, of the pictures `image` [M]."""
    rows: list[list[tuple[float, ...]]] = [[] for _ in paths[:PICTURES]]
    for number, row in zip(image.tolist(), found.tolist(), strict=True):
        if number < len(rows):
            rows[number].append(rounded(row))
    return tuple(
        PictureDetails(path.name, tuple(rounded(row) for row in true.tolist()), tuple(own))
        for path, true, own in zip(paths[:PICTURES], objects[:PICTURES], rows, strict=True)
    )
