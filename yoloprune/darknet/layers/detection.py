"""[detection], the head of YOLO's first version (Darknet: detection_layer.c; Redmon et al. 2016)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from yoloprune.darknet.declared import flag, integer
from yoloprune.darknet.layers.base import Context, KeyNotes, register
from yoloprune.darknet.layers.head import DetectionHead
from yoloprune.darknet.operators import Arrays, Operators, Value
from yoloprune.darknet.options import Options
from yoloprune.darknet.predictions import Detections


@register
@dataclass(frozen=True, kw_only=True)
class Detection(DetectionHead):
    """S*S cells, flat: K classes of each, then the objectness of its n boxes, then x, y, w, h of those."""

    side: int = integer(7, 1, 1000)
    boxes: int = integer(1, 1, 1000, key="num")
    """n, boxes of a cell."""
    softmax: bool = flag()
    roots: bool = flag(key="sqrt")
    """Whether w and h are square roots (`sqrt`)."""

    names: ClassVar[tuple[str, ...]] = ("detection",)
    key_notes: ClassVar[KeyNotes] = KeyNotes(
        "class_scale coord_scale forced jitter max noobject_scale object_scale random rescore", "resize"
    )
    reads_vectors: ClassVar[bool] = True

    @classmethod
    def read(cls, options: Options, context: Context) -> Self:
        """Defaults as parse_detection; boxes are read as four values each, whatever `coords` says."""
        layer = cls.of(options, context, classes=options.integer("classes", 1, 1, 1000000), anchors=())
        options.refuse({"reorg": 0}, "is not supported")
        if options.integer("coords", 1) != 4:
            raise options.error("expected coords=4", "coords")
        expected = layer.side**2 * (layer.classes + 5 * layer.boxes)
        if layer.out.size != expected:
            raise options.error(f"expected output={expected} before it, found {layer.out.size}")
        return layer

    def compute(self, x: Tensor, *others: Tensor) -> Tensor:
        """[B,C,H,W] -> the same; classes of a cell through softmax where the section says so."""
        flat, some = x.flatten(1), self.side**2 * self.classes
        if self.softmax:
            classes = flat[:, :some].view(len(x), self.side**2, self.classes).softmax(2)
            flat = torch.cat([classes.flatten(1), flat[:, some:]], 1)
        return flat.view(x.shape)

    def convert(self, ops: Operators, inputs: Sequence[Value], arrays: Arrays) -> Value:
        """[1,C,H,W] -> the same."""
        cells, size = self.side**2, self.out.size
        if not self.softmax:
            return inputs[0]
        flat = ops.reshape(inputs[0], 1, size)
        classes = ops.reshape(ops.slice(flat, 1, 0, cells * self.classes), cells, self.classes)
        shares = ops.reshape(ops.op("Softmax", classes, axis=1), 1, cells * self.classes)
        return ops.reshape(ops.concat([shares, ops.slice(flat, 1, cells * self.classes, size)]), 1, *self.out)

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

    @property
    def box_count(self) -> int:
        """Of all cells."""
        return self.boxes * self.side**2

    def convert_boxes(self, ops: Operators, output: Value) -> tuple[Value, Value]:
        """As `decode`."""
        cells, n, side = self.side**2, self.boxes, self.side
        flat = ops.reshape(output, 1, self.out.size)
        ends = (0, cells * self.classes, cells * (self.classes + n), self.out.size)
        parts = [ops.slice(flat, 1, start, stop) for start, stop in pairwise(ends)]
        classes = ops.reshape(parts[0], cells, 1, self.classes)
        there, values = ops.reshape(parts[1], cells, n, 1), ops.reshape(parts[2], cells, n, 4)
        rows, columns = np.mgrid[:side, :side].reshape(2, -1, 1).astype(np.float32)
        corner = np.stack([columns, rows], 2)
        centres = ops.op("Div", ops.op("Add", ops.slice(values, 2, 0, 2), corner), float(side))
        sizes = ops.slice(values, 2, 2, 4)
        sizes = ops.op("Mul", sizes, sizes) if self.roots else sizes
        boxes = ops.reshape(ops.concat([centres, sizes], 2), 1, cells * n, 4)
        return boxes, ops.reshape(ops.op("Mul", there, classes), 1, cells * n, self.classes)
