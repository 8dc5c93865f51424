"""Mean average precision by the rules of AlexeyAB's `detector map` (detector.c: validate_detector_map).

A detection belongs to the object of its own class and image that it overlaps most, if by more than the threshold. Over
all images in order of probability, the first detection of an object is a true positive, every other detection a false
one. The network's detections come with probabilities over `MAP_THRESH`, after non-maximum suppression.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from yoloprune.darknet.data import Labels
from yoloprune.detect.boxes import Detections, iou

MAP_THRESH: Final = 0.005
"""Probability above which `detector map` looks at a detection."""
DISPLAY_THRESH: Final = 0.25
"""Probability above which precision, recall, F1 and average IoU are counted."""
Points = Literal[0, 11, 101]
"""`-points`: 0 the area under the precision envelope, else the mean of the best precision at so many recalls."""
Metric = Literal["map50", "map75", "map50-95"]

_THRESHOLDS: Final = tuple(percent / 100 for percent in range(50, 100, 5))

_Floats = npt.NDArray[np.float64]
_Indices = npt.NDArray[np.int64]
_Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class MapResult:
    """Accuracy over a set of images; everything is a fraction in 0..1. `present`: classes that have an object."""

    images: int
    ap: tuple[float | None, ...]
    """Average precision at IoU 0.5 of each class; None where no image has an object of it."""
    map50: float
    """Mean over all classes, those without objects counting 0: what `detector map` prints."""
    map50_present: float
    """Mean over the present classes."""
    map75: float
    map75_present: float
    map50_95: float
    """Mean over IoU 0.5, 0.55 .. 0.95."""
    map50_95_present: float
    precision: float
    """Precision, recall, F1 and IoU at IoU 0.5 over all classes, probability over `DISPLAY_THRESH`."""
    recall: float
    f1: float
    average_iou: float
    """Sum of the true positives' IoU over all detections counted, Darknet's average."""
    true_positives: int
    false_positives: int
    objects: int

    def accuracy(self, metric: Metric) -> float:
        """The figure that steers pruning: the mean over the present classes."""
        return {"map50": self.map50_present, "map75": self.map75_present, "map50-95": self.map50_95_present}[metric]


@dataclass(frozen=True)
class _Matches:
    """D detections of all images, the most probable first."""

    probs: npt.NDArray[np.float32]
    classes: _Indices
    truth: _Indices
    """Number, over all images, of the object of the same class that each overlaps most; -1 where there is none."""
    overlap: npt.NDArray[np.float32]
    """The IoU with it, 0 where there is none."""
    difficult: npt.NDArray[np.float32]
    """The greatest IoU with a difficult object of the same class."""


def evaluate(
    detections: Sequence[Detections],
    truths: Sequence[Labels],
    classes: int,
    *,
    difficult: Sequence[Labels] | None = None,
    points: Points = 0,
) -> MapResult:
    """Accuracy of the detections of each image against its objects, and its difficult ones if the set has such."""
    matches = _match(detections, truths, difficult or [np.zeros((0, 5), np.float32)] * len(truths))
    per_class = np.bincount(np.concatenate([truth[:, 0] for truth in truths]).astype(np.int64), minlength=classes)
    present = per_class > 0
    aps = np.stack([_average_precisions(matches, thresh, per_class, points) for thresh in _THRESHOLDS])

    def means(which: _Floats) -> tuple[float, float]:
        return float(which.mean()), float(which[..., present].mean()) if present.any() else 0.0

    map50, map50_present = means(aps[0])
    map75, map75_present = means(aps[_THRESHOLDS.index(0.75)])
    map50_95, map50_95_present = means(aps)

    # Darknet counts these per image, in the order in which its sort of the last class left the boxes, and an object
    # counts as found when any box before claimed it. That order means nothing; in descending probability the first
    # claim is the best one, and the same that makes a true positive above. Its false positives include what overlaps
    # only a difficult object, which is left out of the precision curve; we count as it does.
    shown = matches.probs > np.float32(DISPLAY_THRESH)
    true = _true_positives(matches, _THRESHOLDS[0]) & shown
    found, counted, objects = int(true.sum()), int(shown.sum()), int(per_class.sum())
    precision, recall = _ratio(found, counted), _ratio(found, objects)
    return MapResult(
        images=len(truths),
        ap=tuple(float(ap) if here else None for ap, here in zip(aps[0], present, strict=True)),
        map50=map50,
        map50_present=map50_present,
        map75=map75,
        map75_present=map75_present,
        map50_95=map50_95,
        map50_95_present=map50_95_present,
        precision=precision,
        recall=recall,
        f1=_ratio(2 * precision * recall, precision + recall),
        average_iou=_ratio(float(matches.overlap[true].sum(dtype=np.float64)), counted),
        true_positives=found,
        false_positives=counted - found,
        objects=objects,
    )


def _match(detections: Sequence[Detections], truths: Sequence[Labels], difficult: Sequence[Labels]) -> _Matches:
    """Every detection with the object it overlaps most. The first is taken of objects that it overlaps equally."""
    truth, overlap, hard = [], [], []
    before = 0
    for found, objects, hard_objects in zip(detections, truths, difficult, strict=True):
        best, value = _best(found, objects)
        truth.append(np.where(value > 0, best + before, -1))
        overlap.append(value)
        hard.append(_best(found, hard_objects)[1])
        before += len(objects)
    probs = np.concatenate([found.probs for found in detections])
    order = np.argsort(-probs, kind="stable")
    return _Matches(
        probs=probs[order],
        classes=np.concatenate([found.classes for found in detections])[order],
        truth=np.concatenate(truth)[order],
        overlap=np.concatenate(overlap)[order],
        difficult=np.concatenate(hard)[order],
    )


def _best(found: Detections, objects: Labels) -> tuple[_Indices, npt.NDArray[np.float32]]:
    """For each of M detections the object of its class with the highest IoU, and that IoU; 0 and 0 if there is none."""
    count = len(found.probs)
    if not count or not len(objects):
        return np.zeros(count, np.int64), np.zeros(count, np.float32)
    overlap = iou(found.boxes[:, None], objects[None, :, 1:])
    overlap[found.classes[:, None] != objects[None, :, 0]] = 0
    best = overlap.argmax(1)
    return best, overlap[np.arange(count), best]


def _true_positives(matches: _Matches, thresh: float) -> _Flags:
    """[D]: whether a detection is the first of its object."""
    claims = np.flatnonzero(matches.overlap > np.float32(thresh))
    _, first = np.unique(matches.truth[claims], return_index=True)
    true = np.zeros(len(matches.probs), np.bool_)
    true[claims[first]] = True
    return true


def _average_precisions(matches: _Matches, thresh: float, per_class: _Indices, points: Points) -> _Floats:
    """[K]: average precision of each class; 0 where it has no objects or no detections."""
    true = _true_positives(matches, thresh)
    # What overlaps no object but a difficult one counts neither way.
    counts = (matches.overlap > np.float32(thresh)) | ~(matches.difficult > np.float32(thresh))
    ranks = np.flatnonzero(counts)
    ranks = ranks[np.argsort(matches.classes[ranks], kind="stable")]
    classes = len(per_class)
    ends = np.searchsorted(matches.classes[ranks], np.arange(1, classes))
    result = np.zeros(classes)
    for number, some in enumerate(np.split(ranks, ends)):
        if some.size and per_class[number]:
            hits = np.cumsum(true[some])
            result[number] = _average_precision(hits / np.arange(1, some.size + 1), hits / per_class[number], points)
    return result


def _average_precision(precision: _Floats, recall: _Floats, points: Points) -> float:
    """Of one class, from its precision and recall after each detection. At least one detection."""
    # The best precision at this or a higher recall.
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    if points == 0:
        return float(np.diff(recall, prepend=0.0) @ envelope)
    reached = np.searchsorted(recall, np.arange(points) / (points - 1))
    return float(np.append(envelope, 0.0)[reached].sum() / points)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
