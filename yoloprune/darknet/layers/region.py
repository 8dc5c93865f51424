"""[region], the head of YOLO's second version (Darknet: region_layer.c; Redmon and Farhadi 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from yoloprune.darknet.declared import flag, integer, number, read_declared
from yoloprune.darknet.layers.base import Context, KeyNotes, register
from yoloprune.darknet.layers.head import DetectionHead, anchor_pairs, check_channels, random_sizes
from yoloprune.darknet.layers.tree import Tree
from yoloprune.darknet.operators import Arrays, Operators, UnconvertibleError, Value
from yoloprune.darknet.options import Options
from yoloprune.darknet.predictions import Detections

TREE_THRESH = 0.5
"""How sure a walk down a tree of classes must be (`-hier`)."""


@dataclass(frozen=True)
class RegionTraining:
    """What only the loss of [region] reads (parse_region)."""

    thresh: float = number(0.5)
    bias_match: bool = flag()
    """Whether a truth's anchor is the one whose own shape fits best, not the one whose prediction does."""
    rescore: bool = flag()
    """Whether objectness is to be the overlap instead of 1."""
    classfix: int = integer(0, -1, 2, extended=True)
    """AlexeyAB: 1 or 2, classes are also taught where a box fits; -1, objectness is the overlap everywhere."""
    focal_loss: bool = flag(extended=True)
    coord_scale: float = number(1.0)
    object_scale: float = number(1.0)
    noobject_scale: float = number(1.0)
    class_scale: float = number(1.0)
    max_truths: int = integer(lambda dialect: dialect.max_truths if dialect.extended else 30, 1, 100000, key="max")
    jitter: float = number(0.2, 0)
    resize: float = number(1.0, 0, extended=True)
    random: float = random_sizes()


@register
@dataclass(frozen=True, kw_only=True)
class Region(DetectionHead):
    """Anchors in cells, classes through softmax (Darknet: region_layer.c)."""

    coords: int = integer(4, 4, 1000)
    """Planes before the objectness: x, y, w, h and what else a cell is asked for."""
    background: bool
    """Instead of an objectness there is one more class, for nothing."""
    tree: Tree | None
    """Classes stand in a hierarchy, and softmax is over its groups."""
    walks: bool
    """What a tree finds. True: where a walk down ends, as probable as the objectness (pjreddie). False: the last class
    that is over 1/2, as it is (AlexeyAB)."""
    raw_classes: bool
    """Without softmax: AlexeyAB leaves classes as they are, pjreddie takes the logistic."""
    training: RegionTraining
    softmax: bool = flag()

    names: ClassVar[tuple[str, ...]] = ("region",)
    key_notes: ClassVar[KeyNotes] = KeyNotes("absolute log map mask_scale sqrt", unread_classic="classfix")

    @classmethod
    def read(cls, options: Options, context: Context) -> Self:
        """Defaults as parse_region: 20 classes, 1 anchor."""
        shape, dialect = context.shapes[context.previous], context.dialect
        classes, num = options.integer("classes", 20, 1, 1000000), options.integer("num", 1, 1, 1000)
        layer = cls.of(
            options,
            context,
            classes=classes,
            background=not dialect.extended and options.flag("background"),
            tree=Tree.read(options, classes),
            walks=not dialect.extended,
            anchors=tuple((w / shape.w, h / shape.h) for w, h in anchor_pairs(options, num)),
            raw_classes=dialect.extended,
            training=RegionTraining(**read_declared(RegionTraining, options.training, dialect)),
        )
        if layer.coords != 4 and dialect.extended:
            raise options.error(f"is computed wrongly by dialect {dialect.name} (expected 4)", "coords")
        check_channels(options, shape, num, classes, layer.coords + 1)
        return layer

    def compute(self, x: Tensor, *others: Tensor) -> Tensor:
        """[B, A*(5+K), H, W] -> the same planes as pjreddie's; x, y, objectness through the logistic, w and h raw.

        AlexeyAB stores them by cell instead and takes x and y through the logistic when it decodes: the same boxes.
        """
        planes = x.view(len(x), len(self.anchors), -1, *x.shape[2:])
        sizes = [2, self.coords - 2, 1, planes.shape[2] - self.coords - 1]
        xy, rest, there, classes = torch.split(planes, sizes, 2)
        if self.tree:
            classes = self.tree.softmax(classes, 2)
        elif self.softmax and self.background:
            there, classes = torch.split(planes[:, :, self.coords :].softmax(2), sizes[2:], 2)
        elif self.softmax:
            classes = classes.softmax(2)
        elif not self.raw_classes:
            classes = classes.sigmoid()
        there = there if self.background else there.sigmoid()
        return torch.cat([xy.sigmoid(), rest, there, classes], 2).view(x.shape)

    def convert(self, ops: Operators, inputs: Sequence[Value], arrays: Arrays) -> Value:
        """[1, A*(5+K), H, W] -> the same."""
        (c, h, w), count, coords = self.out, len(self.anchors), self.coords
        planes = ops.reshape(inputs[0], count, c // count, h, w)
        classes = ops.slice(planes, 1, coords + 1, c // count)
        there = ops.slice(planes, 1, coords, coords + 1)
        if self.tree:
            classes = self.tree.convert(ops, classes, 1)
        elif self.softmax and self.background:
            shares = ops.op("Softmax", ops.slice(planes, 1, coords, c // count), axis=1)
            there, classes = ops.slice(shares, 1, 0, 1), ops.slice(shares, 1, 1, c // count - coords)
        elif self.softmax:
            classes = ops.op("Softmax", classes, axis=1)
        elif not self.raw_classes:
            classes = ops.op("Sigmoid", classes)
        there = there if self.background else ops.op("Sigmoid", there)
        xy, rest = ops.op("Sigmoid", ops.slice(planes, 1, 0, 2)), ops.slice(planes, 1, 2, coords)
        return ops.reshape(ops.concat([xy, rest, there, classes]), 1, *self.out)

    @property
    def trainable(self) -> bool:
        """Not in a hierarchy, with other coordinates or with a class for nothing: their losses aren't offered."""
        return self.tree is None and self.coords == 4 and not self.background

    @property
    def objectness(self) -> int:
        """Behind the coordinates, unless there is a class for nothing."""
        return -1 if self.background else self.coords

    def decode(self, output: Tensor, thresh: float) -> Detections:
        """get_region_box: centre in the cell, exp(w) of the anchor."""
        image, cell, anchor, values = self._gather(output, thresh)
        _, h, w = self.out
        centre = (values[:, :2] + cell) / values.new_tensor([w, h])
        size = values[:, 2:4].exp() * anchor
        classes = values[:, self.coords + 1 :]
        there = torch.ones_like(values[:, :1]) if self.background else values[:, self.coords, None]
        if self.tree:
            return self.detections(image, centre, size, self._found(self.tree, there, classes), thresh)
        return self.detections(image, centre, size, there * classes, thresh)

    def convert_boxes(self, ops: Operators, output: Value) -> tuple[Value, Value]:
        """As `decode`, but for a tree of classes."""
        if self.tree:
            raise UnconvertibleError("finds classes by a walk down a tree (tree)")
        rows = self.rows(ops, output)
        classes = ops.slice(rows, 2, self.coords + 1, self.coords + 1 + self.classes)
        sizes = self.sizes(ops, ops.op("Exp", ops.slice(rows, 2, 2, 4)))
        boxes = ops.concat([self.centres(ops, ops.slice(rows, 2, 0, 2)), sizes], 2)
        if self.background:
            return boxes, classes
        return boxes, ops.op("Mul", ops.slice(rows, 2, self.coords, self.coords + 1), classes)

    def _found(self, tree: Tree, there: Tensor, classes: Tensor) -> Tensor:
        """A probability for one class, 0 for others [M, K], of objectness [M, 1] and classes given their parents."""
        products = tree.products(classes)
        if self.walks:
            return F.one_hot(tree.walk(products, TREE_THRESH), self.classes) * there
        numbers = torch.arange(self.classes, device=classes.device)
        last = torch.where(products > TREE_THRESH, numbers, -1).amax(1, keepdim=True)
        return torch.where(numbers == last, products, torch.zeros_like(products))
