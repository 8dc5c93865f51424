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

from yoloprune.darknet.layers.candidates import Candidates
from yoloprune.detect.image import letterbox_size

Boxes = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float32]
_Indices = npt.NDArray[np.int64]
_Flags = npt.NDArray[np.bool_]
NmsKind = Literal["default", "greedynms", "diounms", "cornersnms"]
"""`nms_kind` of the last [yolo] section: it says what counts as overlap (`Overlap`)."""

NMS_THRESH: Final = 0.45
"""Overlap above which the less probable of two boxes goes, in `detector test` and `detector map`."""
_PAIRS: Final = 1 << 15
"""Pairs of boxes that a round compares at the least: enough to hide what a call of NumPy costs."""
_FIRST: Final = 4
"""Boxes of each class that a round settles at the least."""
_UNBOUNDED: Final = np.errstate(invalid="ignore", over="ignore")
"""An untrained network's boxes may be infinite; what can't be computed of them overlaps nothing, as in C."""
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
    """Detections of each of `batch_size` images.

    correction: one an image for letterboxed pictures, None for stretched ones. Darknet corrects before it suppresses,
    and so do we: greedynms and diounms measure distances, which the correction changes.
    beta: `beta_nms`, for diounms.
    """
    images = candidates.image.cpu().numpy()
    boxes = candidates.boxes.detach().cpu().numpy()
    classes = candidates.classes.cpu().numpy()
    probs = candidates.probs.detach().cpu().numpy()
    if correction is not None:
        boxes = _corrected(boxes, images, correction)
    kept = suppress(boxes, probs, images, classes, Overlap(nms_kind, nms_thresh, beta))
    kept = kept[np.lexsort((-probs[kept], images[kept]))]
    starts = np.searchsorted(images[kept], np.arange(1, batch_size))
    return [Detections(boxes[some], classes[some], probs[some]) for some in np.split(kept, starts)]


def suppress(boxes: Boxes, probs: Floats, images: _Indices, classes: _Indices, overlaps: Overlap) -> _Indices:
    """Indices, ascending, of the boxes that non-maximum suppression keeps within each image and class.

    In order of probability every box that is still there removes the later ones that it `overlaps`. All images and
    classes go at once, and the result is that of the plain loop: a round settles the first boxes of each class, and
    what these remove of the others.
    """
    segment = images * (classes.max(initial=0) + 1) + classes
    order = np.lexsort((-probs, segment))
    boxes, segment = boxes.take(order, 0), segment.take(order)
    sides = [_Side.of(boxes[:, axis], boxes[:, axis + 2], overlaps.least) for axis in range(2)]
    alive = np.arange(order.size)
    kept = [alive[:0]]
    while alive.size:
        owner = segment.take(alive)
        is_first = np.ones(alive.size, np.bool_)
        np.not_equal(owner[1:], owner[:-1], out=is_first[1:])
        first = np.flatnonzero(is_first).take(np.cumsum(is_first) - 1)
        rank = np.arange(alive.size) - first
        settled = max(_PAIRS // alive.size, _FIRST)
        before = np.minimum(rank, settled)
        later = np.repeat(np.arange(alive.size), before)
        earlier = np.arange(later.size) - np.repeat(np.cumsum(before) - before - first, before)
        for side in sides:
            near = side.near(alive.take(earlier), alive.take(later))
            earlier, later = earlier.take(near), later.take(near)
        removes = overlaps(boxes.take(alive.take(earlier), 0), boxes.take(alive.take(later), 0))
        stays = _unremoved(earlier[removes], later[removes], alive.size)
        kept.append(alive[stays & (rank < settled)])
        alive = alive[stays & (rank >= settled)]
    return np.sort(order.take(np.concatenate(kept)))


@dataclass(frozen=True)
class _Side:
    """One axis of boxes, to tell quickly which pairs may overlap: most don't."""

    low: Floats
    high: Floats
    least: Floats
    """What two boxes have in common is more than the sum of theirs, if they overlap."""

    @classmethod
    @_UNBOUNDED
    def of(cls, centre: Floats, size: Floats, least: float) -> _Side:
        half = size * np.float32(0.5)
        return cls(centre - half, centre + half, size * np.float32(least))

    @_UNBOUNDED
    def near(self, a: _Indices, b: _Indices) -> _Indices:
        """Which of the pairs of boxes [M] and others [M] may overlap."""
        common = np.minimum(self.high.take(a), self.high.take(b))
        common -= np.maximum(self.low.take(a), self.low.take(b))
        least = self.least.take(a)
        least += self.least.take(b)
        return np.flatnonzero(common > least)


def _unremoved(earlier: _Indices, later: _Indices, count: int) -> _Flags:
    """[count]: whether a box stays, where box earlier[i] if it stays removes box later[i].

    Assume that all stay and apply the removals until nothing changes: after n times all is right for the boxes whose
    chain of removers is shorter than n, and what no longer changes is right for all.
    """
    stays = np.ones(count, np.bool_)
    while True:
        now = np.ones(count, np.bool_)
        now[later[stays[earlier]]] = False
        if (now == stays).all():
            return now
        stays = now


@_UNBOUNDED
def iou(a: Boxes, b: Boxes) -> Floats:
    """Intersection over union of boxes [..., 4] that broadcast together; 0 where they don't overlap. (box_iou.)"""
    width = _overlap(a[..., 0], a[..., 2], b[..., 0], b[..., 2])
    height = _overlap(a[..., 1], a[..., 3], b[..., 1], b[..., 3])
    intersection = np.maximum(width, 0) * np.maximum(height, 0)
    union = a[..., 2] * a[..., 3] + b[..., 2] * b[..., 3] - intersection
    result: Floats = np.zeros_like(intersection)
    np.divide(intersection, union, out=result, where=(intersection > 0) & (union != 0))
    return result


@_UNBOUNDED
def diou(a: Boxes, b: Boxes, beta: float) -> Floats:
    """IoU less (d/c)^beta: d the squared distance of the centres, c the squared diagonal around both. (box_diounms.)"""
    width = _span(a[..., 0], a[..., 2], b[..., 0], b[..., 2])
    height = _span(a[..., 1], a[..., 3], b[..., 1], b[..., 3])
    diagonal = width * width + height * height
    distance = (a[..., 0] - b[..., 0]) ** 2 + (a[..., 1] - b[..., 1]) ** 2
    share = np.divide(distance, diagonal, out=np.zeros_like(diagonal), where=diagonal != 0)
    return iou(a, b) - np.power(share.astype(np.float64), beta).astype(np.float32)


@dataclass(frozen=True)
class Overlap:
    """When two boxes overlap too much, as `kind` counts it. (diounms_sort.)"""

    kind: NmsKind
    thresh: float = NMS_THRESH
    beta: float = _GREEDY_BETA
    """Of diounms."""

    def __call__(self, a: Boxes, b: Boxes) -> _Flags:
        """Which of boxes [M, 4] and others [M, 4] do.

        What the centres' distance takes off is computed only where the IoU alone is over `thresh`.
        """
        limit = np.float32(self.thresh)
        over: _Flags = iou(a, b) > limit
        power = {"greedynms": _GREEDY_BETA, "diounms": self.beta}.get(self.kind)
        if power is not None:
            over[over] = diou(a[over], b[over], power) > limit
        return over

    @property
    def least(self) -> float:
        """On each axis, what boxes that overlap have in common over the sum of their sizes; a tenth less, for rounding.

        Over union it is at least the IoU, as the other axis can only make that less.
        """
        return 0.9 * self.thresh / (1 + self.thresh)


def _overlap(x1: Floats, w1: Floats, x2: Floats, w2: Floats) -> Floats:
    return np.minimum(x1 + w1 / 2, x2 + w2 / 2) - np.maximum(x1 - w1 / 2, x2 - w2 / 2)


def _span(x1: Floats, w1: Floats, x2: Floats, w2: Floats) -> Floats:
    return np.maximum(x1 + w1 / 2, x2 + w2 / 2) - np.minimum(x1 - w1 / 2, x2 - w2 / 2)


def _corrected(boxes: Boxes, images: _Indices, correction: Sequence[Correction]) -> Boxes:
    inner = np.array([(c.x, c.y, c.width, c.height) for c in correction])[images]
    corrected = boxes.astype(np.float64)
    corrected[:, :2] -= inner[:, :2]
    corrected /= np.tile(inner[:, 2:], 2)
    return corrected.astype(np.float32)
