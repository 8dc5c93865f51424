"""The pictures of which two networks say different things."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np

from yoloprune.detect.confusion import paired
from yoloprune.detect.details import Details, PictureDetails
from yoloprune.detect.image import read_pixels, thumbnail

Kind = Literal["right", "wrong", "missed"]
MOST: Final = 6
"""Pictures that are shown."""
SIDE: Final = 480
"""Pixels of the longer side of a thumbnail."""


@dataclass(frozen=True)
class Mark:
    """A find, or an object that was not found."""

    kind: Kind
    """`wrong`: of no object, or of one of another class."""
    name: str
    """Of the class."""
    probability: float | None
    """None of what was missed."""
    box: tuple[float, float, float, float]
    """Centre x, centre y, width, height as fractions of the picture; all 0 of a classifier's answer."""


@dataclass(frozen=True)
class Picture:
    """One picture, and what two networks say of it."""

    name: str
    size: tuple[int, int]
    """Width and height of the file in pixels."""
    jpeg: bytes
    """A thumbnail."""
    before: tuple[Mark, ...]
    after: tuple[Mark, ...]


def differing(before: Details, after: Details, paths: Sequence[Path]) -> tuple[Picture, ...]:
    """The pictures that differ most, at most `MOST`, the first ones of those that differ as much.

    paths: of the measured pictures. An object that one network finds alone counts 1, a false find more or less 1/2.
    InputError for a picture that can't be read.
    """
    names = [each.name for each in before.classes]
    told = []
    for number, (one, other) in enumerate(zip(before.pictures, after.pictures, strict=False)):
        if number < len(paths) and paths[number].name == one.name == other.name:
            marks = (_marks(one, names), _marks(other, names))
            told.append((_distance(*marks), number, marks))
    most = sorted((each for each in told if each[0] > 0), key=lambda each: (-each[0], each[1]))[:MOST]
    return tuple(_picture(paths[number], *marks) for _, number, marks in most)


def _picture(path: Path, before: tuple[Mark, ...], after: tuple[Mark, ...]) -> Picture:
    pixels = read_pixels(path)
    return Picture(path.name, (pixels.shape[1], pixels.shape[0]), thumbnail(pixels, SIDE), before, after)


def _marks(picture: PictureDetails, names: Sequence[str]) -> tuple[Mark, ...]:
    """What is right, then what is wrong, then what is missed."""
    objects, found = (np.array(rows, np.float32) for rows in (picture.objects, picture.found))
    if found.shape[-1] == 2:  # of a classifier
        kind, score = int(found[0, 0]), float(found[0, 1])
        return (Mark("right" if kind == objects[0, 0] else "wrong", names[kind], score, (0.0,) * 4),)
    objects, found = objects.reshape(-1, 5), found.reshape(-1, 6)
    rows, columns = paired(found[:, 2:], objects[:, 1:])
    same = found[rows, 0] == objects[columns, 0]
    right, seen = set(rows[same].tolist()), set(columns[same].tolist())
    marks = [
        Mark("right" if number in right else "wrong", names[int(row[0])], float(row[1]), tuple(row[2:].tolist()))
        for number, row in enumerate(found)
    ]
    marks += [
        Mark("missed", names[int(row[0])], None, tuple(row[1:].tolist()))
        for number, row in enumerate(objects)
        if number not in seen
    ]
    return tuple(marks)


def _distance(before: Sequence[Mark], after: Sequence[Mark]) -> float:
    """How much two networks differ on a picture; of classifiers' answers that are the same, not at all."""
    if _answered(before) and _answered(after):
        (one,), (other,) = before, after
        assert one.probability is not None
        assert other.probability is not None
        return 0.0 if one.name == other.name else 1 + abs(one.probability - other.probability)
    missed = [{(mark.name, mark.box) for mark in marks if mark.kind == "missed"} for marks in (before, after)]
    wrong = [sum(mark.kind == "wrong" for mark in marks) for marks in (before, after)]
    return len(missed[0] ^ missed[1]) + abs(wrong[0] - wrong[1]) / 2


def _answered(marks: Sequence[Mark]) -> bool:
    """Whether it is a classifier's answer."""
    return len(marks) == 1 and not any(marks[0].box)
