"""Which detection is of which object. (detector.c: validate_detector_map.)

A detection belongs to the object of its own class and image that it overlaps most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from yoloprune.darknet.data import Labels
from yoloprune.darknet.predictions import Detections
from yoloprune.detect.overlap import iou
from yoloprune.detect.runs import argsort, ranges


@dataclass(frozen=True)
class Matches(Detections):
    """M detections, and the object each is of."""

    truth: Tensor
    """[M] int64: number in `Objects` of the object of its class and image that each overlaps most; -1: none."""
    overlap: Tensor
    """[M] float32: the IoU with it, 0 where there is none."""
    difficult: Tensor
    """[M] float32: the greatest IoU with a difficult object of its class and image."""

    def ranked(self) -> Matches:
        """By class, of one class the most probable first; equal ones in order of the images, then as they are."""
        # What is over 0 is ordered as its bits are, so one sort of whole numbers does for both.
        return self.rows(argsort(self.image, (self.classes << 32) - self.probs.view(torch.int32)))


@dataclass(frozen=True)
class Objects:
    """J objects of I images and K classes: by image, of one image by class, of one class as they are listed."""

    boxes: Tensor
    """[J, 4] float32: centre x, centre y, width, height as fractions."""
    counts: Tensor
    """[I, K] int64"""

    @classmethod
    def of(cls, truths: Sequence[Labels], classes: int) -> Objects:
        """From the rows (class, box) of each image."""
        counts = [len(each) for each in truths]
        rows = torch.from_numpy(np.concatenate([np.zeros((0, 5), np.float32), *truths]))
        segment = torch.repeat_interleave(torch.tensor(counts)) * classes + rows[:, 0].long()
        of_segment = torch.bincount(segment, minlength=len(counts) * classes)
        return cls(rows[segment.argsort(stable=True), 1:], of_segment.view(len(counts), classes))

    def overlapped_by(self, found: Detections) -> tuple[Tensor, Tensor]:
        """For each of M detections the object of its image and class with the highest IoU [M], and that IoU [M].

        The first of those that it overlaps equally; -1 and 0 if it overlaps none.
        """
        counts = self.counts.flatten()
        segment = found.image * self.counts.shape[1] + found.classes
        first = (counts.cumsum(0) - counts).index_select(0, segment)
        owner, number = ranges(first, counts.index_select(0, segment))
        # Of boxes without bounds it may be no number, which no maximum is equal to.
        overlap = iou(found.boxes.index_select(0, owner), self.boxes.index_select(0, number)).nan_to_num(0.0)
        most = torch.zeros(len(segment)).scatter_reduce(0, owner, overlap, "amax", include_self=False)
        equal = (overlap == most.index_select(0, owner)).nonzero().squeeze(1)
        best = torch.full_like(segment, -1).scatter_reduce(
            0, owner.index_select(0, equal), number.index_select(0, equal), "amin", include_self=False
        )
        return torch.where(most > 0, best, -1), most


def match(found: Detections, objects: Objects, difficult: Objects) -> Matches:
    """Every detection with the object it overlaps most.

    found: on the CPU, images numbered as in `objects`. difficult: what may be found or not, in the same I images.
    """
    truth, overlap = objects.overlapped_by(found)
    return Matches(**vars(found), truth=truth, overlap=overlap, difficult=difficult.overlapped_by(found)[1])
