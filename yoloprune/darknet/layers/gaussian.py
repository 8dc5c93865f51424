"""[Gaussian_yolo] (AlexeyAB: gaussian_yolo_layer.c; Choi et al. 2019): a box with how unsure its sides are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from yoloprune.darknet.declared import choice, number
from yoloprune.darknet.layers.base import Context, KeyNotes, register
from yoloprune.darknet.layers.head import DetectionHead, anchor_pairs, check_channels, masked_anchors
from yoloprune.darknet.operators import Arrays, Operators, Value
from yoloprune.darknet.options import Options
from yoloprune.darknet.predictions import Detections

_POINTS = {"center": 0.0, "left_top": 0.5, "right_bottom": -0.5}
"""Which point of a box x and y are -> the share of its size from there to the centre."""


@register
@dataclass(frozen=True, kw_only=True)
class GaussianYolo(DetectionHead):
    """Values of an anchor: x, y, w, h, each with its deviation behind, objectness, then K classes."""

    to_centre: float
    """Share of the size from the predicted point to the centre."""
    scale_x_y: float = number(1.0)
    nms_kind: str = choice("default")
    beta_nms: float = number(0.6)

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
        classes, num, mask = masked_anchors(options)
        pixels = anchor_pairs(options, num)
        layer = cls.of(
            options,
            context,
            classes=classes,
            anchors=tuple((pixels[n][0] / context.net_width, pixels[n][1] / context.net_height) for n in mask),
            to_centre=_POINTS[options.choice("yolo_point", "center", *context.dialect.words["yolo_point"])],
        )
        check_channels(options, layer.out, len(mask), classes, 9)
        return layer

    @property
    def objectness(self) -> int:
        """Behind four values and their deviations."""
        return 8

    def compute(self, x: Tensor, *others: Tensor) -> Tensor:
        """[B, A*(9+K), H, W] -> the same: all through the logistic but w and h; x and y scaled too."""
        b, _, h, w = x.shape
        y = torch.sigmoid(x)
        planes, raw = (each.view(b, len(self.anchors), -1, h, w) for each in (y, x))
        planes[:, :, [4, 6]] = raw[:, :, [4, 6]]
        planes[:, :, [0, 2]] = planes[:, :, [0, 2]] * self.scale_x_y - (self.scale_x_y - 1) / 2
        return y

    def convert(self, ops: Operators, inputs: Sequence[Value], arrays: Arrays) -> Value:
        """[1, A*(9+K), H, W] -> the same."""
        (c, h, w), count = self.out, len(self.anchors)
        raw = ops.reshape(inputs[0], count, c // count, h, w)
        through = ops.op("Sigmoid", raw)
        planes = [ops.slice(raw if plane in (4, 6) else through, 1, plane, plane + 1) for plane in range(8)]
        for plane in (0, 2):
            planes[plane] = ops.affine(planes[plane], self.scale_x_y, -(self.scale_x_y - 1) / 2)
        return ops.reshape(ops.concat([*planes, ops.slice(through, 1, 8, c // count)]), 1, *self.out)

    def decode(self, output: Tensor, thresh: float) -> Detections:
        """get_gaussian_yolo_detections: what a box is unsure of lowers its classes."""
        image, cell, anchor, values = self._gather(output, thresh)
        _, h, w = self.out
        size = values[:, [4, 6]].exp() * anchor
        point = (values[:, [0, 2]] + cell) / values.new_tensor([w, h])
        sure = 1 - values[:, [1, 3, 5, 7]].mean(1, keepdim=True)
        probs = values[:, 8:9] * values[:, 9:] * sure
        return self.detections(image, point + self.to_centre * size, size, probs, thresh)

    def convert_boxes(self, ops: Operators, output: Value) -> tuple[Value, Value]:
        """As `decode`."""
        rows = self.rows(ops, output)
        sizes = self.sizes(ops, ops.op("Exp", ops.slice(rows, 2, 4, 7, 2)))
        points = self.centres(ops, ops.slice(rows, 2, 0, 3, 2))
        centres = ops.op("Add", points, ops.op("Mul", sizes, self.to_centre))
        unsure = ops.op("ReduceMean", ops.slice(rows, 2, 1, 8, 2), axes=[2], keepdims=1)
        there = ops.op("Mul", ops.slice(rows, 2, 8, 9), ops.affine(unsure, -1.0, 1.0))
        scores = ops.op("Mul", there, ops.slice(rows, 2, 9, 9 + self.classes))
        return ops.concat([centres, sizes], 2), scores
