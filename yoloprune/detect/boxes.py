"""From candidates to detections: letterbox correction and non-maximum suppression as Darknet does them.

Boxes: float32 [M, 4], centre x, centre y, width, height, as fractions. (yolo_layer.c: correct_yolo_boxes.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from yoloprune.darknet.layers.candidates import Candidates
from yoloprune.detect.image import letterbox_size
from yoloprune.detect.overlap import GREEDY_BETA, NMS_THRESH, NmsKind, Overlap
from yoloprune.detect.suppress import in_order, suppress

Boxes = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float32]


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
    beta: float = GREEDY_BETA,
    correction: Sequence[Correction] | None = None,
) -> list[Detections]:
    """Detections of each of `batch_size` images, on whatever device the candidates are.

    correction: one an image for letterboxed pictures, None for stretched ones. Darknet corrects before it suppresses,
    and so do we: greedynms and diounms measure distances, which the correction changes.
    beta: `beta_nms`, for diounms.
    """
    boxes = candidates.boxes.detach()
    if correction is not None:
        boxes = _corrected(boxes, candidates.image, correction)
    kept = suppress(replace(candidates, boxes=boxes), Overlap(nms_kind, nms_thresh, beta))
    box, classes, probs = (
        each.index_select(0, kept) for each in (candidates.box, candidates.classes, candidates.probs.detach())
    )
    image = candidates.image.index_select(0, box)
    order = in_order(torch.arange(len(kept), device=kept.device), -probs, image)
    found = (each.index_select(0, order).cpu() for each in (boxes.index_select(0, box), classes, probs))
    counts = torch.bincount(image, minlength=batch_size).tolist()
    parts = zip(*(torch.split(each, counts) for each in found), strict=True)
    return [Detections(*(each.numpy() for each in part)) for part in parts]


def _corrected(boxes: Tensor, images: Tensor, correction: Sequence[Correction]) -> Tensor:
    places = torch.tensor([(c.x, c.y, c.width, c.height) for c in correction], dtype=torch.float64)
    inner = places.to(boxes.device).index_select(0, images)
    corrected = boxes.double()
    corrected[:, :2] -= inner[:, :2]
    corrected /= inner[:, 2:].tile(2)
    return corrected.float()
