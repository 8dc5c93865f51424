"""Mean average precision by the rules of AlexeyAB's `detector map` (detector.c: validate_detector_map).

A detection belongs to the object of its own class and image that it overlaps most, if by more than the threshold. Over
all images in order of probability, the first detection of an object is a true positive, every other detection a false
one. The network's detections come with probabilities over `MAP_THRESH`, after non-maximum suppression.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import torch

from yoloprune.darknet.data import Labels
from yoloprune.detect.boxes import Detections, iou
from yoloprune.detect.outcome import MISSED

MAP_THRESH: Final = 0.005
"""Probability above which `detector map` looks at a detection."""
DISPLAY_THRESH: Final = 0.25
"""Probability above which precision, recall, F1 and average IoU are counted."""
Points = Literal[0, 11, 101]
"""`-points`: 0 the area under the precision envelope, else the mean of the best precision at so many recalls."""
Metric = Literal["map50", "map75", "map50-95"]

_THRESHOLDS: Final = tuple(percent / 100 for percent in range(50, 100, 5))
_OF_METRIC: Final[Mapping[Metric, tuple[float, ...]]] = {"map50": (0.5,), "map75": (0.75,), "map50-95": _THRESHOLDS}

_AT_ONCE: Final = 1 << 22
"""True detections times resamples, or images, that are looked at together: memory stays small."""

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


@dataclass(frozen=True)
class Matches:
    """D detections of I images, the most probable first, and what each found."""

    image: _Indices
    """[D]: number of the image."""
    probs: npt.NDArray[np.float32]
    classes: _Indices
    truth: _Indices
    """Number, over all images, of the object of the same class that each overlaps most; -1 where there is none."""
    overlap: npt.NDArray[np.float32]
    """The IoU with it, 0 where there is none."""
    difficult: npt.NDArray[np.float32]
    """The greatest IoU with a difficult object of the same class."""
    objects: _Indices
    """[I, K]: objects of each image by class."""


def match(
    detections: Sequence[Detections],
    truths: Sequence[Labels],
    classes: int,
    difficult: Sequence[Labels] | None = None,
) -> Matches:
    """Every detection with the object it overlaps most. The first is taken of objects that it overlaps equally."""
    counts = [len(found.probs) for found in detections]
    image = np.repeat(np.arange(len(detections)), counts)
    boxes = np.concatenate([found.boxes for found in detections])
    kinds = np.concatenate([found.classes for found in detections])
    probs = np.concatenate([found.probs for found in detections])
    truth, overlap = _best(image * classes + kinds, boxes, truths, classes)
    hard = _best(image * classes + kinds, boxes, difficult, classes)[1] if difficult else np.zeros_like(probs)
    objects = np.stack([np.bincount(truth[:, 0].astype(np.int64), minlength=classes) for truth in truths])
    order = np.argsort(-probs, kind="stable")
    return Matches(
        image=image[order],
        probs=probs[order],
        classes=kinds[order],
        truth=truth[order],
        overlap=overlap[order],
        difficult=hard[order],
        objects=objects,
    )


def evaluate(
    detections: Sequence[Detections],
    truths: Sequence[Labels],
    classes: int,
    *,
    difficult: Sequence[Labels] | None = None,
    points: Points = 0,
) -> MapResult:
    """Accuracy of the detections of each image against its objects, and its difficult ones if the set has such."""
    return summarize(match(detections, truths, classes, difficult), points)


def summarize(matches: Matches, points: Points = 0) -> MapResult:
    """All figures."""
    per_class = matches.objects.sum(0)
    present = per_class > 0
    aps = np.stack([_average_precisions(matches, thresh, points) for thresh in _THRESHOLDS])

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
        images=len(matches.objects),
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


@dataclass(frozen=True)
class DetectionOutcome:
    """What steers pruning, of a detector: the mean over the classes that are present (an `Outcome`)."""

    matches: Matches
    metric: Metric
    points: Points = 0

    @property
    def accuracy(self) -> float:
        """On every image once."""
        present = self.matches.objects.sum(0) > 0
        if not present.any():
            return 0.0
        aps = [_average_precisions(self.matches, thresh, self.points)[present] for thresh in _OF_METRIC[self.metric]]
        return float(np.mean(aps))

    @property
    def stakes(self) -> _Floats:
        """[I]: of the area under the curves what each image's true detections add, and `MISSED` of what others could.

        At the least IoU that the metric asks for.
        """
        objects = self.matches.objects.sum(0)
        present = max(int((objects > 0).sum()), 1)
        found = np.zeros(len(self.matches.objects))
        for number, (image, true) in _by_class(self.matches, _OF_METRIC[self.metric][0]).items():
            precision = np.cumsum(true) / np.arange(1, len(true) + 1)
            np.add.at(found, image[true], _envelope(precision)[true] / objects[number])
        possible = (self.matches.objects / np.maximum(objects, 1)).sum(1)
        stakes: _Floats = (found + MISSED * (possible - found)) / present
        return stakes

    def resampled(self, counts: npt.NDArray[np.float32]) -> _Floats:
        """[R]: on R sets in which image i counts `counts[r, i]` times; the area under the curve, whatever `points`.

        All that a resample changes is how many detections stand before each object that is found.
        """
        there = counts @ self.matches.objects.astype(np.float32)  # [R, K]
        columns = np.ascontiguousarray(counts.T)
        present = np.maximum((there > 0).sum(1), 1)
        thresholds = _OF_METRIC[self.metric]
        total = np.zeros(len(counts))
        for thresh in thresholds:
            for number, (image, true) in _by_class(self.matches, thresh).items():
                total += _resampled_precision(image, true, columns, there[:, number])
        mean: _Floats = total / (present * len(thresholds))
        return mean


def _best(
    segment: _Indices, boxes: npt.NDArray[np.float32], truths: Sequence[Labels], classes: int
) -> tuple[_Indices, npt.NDArray[np.float32]]:
    """For each of D detections the object of its image and class (`segment`) with the highest IoU, and that IoU.

    -1 and 0 if it overlaps none.
    """
    best, value = np.full(len(segment), -1), np.zeros(len(segment), np.float32)
    owner = np.repeat(np.arange(len(truths)), [len(truth) for truth in truths])
    if not owner.size:
        return best, value
    objects = np.concatenate(truths)
    key = owner * classes + objects[:, 0].astype(np.int64)
    order = np.argsort(key, kind="stable")
    first, last = (np.searchsorted(key[order], segment, side) for side in ("left", "right"))
    rivals = last - first
    with_rivals = np.flatnonzero(rivals)
    if not with_rivals.size:
        return best, value
    ends = np.cumsum(rivals[with_rivals])
    starts = ends - rivals[with_rivals]
    pair_of = np.repeat(with_rivals, rivals[with_rivals])
    within = np.arange(ends[-1]) - np.repeat(starts, rivals[with_rivals])
    other = order[first[pair_of] + within]
    overlap = iou(*map(torch.from_numpy, (boxes[pair_of], objects[other, 1:]))).numpy()
    most = np.maximum.reduceat(overlap, starts)
    is_most = np.flatnonzero(overlap == np.repeat(most, rivals[with_rivals]))
    _, chosen = np.unique(pair_of[is_most], return_index=True)
    value[with_rivals] = most
    best[with_rivals] = np.where(most > 0, other[is_most[chosen]], -1)
    return best, value


def _true_positives(matches: Matches, thresh: float) -> _Flags:
    """[D]: whether a detection is the first of its object."""
    claims = np.flatnonzero(matches.overlap > np.float32(thresh))
    _, first = np.unique(matches.truth[claims], return_index=True)
    true = np.zeros(len(matches.probs), np.bool_)
    true[claims[first]] = True
    return true


def _by_class(matches: Matches, thresh: float) -> dict[int, tuple[_Indices, _Flags]]:
    """For each class that is present: image and whether true, of its detections that count, the most probable first."""
    true = _true_positives(matches, thresh)
    # What overlaps no object but a difficult one counts neither way.
    counts = (matches.overlap > np.float32(thresh)) | ~(matches.difficult > np.float32(thresh))
    ranks = np.flatnonzero(counts)
    ranks = ranks[np.argsort(matches.classes[ranks], kind="stable")]
    ends = np.searchsorted(matches.classes[ranks], np.arange(1, matches.objects.shape[1]))
    present = matches.objects.sum(0) > 0
    parts = enumerate(np.split(ranks, ends))
    return {number: (matches.image[some], true[some]) for number, some in parts if some.size and present[number]}


def _average_precisions(matches: Matches, thresh: float, points: Points) -> _Floats:
    """[K]: average precision of each class; 0 where it has no objects or no detections."""
    objects = matches.objects.sum(0)
    result = np.zeros(len(objects))
    for number, (_, true) in _by_class(matches, thresh).items():
        hits = np.cumsum(true)
        result[number] = _average_precision(hits / np.arange(1, len(true) + 1), hits / objects[number], points)
    return result


def _resampled_precision(
    image: _Indices, true: _Flags, columns: npt.NDArray[np.float32], objects: npt.NDArray[np.float32]
) -> _Floats:
    """[R]: area under one class's curve; image and true [D] by descending probability, columns [I, R], objects [R]."""
    found = np.flatnonzero(true)
    if not found.size:
        return np.zeros(len(objects))
    areas = []
    for some in np.array_split(columns, -(-found.size * len(objects) // _AT_ONCE), axis=1):
        weight = some[image[found]]
        precision = np.cumsum(weight, 0) / np.maximum(_counted(image, found, some), 1)
        areas.append((weight * _envelope(precision, 0)).sum(0, dtype=np.float64))
    return np.concatenate(areas) / np.maximum(objects, 1)


def _counted(image: _Indices, found: _Indices, columns: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """[J, R]: how many detections stand up to each of those at `found` [J], where image i counts `columns[i, r]` times.

    As products of matrices, which for some hundred images is faster than to look at every detection for every resample.
    Sums of whole numbers are exact.
    """
    images = len(columns)
    parts, start = [], 0
    for ends in np.array_split(found, min(-(-found.size * images // _AT_ONCE), found.size)):
        segment = np.searchsorted(ends, np.arange(start, ends[-1] + 1))
        cells = segment * images + image[start : ends[-1] + 1]
        between = np.bincount(cells, minlength=ends.size * images).reshape(-1, images)
        parts.append(between.astype(np.float32) @ columns)
        start = ends[-1] + 1
    return np.cumsum(np.concatenate(parts), 0)


def _average_precision(precision: _Floats, recall: _Floats, points: Points) -> float:
    """Of one class, from its precision and recall after each detection. At least one detection."""
    envelope = _envelope(precision)
    if points == 0:
        return float(np.diff(recall, prepend=0.0) @ envelope)
    reached = np.searchsorted(recall, np.arange(points) / (points - 1))
    return float(np.append(envelope, 0.0)[reached].sum() / points)


def _envelope(precision: _Floats, axis: int = -1) -> _Floats:
    """The best precision at this or a higher recall, which grows along `axis`."""
    envelope: _Floats = np.flip(np.maximum.accumulate(np.flip(precision, axis), axis), axis)
    return envelope


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
