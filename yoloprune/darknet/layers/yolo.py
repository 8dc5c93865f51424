"""[yolo], the head of YOLO from its third version on (Darknet: yolo_layer.c)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from yoloprune.darknet.dialect import Dialect
from yoloprune.darknet.layers.base import Context, KeyNotes, register
from yoloprune.darknet.layers.head import DetectionHead, anchor_pairs, check_channels
from yoloprune.darknet.options import Options
from yoloprune.darknet.predictions import Detections


@dataclass(frozen=True)
class YoloTraining:
    """What only the loss of [yolo] reads (parse_yolo)."""

    ignore_thresh: float
    truth_thresh: float
    iou_thresh: float
    iou_thresh_kind: str
    iou_loss: str
    iou_normalizer: float
    obj_normalizer: float
    cls_normalizer: float
    label_smooth_eps: float
    focal_loss: bool
    objectness_smooth: bool
    max_delta: float
    max_truths: int
    jitter: float
    resize: float
    random: float
    all_anchors: tuple[tuple[float, float], ...]
    """Every anchor of the list, as fractions of the network's input: a truth's best one may be another head's."""
    mask: tuple[int, ...]
    """Which of them are this head's."""

    @classmethod
    def read(
        cls, options: Options, context: Context, anchors: tuple[tuple[float, float], ...], mask: tuple[int, ...]
    ) -> Self:
        """Defaults of the dialect."""
        extended, words, options = context.dialect.extended, context.dialect.words, options.training
        return cls(
            ignore_thresh=options.number("ignore_thresh", 0.5),
            truth_thresh=options.number("truth_thresh", 1.0),
            iou_thresh=options.number("iou_thresh", 1.0) if extended else 1.0,
            iou_thresh_kind=options.choice("iou_thresh_kind", "iou", *words["iou_thresh_kind"]) if extended else "iou",
            iou_loss=options.choice("iou_loss", "mse", *words["iou_loss"]) if extended else "mse",
            iou_normalizer=options.number("iou_normalizer", 0.75) if extended else 1.0,
            obj_normalizer=options.number("obj_normalizer", 1.0) if extended else 1.0,
            cls_normalizer=options.number("cls_normalizer", 1.0) if extended else 1.0,
            label_smooth_eps=options.number("label_smooth_eps", 0.0) if extended else 0.0,
            focal_loss=extended and options.flag("focal_loss"),
            objectness_smooth=extended and options.flag("objectness_smooth"),
            max_delta=options.number("max_delta", 3e38) if extended else 3e38,
            max_truths=options.integer("max", context.dialect.max_truths, 1, 100000),
            jitter=options.number("jitter", 0.2, 0),
            resize=options.number("resize", 1.0, 0) if extended else 1.0,
            random=options.number("random", 0, 0) if extended else options.integer("random", 0, 0),
            all_anchors=anchors,
            mask=mask,
        )


@register
@dataclass(frozen=True)
class Yolo(DetectionHead):
    """Anchors in pixels, independent logistic classes (Darknet: yolo_layer.c)."""

    scale_x_y: float
    new_coords: bool
    training: YoloTraining

    names: ClassVar[tuple[str, ...]] = ("yolo",)
    key_notes: ClassVar[KeyNotes] = KeyNotes(
        "map",
        "counters_per_class delta_normalizer track_history_size sim_thresh dets_for_track dets_for_show "
        "track_ciou_norm embedding_layer show_details",
    )

    @classmethod
    def read(cls, options: Options, context: Context) -> Self:
        """Defaults as parse_yolo: 20 classes, 1 anchor; without `mask` all anchors are this head's."""
        shape = context.shapes[context.previous]
        extended = context.dialect.extended
        classes = options.integer("classes", 20, 1, 1000000)
        num = options.integer("num", 1, 1, 1000)
        mask = options.integers("mask") or tuple(range(num))
        if min(mask) < 0 or max(mask) >= num:
            raise options.error(f"expected anchors 0..{num - 1}", "mask")
        pixels = anchor_pairs(options, num)
        anchors = tuple((w / context.net_width, h / context.net_height) for w, h in pixels)
        layer = cls(
            index=context.index,
            sources=(context.previous,),
            source_shapes=(shape,),
            classes=classes,
            anchors=tuple(anchors[number] for number in mask),
            scale_x_y=options.number("scale_x_y", 1.0) if extended else 1.0,
            new_coords=extended and options.flag("new_coords"),
            nms_kind=options.choice("nms_kind", "default", *context.dialect.words["nms_kind"])
            if extended
            else "default",
            beta_nms=options.number("beta_nms", 0.6) if extended else 0.6,
            training=YoloTraining.read(options, context, anchors, mask),
        )
        check_channels(options, shape, len(mask), classes)
        return layer

    def module(self, dialect: Dialect) -> nn.Module:
        """[B, A*(5+K), H, W] -> the same: x, y, objectness and classes through the logistic, w and h raw."""
        return _Yolo(self)

    def decode(self, output: Tensor, thresh: float) -> Detections:
        """get_yolo_box: centre in the cell, exp(w) of the anchor, or with new_coords (2w)^2."""
        image, cell, anchor, values = self._gather(output, thresh)
        _, h, w = self.out
        centre = (values[:, :2] + cell) / values.new_tensor([w, h])
        factor = (2 * values[:, 2:4]) ** 2 if self.new_coords else values[:, 2:4].exp()
        size = factor * anchor
        return self.detections(image, centre, size, values[:, 4:5] * values[:, 5:], thresh)


class _Yolo(nn.Module):
    def __init__(self, layer: Yolo) -> None:
        super().__init__()
        self.anchors, self.new_coords, self.scale = len(layer.anchors), layer.new_coords, layer.scale_x_y

    def forward(self, x: Tensor) -> Tensor:
        b, _, h, w = x.shape
        y = x.clone() if self.new_coords else torch.sigmoid(x)
        planes, raw = y.view(b, self.anchors, -1, h, w), x.view(b, self.anchors, -1, h, w)
        planes[:, :, 2:4] = raw[:, :, 2:4]
        if self.scale != 1:
            planes[:, :, :2] = planes[:, :, :2] * self.scale - (self.scale - 1) / 2
        return y
