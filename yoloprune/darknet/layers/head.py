"""Layers that end a network: [yolo], [region], [softmax], [logistic], [cost]."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yoloprune.darknet.dialect import Dialect
from yoloprune.darknet.layers.base import ChannelBook, Context, Ids, Layer, Shape, register, single
from yoloprune.darknet.layers.candidates import Candidates
from yoloprune.darknet.layers.tree import Tree
from yoloprune.darknet.options import Options

NMS_KINDS = ("default", "greedynms", "diounms", "cornersnms")
IOU_LOSSES = ("mse", "iou", "giou", "diou", "ciou")
IOU_KINDS = ("iou", "giou", "diou", "ciou")
TREE_THRESH = 0.5
"""How sure a walk down a tree of classes must be (`-hier`)."""


@dataclass(frozen=True)
class Head(Layer):
    """A layer whose output is the network's result; its inputs can't be pruned."""

    is_output: ClassVar[bool] = True

    @property
    def out(self) -> Shape:
        """As the input."""
        return self.source_shapes[0]

    def channels(self, book: ChannelBook, inputs: Sequence[Ids]) -> Ids:
        """All must stay."""
        book.freeze(inputs[0])
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
        box, cls = torch.where(probs > thresh)
        boxes = torch.cat([centre, size], 1)
        return Candidates(image[box], boxes[box], cls, probs[box, cls])


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
        extended = context.dialect.extended
        return cls(
            ignore_thresh=options.number("ignore_thresh", 0.5),
            truth_thresh=options.number("truth_thresh", 1.0),
            iou_thresh=options.number("iou_thresh", 1.0) if extended else 1.0,
            iou_thresh_kind=options.choice("iou_thresh_kind", "iou", IOU_KINDS) if extended else "iou",
            iou_loss=options.choice("iou_loss", "mse", IOU_LOSSES) if extended else "mse",
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
            random=options.number("random", 0, 0),
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
            nms_kind=options.choice("nms_kind", "default", NMS_KINDS) if extended else "default",
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


@dataclass(frozen=True)
class RegionTraining:
    """What only the loss of [region] reads (parse_region)."""

    thresh: float
    bias_match: bool
    """Whether a truth's anchor is the one whose own shape fits best, not the one whose prediction does."""
    rescore: bool
    """Whether objectness is to be the overlap instead of 1."""
    classfix: int
    """AlexeyAB: 1 or 2, classes are also taught where a box fits; -1, objectness is the overlap everywhere."""
    focal_loss: bool
    coord_scale: float
    object_scale: float
    noobject_scale: float
    class_scale: float
    max_truths: int
    jitter: float
    resize: float
    random: float

    @classmethod
    def read(cls, options: Options, context: Context) -> Self:
        """Defaults of the dialect."""
        extended = context.dialect.extended
        return cls(
            thresh=options.number("thresh", 0.5),
            bias_match=options.integer("bias_match", 0) != 0,
            rescore=options.integer("rescore", 0) != 0,
            classfix=options.integer("classfix", 0, -1, 2) if extended else 0,
            focal_loss=extended and options.integer("focal_loss", 0) != 0,
            coord_scale=options.number("coord_scale", 1.0),
            object_scale=options.number("object_scale", 1.0),
            noobject_scale=options.number("noobject_scale", 1.0),
            class_scale=options.number("class_scale", 1.0),
            max_truths=options.integer("max", context.dialect.max_truths if extended else 30, 1, 100000),
            jitter=options.number("jitter", 0.2, 0),
            resize=options.number("resize", 1.0, 0) if extended else 1.0,
            random=options.number("random", 0, 0),
        )


@register
@dataclass(frozen=True)
class Region(DetectionHead):
    """Anchors in cells, classes through softmax (Darknet: region_layer.c)."""

    coords: int
    """Planes before the objectness: x, y, w, h and what else a cell is asked for."""
    background: bool
    """Instead of an objectness there is one more class, for nothing."""
    tree: Tree | None
    """Classes stand in a hierarchy, and softmax is over its groups."""
    walks: bool
    """What a tree finds. True: where a walk down ends, as probable as the objectness (pjreddie). False: the last class
    that is over 1/2, as it is (AlexeyAB)."""
    softmax: bool
    raw_classes: bool
    """Without softmax: AlexeyAB leaves classes as they are, pjreddie takes the logistic."""
    training: RegionTraining

    names: ClassVar[tuple[str, ...]] = ("region",)

    @classmethod
    def read(cls, options: Options, context: Context) -> Self:
        """Defaults as parse_region: 20 classes, 1 anchor."""
        shape = context.shapes[context.previous]
        classes = options.integer("classes", 20, 1, 1000000)
        num = options.integer("num", 1, 1, 1000)
        coords = options.integer("coords", 4, 4, 1000)
        if coords != 4 and context.dialect.extended:
            raise options.error(f"is computed wrongly by dialect {context.dialect.name} (expected 4)", "coords")
        check_channels(options, shape, num, classes, coords + 1)
        return cls(
            index=context.index,
            sources=(context.previous,),
            source_shapes=(shape,),
            classes=classes,
            coords=coords,
            background=not context.dialect.extended and options.integer("background", 0) != 0,
            tree=Tree.read(options, classes),
            walks=not context.dialect.extended,
            anchors=tuple((w / shape.w, h / shape.h) for w, h in anchor_pairs(options, num)),
            nms_kind="default",
            beta_nms=0.6,
            softmax=options.integer("softmax", 0) != 0,
            raw_classes=context.dialect.extended,
            training=RegionTraining.read(options, context),
        )

    def module(self, dialect: Dialect) -> nn.Module:
        """[B, A*(5+K), H, W] -> the same planes as pjreddie's; x, y, objectness through the logistic, w and h raw.

        AlexeyAB stores them by cell instead and takes x and y through the logistic when it decodes: the same boxes.
        """
        return _Region(self)

    @property
    def objectness(self) -> int:
        """Behind the coordinates, unless there is a class for nothing."""
        return -1 if self.background else self.coords

    def decode(self, output: Tensor, thresh: float) -> Candidates:
        """get_region_box: centre in the cell, exp(w) of the anchor."""
        image, row, column, anchor, values = self._gather(output, thresh)
        _, h, w = self.out
        centre = (values[:, :2] + torch.stack([column, row], 1)) / values.new_tensor([w, h])
        size = values[:, 2:4].exp() * values.new_tensor(self.anchors)[anchor]
        classes = values[:, self.coords + 1 :]
        there = torch.ones_like(values[:, :1]) if self.background else values[:, self.coords, None]
        if self.tree:
            return self.candidates(image, centre, size, self._found(self.tree, there, classes), thresh)
        return self.candidates(image, centre, size, there * classes, thresh)

    def _found(self, tree: Tree, there: Tensor, classes: Tensor) -> Tensor:
        """A probability for one class, 0 for others [M, K], of objectness [M, 1] and classes given their parents."""
        products = tree.products(classes)
        if self.walks:
            return F.one_hot(tree.walk(products, TREE_THRESH), self.classes) * there
        numbers = torch.arange(self.classes, device=classes.device)
        last = torch.where(products > TREE_THRESH, numbers, -1).amax(1, keepdim=True)
        return torch.where(numbers == last, products, torch.zeros_like(products))


class _Region(nn.Module):
    def __init__(self, layer: Region) -> None:
        super().__init__()
        self.anchors, self.softmax, self.raw_classes = len(layer.anchors), layer.softmax, layer.raw_classes
        self.coords, self.background, self.tree = layer.coords, layer.background, layer.tree

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        planes = x.view(b, self.anchors, -1, h, w)
        others = [2, self.coords - 2, 1, planes.shape[2] - self.coords - 1]
        xy, rest, there, classes = torch.split(planes, others, 2)
        if self.tree:
            classes = self.tree.softmax(classes, 2)
        elif self.softmax and self.background:
            there, classes = torch.split(planes[:, :, self.coords :].softmax(2), others[2:], 2)
        elif self.softmax:
            classes = classes.softmax(2)
        elif not self.raw_classes:
            classes = classes.sigmoid()
        return torch.cat([xy.sigmoid(), rest, there if self.background else there.sigmoid(), classes], 2).view(
            b, c, h, w
        )


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
        noloss = options.integer("noloss", 0) != 0
        return cls(context.index, (context.previous,), (shape,), tree, groups, temperature, noloss)

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

    @classmethod
    def read(cls, options: Options, context: Context) -> Self:
        """Defaults as parse_cost."""
        kinds = ("sse", "masked", "smooth", "L1", "seg", "wgan")
        return cls(
            index=context.index,
            sources=(context.previous,),
            source_shapes=(context.shapes[context.previous],),
            type=options.choice("type", "sse", kinds),
            scale=options.number("scale", 1.0),
        )

    @property
    def out(self) -> Shape:
        """As the input."""
        return self.source_shapes[0]

    def module(self, dialect: Dialect) -> nn.Module:
        """[B,C,H,W] -> the same."""
        return nn.Identity()
