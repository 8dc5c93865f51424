"""Heads that give class probabilities: [softmax], [logistic] (Darknet: softmax_layer.c, logistic_layer.c)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from torch import Tensor, nn

from yoloprune.darknet.dialect import Dialect
from yoloprune.darknet.layers.base import Context, KeyNotes, Shape, Vector, register, single
from yoloprune.darknet.layers.head import Head
from yoloprune.darknet.layers.tree import Tree
from yoloprune.darknet.options import Options


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
    key_notes: ClassVar[KeyNotes] = KeyNotes("spatial")
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
        noloss = options.training.flag("noloss")
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
