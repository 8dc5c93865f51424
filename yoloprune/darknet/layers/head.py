"""Layers that end a network: what heads share, [yolo], [softmax], [logistic], [cost]."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from yoloprune.darknet.dialect import Dialect
from yoloprune.darknet.layers.base import ChannelGraph, Context, Ids, Layer, Shape, Vector, register, single
from yoloprune.darknet.layers.candidates import Candidates
from yoloprune.darknet.layers.tree import Tree
from yoloprune.darknet.options import Options


@dataclass(frozen=True)
class Head(Layer):
    """A layer whose output is the network's result; its inputs can't be pruned."""

    is_output: ClassVar[bool] = True

    @property
    def out(self) -> Shape:
        """As the input."""
        return self.source_shapes[0]

    def channels(self, graph: ChannelGraph, inputs: Sequence[Ids]) -> Ids:
        """All must stay."""
        graph.freeze(inputs[0])
        return inputs[0]


@dataclass(frozen=True)
class DetectionHead(Head):
    """A head that gives boxes. Values of an anchor: x, y, w, h, objectness, then K classes, each a plane."""

    classes: int
    anchors: tuple[tuple[float, float], ...]
    """Width and height of this head's anchors, as fractions of the network's input."""
    nms_kind: str
    beta_nms: float

    @abstractmethod
    def decode(self, output: Tensor, thresh: float) -> Candidates:
        """Boxes of this head's activated output [B, A*(5+K), H, W], objectness and probability over `thresh`.

        In Darknet's order: image, cell by rows, anchor, class (get_yolo_detections, get_region_detections).
        """

    def scores(self, output: Tensor) -> Tensor:
        """What boxes are ranked by, of all anchors, classes and cells: objectness times class, [B, A*K*H*W]."""
        b, _, h, w = output.shape
        planes = output.view(b, len(self.anchors), -1, h, w)
        classes = planes[:, :, -self.classes :]
        return (classes if self.objectness < 0 else planes[:, :, self.objectness, None] * classes).flatten(1)

    def _gather(self, output: Tensor, thresh: float) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Image, row, column, anchor [M] and values [M, planes] of the cells with objectness over `thresh`."""
        b, _, h, w = output.shape
        cells = output.view(b, len(self.anchors), -1, h, w).permute(0, 3, 4, 1, 2)
        there = cells[..., self.objectness] > thresh if self.objectness >= 0 else torch.ones_like(cells[..., 0]) > 0
        image, row, column, anchor = torch.where(there)
        return image, row, column, anchor, cells[image, row, column, anchor]

    @property
    def objectness(self) -> int:
        """Number of the plane; -1: none, every cell counts."""
        return 4

    @staticmethod
    def candidates(image: Tensor, centre: Tensor, size: Tensor, probs: Tensor, thresh: float) -> Candidates:
        """Those of the pairs of M boxes and K classes [M, K] that are more probable than `thresh`."""
        pair, classes = torch.where(probs > thresh)
        some, box = torch.unique_consecutive(pair, return_inverse=True)
        boxes = torch.cat([centre, size], 1)
        return Candidates(image[some], boxes[some], box, classes, probs[pair, classes])


def check_channels(options: Options, shape: Shape, anchors: int, classes: int, others: int = 5) -> None:
    """InputError unless there are `classes` and `others` planes for each anchor."""
    expected = anchors * (others + classes)
    if shape.c != expected:
        found = f"({anchors} anchors of {classes} classes and {others}), found {shape.c}"
        raise options.error(f"expected filters={expected} before it {found}")


def anchor_pairs(options: Options, count: int) -> list[tuple[float, float]]:
    """`count` pairs; Darknet fills up with .5. What is too much is ignored (pjreddie writes past its array)."""
    values = list(options.numbers("anchors"))[: 2 * count]
    values += [0.5] * (2 * count - len(values))
    return list(zip(values[::2], values[1::2], strict=True))


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
            focal_loss=extended and options.integer("focal_loss", 0) != 0,
            objectness_smooth=extended and options.integer("objectness_smooth", 0) != 0,
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
        check_channels(options, shape, len(mask), classes)
        pixels = anchor_pairs(options, num)
        anchors = tuple((w / context.net_width, h / context.net_height) for w, h in pixels)
        return cls(
            index=context.index,
            sources=(context.previous,),
            source_shapes=(shape,),
            classes=classes,
            anchors=tuple(anchors[number] for number in mask),
            scale_x_y=options.number("scale_x_y", 1.0) if extended else 1.0,
            new_coords=extended and options.integer("new_coords", 0) != 0,
            nms_kind=options.choice("nms_kind", "default", *context.dialect.words["nms_kind"])
            if extended
            else "default",
            beta_nms=options.number("beta_nms", 0.6) if extended else 0.6,
            training=YoloTraining.read(options, context, anchors, mask),
        )

    def module(self, dialect: Dialect) -> nn.Module:
        """[B, A*(5+K), H, W] -> the same: x, y, objectness and classes through the logistic, w and h raw."""
        return _Yolo(self)

    def decode(self, output: Tensor, thresh: float) -> Candidates:
        """get_yolo_box: centre in the cell, exp(w) of the anchor, or with new_coords (2w)^2."""
        image, row, column, anchor, values = self._gather(output, thresh)
        _, h, w = self.out
        centre = (values[:, :2] + torch.stack([column, row], 1)) / values.new_tensor([w, h])
        factor = (2 * values[:, 2:4]) ** 2 if self.new_coords else values[:, 2:4].exp()
        size = factor * values.new_tensor(self.anchors)[anchor]
        return self.candidates(image, centre, size, values[:, 4:5] * values[:, 5:], thresh)


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


@register
@dataclass(frozen=True)
class Softmax(Head):
    """Class probabilities over the flattened map, in equal consecutive groups (Darknet: softmax_layer.c)."""

    tree: Tree | None
    """Softmax is over the groups of a hierarchy instead."""
    groups: int
    temperature: float
    noloss: bool
    """Whether training passes it over."""

    names: ClassVar[tuple[str, ...]] = ("softmax", "soft")
    reads_vectors: ClassVar[bool] = True

    @classmethod
    def read(cls, options: Options, context: Context) -> Self:
        """Defaults as parse_softmax: one group, temperature 1."""
        shape = context.shapes[context.previous]
        groups = options.integer("groups", 1, 1)
        if shape.size % groups:
            raise options.error(f"must divide the inputs (found {shape.size})", "groups")
        temperature = options.number("temperature", 1.0)
        if temperature <= 0:
            raise options.error("expected a value over 0", "temperature")
        tree = Tree.read(options, shape.size)
        noloss = options.training.integer("noloss", 0) != 0
        return cls(context.index, (context.previous,), (shape,), tree, groups, temperature, noloss)

    @property
    def trainable(self) -> bool:
        """Not in a hierarchy, whose loss isn't offered."""
        return self.tree is None

    @property
    def out(self) -> Shape:
        """As the input."""
        return Vector(*self.source_shapes[0])

    def module(self, dialect: Dialect) -> nn.Module:
        """[B,C,H,W] -> the same."""
        return _Softmax(self)

    def scores(self, output: Tensor) -> Tensor:
        """Of a tree only leaves are answers, each as probable as all on its way (hierarchy_predictions)."""
        return self.tree.leaves(output.flatten(1)) if self.tree else output.flatten(1)


class _Softmax(nn.Module):
    def __init__(self, layer: Softmax) -> None:
        super().__init__()
        self.tree, self.groups, self.temperature = layer.tree, layer.groups, layer.temperature

    def forward(self, x: Tensor) -> Tensor:
        if self.tree:
            return self.tree.softmax(x.flatten(1) / self.temperature, 1).view(x.shape)
        flat = x.reshape(x.shape[0], self.groups, -1) / self.temperature
        return flat.softmax(2).view(x.shape)


@register
@dataclass(frozen=True)
class Logistic(Head):
    """Class probabilities, each for itself (pjreddie: logistic_layer.c)."""

    names: ClassVar[tuple[str, ...]] = ("logistic",)
    reads_vectors: ClassVar[bool] = True
    classic: ClassVar[bool] = True

    @classmethod
    def read(cls, options: Options, context: Context) -> Self:
        """No options."""
        return cls(**single(context))

    def module(self, dialect: Dialect) -> nn.Module:
        """[B,C,H,W] -> the same."""
        return nn.Sigmoid()


@register
@dataclass(frozen=True)
class Cost(Layer):
    """The loss of a classifier; passes its input on (Darknet: cost_layer.c)."""

    type: str
    scale: float

    names: ClassVar[tuple[str, ...]] = ("cost",)
    reads_vectors: ClassVar[bool] = True

    @classmethod
    def read(cls, options: Options, context: Context) -> Self:
        """Defaults as parse_cost."""
        options = options.training
        return cls(
            index=context.index,
            sources=(context.previous,),
            source_shapes=(context.shapes[context.previous],),
            type=options.choice("type", "sse", *context.dialect.words["type"]),
            scale=options.number("scale", 1.0),
        )

    @property
    def out(self) -> Shape:
        """As the input."""
        return Vector(*self.source_shapes[0])

    def module(self, dialect: Dialect) -> nn.Module:
        """[B,C,H,W] -> the same."""
        return nn.Identity()
