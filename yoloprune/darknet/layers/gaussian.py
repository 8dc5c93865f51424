"""[Gaussian_yolo] (AlexeyAB: gaussian_yolo_layer.c; Choi et al. 2019): a box with how unsure its sides are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from yoloprune.darknet.dialect import Dialect
from yoloprune.darknet.layers.base import Context, KeyNotes, register, single
from yoloprune.darknet.layers.head import DetectionHead, anchor_pairs, check_channels
from yoloprune.darknet.options import Options
from yoloprune.darknet.predictions import Detections

_POINTS = {"center": 0.0, "left_top": 0.5, "right_bottom": -0.5}
"""Which point of a box x and y are -> the share of its size from there to the centre."""


@register
@dataclass(frozen=True)
class GaussianYolo(DetectionHead):
    """Values of an anchor: x, y, w, h, each with its deviation behind, objectness, then K classes."""

    scale_x_y: float
    to_centre: float
    """Share of the size from the predicted point to the centre."""

    names: ClassVar[tuple[str, ...]] = ("Gaussian_yolo",)
    key_notes: ClassVar[KeyNotes] = KeyNotes(
        "max map max_delta counters_per_class label_smooth_eps objectness_smooth iou_normalizer obj_normalizer "
        "cls_normalizer delta_normalizer uc_normalizer iou_loss iou_thresh_kind iou_thresh jitter resize random "
        "ignore_thresh truth_thresh"
    )
    extended: ClassVar[bool] = True

    @classmethod
    def read(cls, options: Options, context: Context) -> Self:
        """Defaults as parse_gaussian_yolo."""
        classes = options.integer("classes", 20, 1, 1000000)
        num = options.integer("num", 1, 1, 1000)
        mask = options.integers("mask") or tuple(range(num))
        if min(mask) < 0 or max(mask) >= num:
            raise options.error(f"expected anchors 0..{num - 1}", "mask")
        pixels, words = anchor_pairs(options, num), context.dialect.words
        layer = cls(
            **single(context),
            classes=classes,
            anchors=tuple((pixels[n][0] / context.net_width, pixels[n][1] / context.net_height) for n in mask),
            scale_x_y=options.number("scale_x_y", 1.0),
            to_centre=_POINTS[options.choice("yolo_point", "center", *words["yolo_point"])],
            nms_kind=options.choice("nms_kind", "default", *words["nms_kind"]),
            beta_nms=options.number("beta_nms", 0.6),
        )
        check_channels(options, layer.source_shapes[0], len(mask), classes, 9)
        return layer

    @property
    def objectness(self) -> int:
        """Behind four values and their deviations."""
        return 8

    def module(self, dialect: Dialect) -> nn.Module:
        """[B, A*(9+K), H, W] -> the same: all through the logistic but w and h; x and y scaled too."""
        return _GaussianYolo(self)

    def decode(self, output: Tensor, thresh: float) -> Detections:
        """get_gaussian_yolo_detections: what a box is unsure of lowers its classes."""
        image, cell, anchor, values = self._gather(output, thresh)
        _, h, w = self.out
        size = values[:, [4, 6]].exp() * anchor
        point = (values[:, [0, 2]] + cell) / values.new_tensor([w, h])
        sure = 1 - values[:, [1, 3, 5, 7]].mean(1, keepdim=True)
        probs = values[:, 8:9] * values[:, 9:] * sure
        return self.detections(image, point + self.to_centre * size, size, probs, thresh)


class _GaussianYolo(nn.Module):
    def __init__(self, layer: GaussianYolo) -> None:
        super().__init__()
        self.anchors, self.scale = len(layer.anchors), layer.scale_x_y

    def forward(self, x: Tensor) -> Tensor:
        b, _, h, w = x.shape
        y = torch.sigmoid(x)
        planes, raw = y.view(b, self.anchors, -1, h, w), x.view(b, self.anchors, -1, h, w)
        planes[:, :, [4, 6]] = raw[:, :, [4, 6]]
        planes[:, :, [0, 2]] = planes[:, :, [0, 2]] * self.scale - (self.scale - 1) / 2
        return y
