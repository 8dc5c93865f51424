"""How much boxes overlap, and when that is too much, in Darknet's float arithmetic. (box.c: box_iou, box_diou.)

Boxes: [..., 4], centre x, centre y, width, height.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import torch
from torch import Tensor

NmsKind = Literal["default", "greedynms", "diounms", "cornersnms"]
"""`nms_kind` of the last [yolo] section."""

NMS_THRESH: Final = 0.45
"""Overlap above which the less probable of two boxes goes, in `detector test` and `detector map`."""
GREEDY_BETA: Final = 0.6
"""box_diou's fixed power; beta_nms is only for diounms."""


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of boxes [..., 4] that broadcast together; 0 where they don't overlap. (box_iou.)"""
    width = _overlap(a[..., 0], a[..., 2], b[..., 0], b[..., 2])
    height = _overlap(a[..., 1], a[..., 3], b[..., 1], b[..., 3])
    return iou_of(width, height, a[..., 2] * a[..., 3] + b[..., 2] * b[..., 3])


def iou_of(width: Tensor, height: Tensor, areas: Tensor) -> Tensor:
    """Intersection over union of two boxes, from its width and height (below 0: none) and both areas. (box_iou.)

    An untrained network's boxes may be infinite; what can't be computed of them is no number, and over no threshold, as
    in C.
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
    beta: float = GREEDY_BETA
    """Of diounms."""

    def __call__(self, overlap: Tensor, boxes: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """Numbers of the pairs that do, of `boxes` [M, 4] number a[i] and b[i], whose IoU is `overlap`.

        What the centres' distance takes off is computed only where the IoU alone is over `thresh`.
        """
        limit = float(np.float32(self.thresh))
        over = (overlap > limit).nonzero().squeeze(1)
        power = {"greedynms": GREEDY_BETA, "diounms": self.beta}.get(self.kind)
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
