"""[yolo], the head of YOLO from its third version on (Darknet: yolo_layer.c)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from yoloprune.darknet.declared import choice, flag, integer, number, read_declared
from yoloprune.darknet.layers.base import Context, KeyNotes, register
from yoloprune.darknet.layers.head import DetectionHead, anchor_pairs, check_channels, masked_anchors, random_sizes
from yoloprune.darknet.operators import Arrays, Operators, Value
from yoloprune.darknet.options import Options
from yoloprune.darknet.predictions import Detections


@dataclass(frozen=True, kw_only=True)
class YoloTraining:
    """What only the loss of [yolo] reads (parse_yolo)."""

    all_anchors: tuple[tuple[float, float], ...]
    """Every anchor of the list, as fractions of the network's input: a truth's best one may be another head's."""
    mask: tuple[int, ...]
    """Which of them are this head's."""
    ignore_thresh: float = number(0.5)
    truth_thresh: float = number(1.0)
    iou_thresh: float = number(1.0, extended=True)
    iou_thresh_kind: str = choice("iou", extended=True)
    iou_loss: str = choice("mse", extended=True)
    iou_normalizer: float = number(0.75, extended=True, otherwise=1.0)
    obj_normalizer: float = number(1.0, extended=True)
    cls_normalizer: float = number(1.0, extended=True)
    label_smooth_eps: float = number(0.0, extended=True)
    focal_loss: bool = flag(extended=True)
    objectness_smooth: bool = flag(extended=True)
    max_delta: float = number(3e38, extended=True)
    max_truths: int = integer(lambda dialect: dialect.max_truths, 1, 100000, key="max")
    jitter: float = number(0.2, 0)
    resize: float = number(1.0, 0, extended=True)
    random: float = random_sizes()


@register
@dataclass(frozen=True, kw_only=True)
class Yolo(DetectionHead):
    """Anchors in pixels, independent logistic classes (Darknet: yolo_layer.c)."""

    training: YoloTraining
    scale_x_y: float = number(1.0, extended=True)
    new_coords: bool = flag(extended=True)
    nms_kind: str = choice("default", extended=True)
    beta_nms: float = number(0.6, extended=True)

    names: ClassVar[tuple[str, ...]] = ("yolo",)
    key_notes: ClassVar[KeyNotes] = KeyNotes(
        "map",
        "counters_per_class delta_normalizer track_history_size sim_thresh dets_for_track dets_for_show "
        "track_ciou_norm embedding_layer show_details",
    )

    @classmethod
    def read(cls, options: Options, context: Context) -> Self:
        """Defaults as parse_yolo: 20 classes, 1 anchor; without `mask` all anchors are this head's."""
        classes, num, mask = masked_anchors(options)
        pixels = anchor_pairs(options, num)
        anchors = tuple((w / context.net_width, h / context.net_height) for w, h in pixels)
        layer = cls.of(
            options,
            context,
            classes=classes,
            anchors=tuple(anchors[number] for number in mask),
            training=YoloTraining(
                all_anchors=anchors,
                mask=mask,
                **read_declared(YoloTraining, options.training, context.dialect),
            ),
        )
        check_channels(options, layer.out, len(mask), classes)
        return layer

    def compute(self, x: Tensor, *others: Tensor) -> Tensor:
        """[B, A*(5+K), H, W] -> the same: x, y, objectness and classes through the logistic, w and h raw."""
        b, _, h, w = x.shape
        y = x.clone() if self.new_coords else torch.sigmoid(x)
        planes, raw = (each.view(b, len(self.anchors), -1, h, w) for each in (y, x))
        planes[:, :, 2:4] = raw[:, :, 2:4]
        if self.scale_x_y != 1:
            planes[:, :, :2] = planes[:, :, :2] * self.scale_x_y - (self.scale_x_y - 1) / 2
        return y

    def convert(self, ops: Operators, inputs: Sequence[Value], arrays: Arrays) -> Value:
        """[1, A*(5+K), H, W] -> the same."""
        (c, h, w), count = self.out, len(self.anchors)
        planes = ops.reshape(inputs[0], count, c // count, h, w)
        xy, sizes, others = (ops.slice(planes, 1, *ends) for ends in ((0, 2), (2, 4), (4, c // count)))
        if not self.new_coords:
            xy, others = ops.op("Sigmoid", xy), ops.op("Sigmoid", others)
        if self.scale_x_y != 1:
            xy = ops.affine(xy, self.scale_x_y, -(self.scale_x_y - 1) / 2)
        return ops.reshape(ops.concat([xy, sizes, others]), 1, *self.out)

    def decode(self, output: Tensor, thresh: float) -> Detections:
        """get_yolo_box: centre in the cell, exp(w) of the anchor, or with new_coords (2w)^2."""
        image, cell, anchor, values = self._gather(output, thresh)
        _, h, w = self.out
        centre = (values[:, :2] + cell) / values.new_tensor([w, h])
        factor = (2 * values[:, 2:4]) ** 2 if self.new_coords else values[:, 2:4].exp()
        size = factor * anchor
        return self.detections(image, centre, size, values[:, 4:5] * values[:, 5:], thresh)

    def convert_boxes(self, ops: Operators, output: Value) -> tuple[Value, Value]:
        """As `decode`."""
        rows = self.rows(ops, output)
        raw = ops.slice(rows, 2, 2, 4)
        factors = ops.op("Mul", ops.op("Mul", raw, raw), 4.0) if self.new_coords else ops.op("Exp", raw)
        boxes = ops.concat([self.centres(ops, ops.slice(rows, 2, 0, 2)), self.sizes(ops, factors)], 2)
        return boxes, ops.op("Mul", ops.slice(rows, 2, 4, 5), ops.slice(rows, 2, 5, 5 + self.classes))
