"""[detection], the head of YOLO's first version (Darknet: detection_layer.c; Redmon et al. 2016)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from yoloprune.darknet.dialect import Dialect
from yoloprune.darknet.layers.base import Context, KeyNotes, register, single
from yoloprune.darknet.layers.head import DetectionHead
from yoloprune.darknet.options import Options
from yoloprune.darknet.predictions import Detections


@register
@dataclass(frozen=True)
class Detection(DetectionHead):
    """S*S cells, flat: K classes of each, then the objectness of its n boxes, then x, y, w, h of those."""

    side: int
    boxes: int
    """n, boxes of a cell."""
    softmax: bool
    roots: bool
    """Whether w and h are square roots (`sqrt`)."""

    names: ClassVar[tuple[str, ...]] = ("detection",)
    key_notes: ClassVar[KeyNotes] = KeyNotes(
        "class_scale coord_scale forced jitter max noobject_scale object_scale random rescore", "resize"
    )
    reads_vectors: ClassVar[bool] = True

    @classmethod
    def read(cls, options: Options, context: Context) -> Self:
        """Defaults as parse_detection; boxes are read as four values each, whatever `coords` says."""
        layer = cls(
            **single(context),
            classes=options.integer("classes", 1, 1, 1000000),
            anchors=(),
            nms_kind="default",
            beta_nms=0.6,
            side=options.integer("side", 7, 1, 1000),
            boxes=options.integer("num", 1, 1, 1000),
            softmax=options.flag("softmax"),
            roots=options.flag("sqrt"),
        )
        options.refuse({"reorg": 0}, "is not supported")
        if options.integer("coords", 1) != 4:
            raise options.error("expected coords=4", "coords")
        expected = layer.side**2 * (layer.classes + 5 * layer.boxes)
        if layer.out.size != expected:
            raise options.error(f"expected output={expected} before it, found {layer.out.size}")
        return layer

    def module(self, dialect: Dialect) -> nn.Module:
        """[B,C,H,W] -> the same; classes of a cell through softmax where the section says so."""
        return _Detection(self)

    def decode(self, output: Tensor, thresh: float) -> Detections:
        """get_detection_detections: x and y in the cell, w and h of the picture."""
        b, cells = len(output), self.side**2
        classes, there, values = torch.split(
            output.reshape(b, -1), [cells * self.classes, cells * self.boxes, cells * self.boxes * 4], 1
        )
        probs = there.reshape(b, cells, self.boxes, 1) * classes.reshape(b, cells, 1, self.classes)
        values = values.reshape(b, cells, self.boxes, 4)
        number = torch.arange(cells, device=output.device)
        corner = torch.stack([number % self.side, number // self.side], 1)[:, None]
        centre = (values[..., :2] + corner) / self.side
        size = values[..., 2:] ** 2 if self.roots else values[..., 2:]
        image = torch.arange(b, device=output.device).repeat_interleave(cells * self.boxes)
        pairs = (image, centre.reshape(-1, 2), size.reshape(-1, 2), probs.reshape(-1, self.classes))
        return self.detections(*pairs, thresh)


class _Detection(nn.Module):
    def __init__(self, layer: Detection) -> None:
        super().__init__()
        self.cells, self.classes, self.softmax = layer.side**2, layer.classes, layer.softmax

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        if self.softmax:
            classes = flat[:, : self.cells * self.classes].view(len(x), self.cells, self.classes).softmax(2)
            flat = torch.cat([classes.flatten(1), flat[:, self.cells * self.classes :]], 1)
        return flat.view(x.shape)
