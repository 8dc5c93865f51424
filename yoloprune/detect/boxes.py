"""From candidates to detections: letterbox correction and non-maximum suppression as Darknet does them.

Boxes: float32 [M, 4], centre x, centre y, width, height, as fractions. Sources: box.c (box_iou, box_diou, do_nms_sort,
diounms_sort) and yolo_layer.c (correct_yolo_boxes), in the same float arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from yoloprune.darknet.layers.candidates import Candidates
from yoloprune.detect.image import letterbox_size

Boxes = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float32]
NmsKind = Literal["default", "greedynms", "diounms", "cornersnms"]
"""`nms_kind` of the last [yolo] section: it says what counts as overlap (`Overlap`)."""

NMS_THRESH: Final = 0.45
"""Overlap above which the less probable of two boxes goes, in `detector test` and `detector map`."""
_PAIRS: Final = 1 << 15
_PAIRS_ELSEWHERE: Final = 1 << 22
"""Pairs of boxes that a round compares at the least, on a CPU and on other devices: enough to hide what calls cost."""
_FIRST: Final = 4
"""Boxes of each class that a round settles at the least."""
_GREEDY_BETA: Final = 0.6
"""box_diou's fixed power; beta_nms is only for diounms."""


@dataclass(frozen=True)
class Detections:
    """What was found in one image, M boxes, the most probable first."""

    boxes: Boxes
    """[M, 4]: centre x, centre y, width, height as fractions of the image."""
    classes: npt.NDArray[np.int64]
    """[M]"""
    probs: Floats
    """[M], descending; equal ones in the heads' order."""

    def over(self, thresh: float) -> Detections:
        """Those more probable than `thresh`."""
        count = int(np.count_nonzero(self.probs > np.float32(thresh)))
        return Detections(self.boxes[:count], self.classes[:count], self.probs[:count])


@dataclass(frozen=True)
class Correction:
    """How a letterboxed picture lies in the network's input: fractions of the input's width and height."""

    x: float
    y: float
    width: float
    height: float


def letterbox_correction(image: tuple[int, int], network: tuple[int, int]) -> Correction:
    """Where a picture of (width, height) `image` lies in an input of (width, height) `network`. (correct_yolo_boxes.)

    The border is half the difference, not rounded as where the picture is pasted (`image.letterbox`): Darknet's own.
    """
    inner_width, inner_height = letterbox_size(*image, *network)
    return Correction(
        x=(network[0] - inner_width) / 2 / network[0],
        y=(network[1] - inner_height) / 2 / network[1],
        width=inner_width / network[0],
        height=inner_height / network[1],
    )


def postprocess(
    candidates: Candidates,
    batch_size: int,
    *,
    nms_kind: NmsKind = "default",
    nms_thresh: float = NMS_THRESH,
    beta: float = _GREEDY_BETA,
    correction: Sequence[Correction] | None = None,
) -> list[Detections]:
    """Detections of each of `batch_size` images, on whatever device the candidates are.

    correction: one an image for letterboxed pictures, None for stretched ones. Darknet corrects before it suppresses,
    and so do we: greedynms and diounms measure distances, which the correction changes.
    beta: `beta_nms`, for diounms.
    """
    boxes, probs, images = candidates.boxes.detach(), candidates.probs.detach(), candidates.image
    if correction is not None:
        boxes = _corrected(boxes, images, correction)
    kept = suppress(boxes, probs, images, candidates.classes, Overlap(nms_kind, nms_thresh, beta))
    kept = _sorted(kept, -probs, images)
    boxes, classes, probs = (each.index_select(0, kept).cpu() for each in (boxes, candidates.classes, probs))
    counts = torch.bincount(images.index_select(0, kept), minlength=batch_size).tolist()
    parts = zip(*(torch.split(each, counts) for each in (boxes, classes, probs)), strict=True)
    return [Detections(*(each.numpy() for each in part)) for part in parts]


def suppress(boxes: Tensor, probs: Tensor, images: Tensor, classes: Tensor, overlaps: Overlap) -> Tensor:
    """Indices, ascending, of the boxes [M, 4] that non-maximum suppression keeps within each image and class.

    In order of probability every box that is still there removes the later ones that it `overlaps`. All images and
    classes go at once, and the result is that of the plain loop: a round settles the first boxes of each class, and
    what these remove of the others.
    """
    if not len(probs):
        return torch.zeros_like(images)
    segment = images * (classes.max() + 1) + classes
    everything = torch.arange(len(probs), device=probs.device)
    order = _sorted(everything, -probs, segment)
    boxes, segment = boxes.index_select(0, order), segment.index_select(0, order)
    sides = [_Side.of(boxes[:, axis], boxes[:, axis + 2], overlaps.least) for axis in range(2)]
    areas = boxes[:, 2] * boxes[:, 3]
    pairs = _PAIRS if probs.device.type == "cpu" else _PAIRS_ELSEWHERE
    alive = everything
    kept = [alive[:0]]
    while len(alive):
        number = everything[: len(alive)]
        owner = segment.index_select(0, alive)
        is_first = torch.ones_like(number, dtype=torch.bool)
        torch.ne(owner[1:], owner[:-1], out=is_first[1:])
        first = torch.where(is_first, number, 0).cummax(0).values
        rank = number - first
        settled = max(pairs // len(alive), _FIRST)
        before = rank.clamp(max=settled)
        later = torch.repeat_interleave(before)
        starts = before.cumsum(0).sub_(before).sub_(first)
        earlier = torch.arange(len(later), device=later.device).sub_(starts.index_select(0, later))
        common: list[Tensor] = []
        for side in sides:
            near, length = side.common(alive.index_select(0, earlier), alive.index_select(0, later))
            earlier, later = earlier.index_select(0, near), later.index_select(0, near)
            common = [*(each.index_select(0, near) for each in common), length.index_select(0, near)]
        a, b = alive.index_select(0, earlier), alive.index_select(0, later)
        overlap = _ratio(common[0], common[1], areas.index_select(0, a) + areas.index_select(0, b))
        removes = overlaps(overlap, boxes, a, b)
        stays = _unremoved(earlier.index_select(0, removes), later.index_select(0, removes), len(alive))
        kept.append(alive[stays & (rank < settled)])
        alive = alive[stays & (rank >= settled)]
    return order.index_select(0, torch.cat(kept)).sort().values


def _sorted(indices: Tensor, *keys: Tensor) -> Tensor:
    """By the last key, equal ones by the one before; what is equal in all stays as it is."""
    for key in keys:
        indices = indices.index_select(0, key.index_select(0, indices).argsort(stable=True))
    return indices


@dataclass(frozen=True)
class _Side:
    """One axis of boxes, to tell quickly which pairs may overlap: most don't."""

    low: Tensor
    high: Tensor
    least: Tensor
    """What two boxes have in common is more than the sum of theirs, if they overlap."""

    @classmethod
    def of(cls, centre: Tensor, size: Tensor, least: float) -> _Side:
        half = size / 2
        return cls(centre - half, centre + half, size * least)

    def common(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """Which of the pairs of boxes [M] and others [M] may overlap, and what each pair has in common."""
        common = torch.minimum(self.high.index_select(0, a), self.high.index_select(0, b))
        common.sub_(torch.maximum(self.low.index_select(0, a), self.low.index_select(0, b)))
        least = self.least.index_select(0, a).add_(self.least.index_select(0, b))
        return (common > least).nonzero().squeeze(1), common


def _unremoved(earlier: Tensor, later: Tensor, count: int) -> Tensor:
    """[count]: whether a box stays, where box earlier[i] if it stays removes box later[i].

    Assume that all stay and apply the removals until nothing changes: after n times all is right for the boxes whose
    chain of removers is shorter than n, and what no longer changes is right for all.
    """
    stays = torch.ones(count, dtype=torch.bool, device=earlier.device)
    while True:
        now = torch.ones_like(stays)
        now[later[stays.index_select(0, earlier)]] = False
        if torch.equal(now, stays):
            return now
        stays = now


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of boxes [..., 4] that broadcast together; 0 where they don't overlap. (box_iou.)"""
    width = _overlap(a[..., 0], a[..., 2], b[..., 0], b[..., 2])
    height = _overlap(a[..., 1], a[..., 3], b[..., 1], b[..., 3])
    return _ratio(width, height, a[..., 2] * a[..., 3] + b[..., 2] * b[..., 3])


def _ratio(width: Tensor, height: Tensor, areas: Tensor) -> Tensor:
    """Intersection over union of two boxes, from its width and height (below 0: none) and both areas. (box_iou.)

    An untrained network's boxes may be infinite; what can't be computed of them overlaps nothing, as in C.
    """
    intersection = width.clamp(min=0) * height.clamp(min=0)
    union = areas - intersection
    return torch.where((intersection > 0) & (union != 0), intersection / union, 0.0)


def _penalty(a: Tensor, b: Tensor, beta: float) -> Tensor:
    """(d/c)^beta: d the squared distance of the centres, c the squared diagonal around both. (box_diounms.)"""
    width = _span(a[..., 0], a[..., 2], b[..., 0], b[..., 2])
    height = _span(a[..., 1], a[..., 3], b[..., 1], b[..., 3])
    diagonal = width * width + height * height
    distance = (a[..., 0] - b[..., 0]).square() + (a[..., 1] - b[..., 1]).square()
    return torch.where(diagonal != 0, distance / diagonal, 0.0).double().pow(beta).float()


@dataclass(frozen=True)
class Overlap:
    """When two boxes overlap too much, as `kind` counts it. (diounms_sort.)"""

    kind: NmsKind
    thresh: float = NMS_THRESH
    beta: float = _GREEDY_BETA
    """Of diounms."""

    def __call__(self, overlap: Tensor, boxes: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """Numbers of the pairs that do, of `boxes` [M, 4] number a[i] and b[i], whose IoU is `overlap`.

        What the centres' distance takes off is computed only where the IoU alone is over `thresh`.
        """
        limit = float(np.float32(self.thresh))
        over = (overlap > limit).nonzero().squeeze(1)
        power = {"greedynms": _GREEDY_BETA, "diounms": self.beta}.get(self.kind)
        if power is None:
            return over
        first, second = (boxes.index_select(0, each.index_select(0, over)) for each in (a, b))
        return over[overlap.index_select(0, over) - _penalty(first, second, power) > limit]

    @property
    def least(self) -> float:
        """On each axis, what boxes that overlap have in common over the sum of their sizes; a tenth less, for rounding.

        Over union it is at least the IoU, as the other axis can only make that less.
        """
        return 0.9 * self.thresh / (1 + self.thresh)


def _overlap(x1: Tensor, w1: Tensor, x2: Tensor, w2: Tensor) -> Tensor:
    return torch.minimum(x1 + w1 / 2, x2 + w2 / 2) - torch.maximum(x1 - w1 / 2, x2 - w2 / 2)


def _span(x1: Tensor, w1: Tensor, x2: Tensor, w2: Tensor) -> Tensor:
    return torch.maximum(x1 + w1 / 2, x2 + w2 / 2) - torch.minimum(x1 - w1 / 2, x2 - w2 / 2)


def _corrected(boxes: Tensor, images: Tensor, correction: Sequence[Correction]) -> Tensor:
    places = torch.tensor([(c.x, c.y, c.width, c.height) for c in correction], dtype=torch.float64)
    inner = places.to(boxes.device).index_select(0, images)
    corrected = boxes.double()
    corrected[:, :2] -= inner[:, :2]
    corrected /= inner[:, 2:].tile(2)
    return corrected.float()
