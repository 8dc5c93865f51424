"""What layers that end a network share, and those of them that give boxes."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from yoloprune.darknet.declared import declared
from yoloprune.darknet.dialect import Dialect
from yoloprune.darknet.layers.base import Layer, Shape
from yoloprune.darknet.operators import Operators, Value
from yoloprune.darknet.options import Options
from yoloprune.darknet.predictions import Detections


@dataclass(frozen=True)
class Head(Layer):
    """A layer whose output is the network's result; its inputs can't be pruned."""

    is_output: ClassVar[bool] = True
    keeps_all: ClassVar[bool] = True


@dataclass(frozen=True)
class DetectionHead(Head):
    """A head that gives boxes. Values of an anchor: x, y, w, h, objectness, then K classes, each a plane."""

    classes: int
    anchors: tuple[tuple[float, float], ...]
    """Width and height of this head's anchors, as fractions of the network's input."""
    nms_kind: str = field(default="default", kw_only=True)
    beta_nms: float = field(default=0.6, kw_only=True)

    @abstractmethod
    def decode(self, output: Tensor, thresh: float) -> Detections:
        """Boxes of this head's activated output [B, A*(5+K), H, W], objectness and probability over `thresh`.

        In Darknet's order: image, cell by rows, anchor, class (get_yolo_detections, get_region_detections).
        """

    @abstractmethod
    def convert_boxes(self, ops: Operators, output: Value) -> tuple[Value, Value]:
        """The same in operators, of all M boxes of an image: boxes [1, M, 4] as in `Detections`, and what `decode`
        holds against the threshold, [1, M, K]. The order is that of `decode`. UnconvertibleError where there is none.
        """

    @property
    def box_count(self) -> int:
        """M of an image."""
        return len(self.anchors) * self.out.h * self.out.w

    def rows(self, ops: Operators, output: Value) -> Value:
        """The output with a row for each box, [1, H*W*A, V]."""
        (c, h, w), count = self.out, len(self.anchors)
        planes = ops.op("Transpose", ops.reshape(output, count, c // count, h * w), perm=[2, 0, 1])
        return ops.reshape(planes, 1, h * w * count, c // count)

    def centres(self, ops: Operators, xy: Value) -> Value:
        """x and y in their cells [1, H*W*A, 2] -> as fractions of the input."""
        _, h, w = self.out
        rows, columns = np.mgrid[:h, :w].reshape(2, -1).astype(np.float32)
        cells = np.stack([columns, rows], 1).repeat(len(self.anchors), 0)
        return ops.op("Div", ops.op("Add", xy, cells[None]), np.array([[[w, h]]], np.float32))

    def sizes(self, ops: Operators, factors: Value) -> Value:
        """Multiples of the anchors [1, H*W*A, 2] -> widths and heights."""
        anchors = np.tile(np.array(self.anchors, np.float32), (self.out.h * self.out.w, 1))
        return ops.op("Mul", factors, anchors[None])

    def scores(self, output: Tensor) -> Tensor:
        """What boxes are ranked by, of all anchors, classes and cells: objectness times class, [B, A*K*H*W]."""
        b, _, h, w = output.shape
        planes = output.view(b, len(self.anchors), -1, h, w)
        classes = planes[:, :, -self.classes :]
        return (classes if self.objectness < 0 else planes[:, :, self.objectness, None] * classes).flatten(1)

    def _gather(self, output: Tensor, thresh: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of the M boxes with objectness over `thresh`: image [M], column and row [M, 2], anchor [M, 2], all values."""
        b, _, h, w = output.shape
        cells = output.view(b, len(self.anchors), -1, h, w).permute(0, 3, 4, 1, 2)
        there = cells[..., self.objectness] > thresh if self.objectness >= 0 else torch.ones_like(cells[..., 0]) > 0
        image, row, column, anchor = torch.where(there)
        values = cells[image, row, column, anchor]
        return image, torch.stack([column, row], 1), values.new_tensor(self.anchors)[anchor], values

    @property
    def objectness(self) -> int:
        """Number of the plane; -1: none, every cell counts."""
        return 4

    @staticmethod
    def detections(image: Tensor, centre: Tensor, size: Tensor, probs: Tensor, thresh: float) -> Detections:
        """Those of the pairs of M boxes and K classes [M, K] that are more probable than `thresh`."""
        box, classes = torch.where(probs > thresh)
        return Detections(image[box], classes, probs[box, classes], torch.cat([centre, size], 1)[box])


def check_channels(options: Options, shape: Shape, anchors: int, classes: int, others: int = 5) -> None:
    """InputError unless there are `classes` and `others` planes for each anchor."""
    expected = anchors * (others + classes)
    if shape.c != expected:
        found = f"({anchors} anchors of {classes} classes and {others}), found {shape.c}"
        raise options.error(f"expected filters={expected} before it {found}")


def masked_anchors(options: Options) -> tuple[int, int, tuple[int, ...]]:
    """Classes (20 by default), anchors (1), and which of them are this head's (all)."""
    classes, num = options.integer("classes", 20, 1, 1000000), options.integer("num", 1, 1, 1000)
    mask = options.integers("mask") or tuple(range(num))
    if min(mask) < 0 or max(mask) >= num:
        raise options.error(f"expected anchors 0..{num - 1}", "mask")
    return classes, num, mask


def random_sizes() -> float:
    """Declares `random`: whether training changes the input's size, or in AlexeyAB's dialect by which factor."""

    def read(options: Options, dialect: Dialect, key: str) -> float:
        return options.number(key, 0, 0) if dialect.extended else options.integer(key, 0, 0)

    value: float = declared(read)
    return value


def anchor_pairs(options: Options, count: int) -> list[tuple[float, float]]:
    """`count` pairs; Darknet fills up with .5. What is too much is ignored (pjreddie writes past its array)."""
    values = list(options.numbers("anchors"))[: 2 * count]
    values += [0.5] * (2 * count - len(values))
    return list(zip(values[::2], values[1::2], strict=True))
