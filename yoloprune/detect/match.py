"""Which detection is of which object. (detector.c: validate_detector_map.)

A detection belongs to the object of its own class and image that it overlaps most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from yoloprune.darknet.data import Labels
from yoloprune.detect.boxes import Detections
from yoloprune.detect.overlap import iou

_Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Claims:
    """M detections of one image, and the object each is of."""

    detections: Detections
    truth: _Indices
    """[M]: number in the image of the object of the same class that each overlaps most; -1 where there is none."""
    overlap: npt.NDArray[np.float32]
    """The IoU with it, 0 where there is none."""
    difficult: npt.NDArray[np.float32]
    """The greatest IoU with a difficult object of the same class."""


@dataclass(frozen=True)
class Matches:
    """D detections of I images and what each found: by class, of one class the most probable first."""

    image: _Indices
    """[D]: number of the image."""
    probs: npt.NDArray[np.float32]
    classes: _Indices
    truth: _Indices
    """Number, over all images, of the object of each; -1 where there is none."""
    overlap: npt.NDArray[np.float32]
    difficult: npt.NDArray[np.float32]
    objects: _Indices
    """[I, K]: objects of each image by class."""


def claims(
    detections: Sequence[Detections],
    truths: Sequence[Labels],
    classes: int,
    difficult: Sequence[Labels] | None = None,
) -> list[Claims]:
    """Of each image: every detection with the object it overlaps most, the first of those that it overlaps equally."""
    counts = [len(found.probs) for found in detections]
    image = np.repeat(np.arange(len(detections)), counts)
    boxes = np.concatenate([found.boxes for found in detections])
    segment = image * classes + np.concatenate([found.classes for found in detections])
    truth, overlap = _best(segment, boxes, truths, classes)
    before = np.cumsum([0, *(len(each) for each in truths)])
    truth = np.where(truth >= 0, truth - before[image], -1)
    hard = _best(segment, boxes, difficult, classes)[1] if difficult else np.zeros_like(overlap)
    ends = np.cumsum(counts)[:-1]
    parts = zip(detections, *(np.split(each, ends) for each in (truth, overlap, hard)), strict=True)
    return [Claims(*part) for part in parts]


def objects_of(truths: Sequence[Labels], classes: int) -> _Indices:
    """[I, K]: objects of each image by class."""
    return np.stack([np.bincount(truth[:, 0].astype(np.int64), minlength=classes) for truth in truths])


def match(found: Sequence[Claims], objects: _Indices) -> Matches:
    """All images' claims together; objects: of `objects_of`."""
    image = np.repeat(np.arange(len(found)), [len(each.truth) for each in found])
    probs = np.concatenate([each.detections.probs for each in found])
    kinds = np.concatenate([each.detections.classes for each in found])
    truth = np.concatenate([each.truth for each in found])
    before = np.cumsum(objects.sum(1)) - objects.sum(1)
    # What is over 0 is ordered as its bits are, so one sort of whole numbers does for both; the stable one, for ties.
    order = torch.from_numpy((kinds << 32) - probs.view(np.int32)).argsort(stable=True).numpy()
    return Matches(
        image=image[order],
        probs=probs[order],
        classes=kinds[order],
        truth=np.where(truth >= 0, truth + before[image], -1)[order],
        overlap=np.concatenate([each.overlap for each in found])[order],
        difficult=np.concatenate([each.difficult for each in found])[order],
        objects=objects,
    )


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
    of_segment = np.bincount(key, minlength=len(truths) * classes)
    rivals, first = of_segment[segment], (np.cumsum(of_segment) - of_segment)[segment]
    with_rivals = np.flatnonzero(rivals)
    if not with_rivals.size:
        return best, value
    ends = np.cumsum(rivals[with_rivals])
    starts = ends - rivals[with_rivals]
    pair_of = np.repeat(with_rivals, rivals[with_rivals])
    within = np.arange(ends[-1]) - np.repeat(starts, rivals[with_rivals])
    other = order[first[pair_of] + within]
    # Of boxes without bounds it may be no number, which no maximum is equal to.
    overlap = iou(*map(torch.from_numpy, (boxes[pair_of], objects[other, 1:]))).nan_to_num(0.0).numpy()
    most = np.maximum.reduceat(overlap, starts)
    is_most = np.flatnonzero(overlap == np.repeat(most, rivals[with_rivals]))
    _, chosen = np.unique(pair_of[is_most], return_index=True)
    value[with_rivals] = most
    best[with_rivals] = np.where(most > 0, other[is_most[chosen]], -1)
    return best, value
