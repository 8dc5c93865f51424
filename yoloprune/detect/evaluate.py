"""Mean average precision by the rules of AlexeyAB's `detector map` (detector.c: validate_detector_map).

A detection belongs to the object of its own class and image that it overlaps most, if by more than the threshold. Over
all images in order of probability, the first detection of an object is a true positive, every other detection a false
one. The network's detections come with probabilities over `MAP_THRESH`, after non-maximum suppression.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from yoloprune.detect.match import Matches, Objects
from yoloprune.detect.outcome import MISSED

MAP_THRESH: Final = 0.005
"""Probability above which `detector map` looks at a detection."""
DISPLAY_THRESH: Final = 0.25
"""Probability above which precision, recall, F1 and average IoU are counted."""
Points = Literal[0, 11, 101]
"""`-points`: 0 the area under the precision envelope, else the mean of the best precision at so many recalls."""

_THRESHOLDS: Final = tuple(percent / 100 for percent in range(50, 100, 5))
METRICS: Final[Mapping[str, tuple[float, ...]]] = {"map50": (0.5,), "map75": (0.75,), "map50-95": _THRESHOLDS}
"""What can steer pruning: the mean over these IoU."""

_AT_ONCE: Final = 1 << 18
_AT_ONCE_ELSEWHERE: Final = 1 << 24
"""True detections times resamples that are looked at together, on a CPU, whose cache they fit in, and elsewhere."""

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
class DetectionOutcome:
    """What was found, ranked, and the accuracy that it comes to (an `Outcome`).

    What steers pruning is the mean over the classes that are present.
    """

    found: Matches
    """[D], ranked."""
    objects: _Indices
    """[I, K]: objects of each image by class."""
    metric: str = "map50"
    points: Points = 0

    @classmethod
    def of(cls, found: Matches, objects: Objects, metric: str = "map50", points: Points = 0) -> DetectionOutcome:
        """Of what was found, in any order."""
        return cls(found.ranked(), objects.counts.numpy(), metric, points)

    @property
    def accuracy(self) -> float:
        """On every image once."""
        present = self._of_class > 0
        if not present.any():
            return 0.0
        return float(np.mean([self._average_precisions(thresh)[present] for thresh in METRICS[self.metric]]))

    @property
    def contributions(self) -> _Floats:
        """[I]: of the area under the curves what each image's true detections add, and `MISSED` of what others could.

        At the least IoU that the metric asks for.
        """
        objects = self._of_class
        present = max(int((objects > 0).sum()), 1)
        found = np.zeros(len(self.objects))
        for number, (image, true) in self._by_class(METRICS[self.metric][0]).items():
            precision = np.cumsum(true) / np.arange(1, len(true) + 1)
            np.add.at(found, image[true], _envelope(precision)[true] / objects[number])
        possible = (self.objects / np.maximum(objects, 1)).sum(1)
        contributions: _Floats = (found + MISSED * (possible - found)) / present
        return contributions

    def resampled(self, counts: Tensor) -> _Floats:
        """[R]: on R sets in which image i counts `counts[r, i]` times; the area under the curve, whatever `points`.

        All that a resample changes is how many detections stand before each object that is found. Computed where
        `counts` is.
        """
        there = counts @ torch.from_numpy(self.objects).to(counts)  # [R, K]
        thresholds = METRICS[self.metric]
        total = sum(_resampled_areas(self._by_class(thresh), counts, there) for thresh in thresholds)
        mean: _Floats = (total / ((there > 0).sum(1).clamp(min=1) * len(thresholds))).cpu().numpy()
        return mean

    @property
    def result(self) -> MapResult:
        """All figures."""
        present = self._of_class > 0
        aps = np.stack([self._average_precisions(thresh) for thresh in _THRESHOLDS])
        means = {}
        for name, which in (("map50", aps[0]), ("map75", aps[_THRESHOLDS.index(0.75)]), ("map50_95", aps)):
            means[name] = float(which.mean())
            means[f"{name}_present"] = float(which[..., present].mean()) if present.any() else 0.0

        # Darknet counts these per image, in the order in which its sort of the last class left the boxes, and an object
        # counts as found when any box before claimed it. That order means nothing; in descending probability the first
        # claim is the best one, and the same that makes a true positive below. Its false positives include what
        # overlaps only a difficult object, which is left out of the precision curve; we count as it does.
        shown = self.found.probs.numpy() > np.float32(DISPLAY_THRESH)
        true = self._true_positives(_THRESHOLDS[0]) & shown
        found, counted, objects = int(true.sum()), int(shown.sum()), int(self.objects.sum())
        precision, recall = _ratio(found, counted), _ratio(found, objects)
        return MapResult(
            images=len(self.objects),
            ap=tuple(float(ap) if here else None for ap, here in zip(aps[0], present, strict=True)),
            **means,
            precision=precision,
            recall=recall,
            f1=_ratio(2 * precision * recall, precision + recall),
            average_iou=_ratio(float(self.found.overlap.numpy()[true].sum(dtype=np.float64)), counted),
            true_positives=found,
            false_positives=counted - found,
            objects=objects,
        )

    def by_class(self, recalls: int) -> list[tuple[int, float | None, _Floats]]:
        """Of each class its objects, its average precision by the metric, and the precision at so many recalls 0..1.

        None, and zeros, without objects. The precision is at the least IoU of the metric, the best at this recall or
        a higher one, which is what is averaged.
        """
        thresholds = METRICS[self.metric]
        means = np.mean([self._average_precisions(thresh) for thresh in thresholds], 0)
        curves = np.zeros((len(means), recalls))
        for number, (_, true) in self._by_class(thresholds[0]).items():
            curves[number] = _precision_at(true, int(self._of_class[number]), recalls)
        counts = self._of_class.tolist()
        return [
            (count, mean if count else None, curve)
            for count, mean, curve in zip(counts, means.tolist(), curves, strict=True)
        ]

    @property
    def _of_class(self) -> _Indices:
        """[K]: objects in all images."""
        objects: _Indices = self.objects.sum(0)
        return objects

    def _true_positives(self, thresh: float) -> _Flags:
        """[D]: whether a detection is the first of its object."""
        claims = np.flatnonzero(self.found.overlap.numpy() > np.float32(thresh))
        _, first = np.unique(self.found.truth.numpy()[claims], return_index=True)
        true = np.zeros(len(self.found.truth), np.bool_)
        true[claims[first]] = True
        return true

    def _by_class(self, thresh: float) -> dict[int, tuple[_Indices, _Flags]]:
        """For each class that is present: image and whether true, of its detections that count, as they rank."""
        true = self._true_positives(thresh)
        image, classes, overlap, difficult = (
            column.numpy()
            for column in (self.found.image, self.found.classes, self.found.overlap, self.found.difficult)
        )
        # What overlaps no object but a difficult one counts neither way.
        ranks = np.flatnonzero((overlap > np.float32(thresh)) | ~(difficult > np.float32(thresh)))
        ends = np.searchsorted(classes[ranks], np.arange(1, self.objects.shape[1]))
        present = self._of_class > 0
        parts = enumerate(np.split(ranks, ends))
        return {number: (image[some], true[some]) for number, some in parts if some.size and present[number]}

    def _average_precisions(self, thresh: float) -> _Floats:
        """[K]: average precision of each class; 0 where it has no objects or no detections."""
        objects = self._of_class
        result = np.zeros(len(objects))
        for number, (_, true) in self._by_class(thresh).items():
            result[number] = _average_precision(true, objects[number], self.points)
        return result


def _resampled_areas(ranked: Mapping[int, tuple[_Indices, _Flags]], counts: Tensor, objects: Tensor) -> Tensor:
    """[R]: the areas under all classes' curves, added up. ranked: of `_by_class`; counts [R, I], objects [R, K].

    All classes go at once, since on a GPU operations take longer to start than to run.
    """
    kinds, sizes, images, places, behind = [], [], [], [], 0
    for number, (ranks, true) in ranked.items():
        own = np.flatnonzero(true)
        if own.size:  # what stands behind the last one found changes nothing
            kinds.append(number)
            sizes.append(own.size)
            images.append(ranks[: own[-1] + 1])
            places.append(own + behind)
            behind += len(images[-1])
    if not kinds:
        return counts.new_zeros(len(counts), dtype=torch.float64)
    image, found, kind, size = (
        torch.from_numpy(each).to(counts.device)
        for each in (np.concatenate(images), np.concatenate(places), np.array(kinds), np.array(sizes))
    )
    ends = size.cumsum(0)
    starts = ends - size
    first = starts.repeat_interleave(size)  # [J]: of each that is found, the first of its class
    apart = (-2.0 * torch.arange(len(size), device=size.device, dtype=torch.float64)).repeat_interleave(size)
    # In front of the first one found stands nothing: an image that never counts.
    nothing = image.new_full((1,), counts.shape[1])
    owner = torch.cat([nothing, image[found]])
    stops = functional.pad(found + 1, (2, 0))
    exact = torch.float32 if behind < 1 << 22 else torch.float64

    def of_class(each: Tensor) -> Tensor:
        """[R, J] of [J+1, R]: sums over those of its class up to each."""
        sums = each.T.contiguous().cumsum(1, dtype=exact)
        return sums[:, 1:] - sums.index_select(1, first)

    areas = []
    rows = max((_AT_ONCE if counts.device.type == "cpu" else _AT_ONCE_ELSEWHERE) // len(found), 1)
    for some, there in zip(torch.split(counts, rows), torch.split(objects.index_select(1, kind), rows), strict=True):
        columns = functional.pad(some.T, (0, 0, 0, 1))
        weight = columns.index_select(0, owner)
        between = functional.embedding_bag(image, columns, stops[:-1], mode="sum")
        precision = (of_class(weight) / of_class(between).clamp_(min=1)).double()
        # It is at most 1, so with classes this far apart one running maximum serves all.
        envelope = precision.add_(apart).flip(1).cummax(1).values.flip(1).sub_(apart)
        area = functional.pad((envelope * weight[1:].T).cumsum(1), (1, 0))
        area = area.index_select(1, ends) - area.index_select(1, starts)
        areas.append((area / there.clamp(min=1)).sum(1))
    return torch.cat(areas)


def _average_precision(true: _Flags, objects: int, points: Points) -> float:
    """Of one class: whether each of its detections is true, at least one, and how many objects there are."""
    if points:
        return float(_precision_at(true, objects, points).sum() / points)
    hits = np.cumsum(true)
    return float(np.diff(hits / objects, prepend=0.0) @ _envelope(hits / np.arange(1, len(true) + 1)))


def _precision_at(true: _Flags, objects: int, recalls: int) -> _Floats:
    """The best precision at each of so many recalls from 0 to 1 or beyond; 0 where none is as high."""
    hits = np.cumsum(true)
    envelope = _envelope(hits / np.arange(1, len(true) + 1))
    reached = np.searchsorted(hits / objects, np.arange(recalls) / (recalls - 1))
    precision: _Floats = np.append(envelope, 0.0)[reached]
    return precision


def _envelope(precision: _Floats) -> _Floats:
    """[D]: the best precision at this or a higher recall, which grows along the detections."""
    envelope: _Floats = np.maximum.accumulate(precision[::-1])[::-1]
    return envelope


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
