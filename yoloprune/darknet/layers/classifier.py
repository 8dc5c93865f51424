"""Heads that give class probabilities: [softmax], [logistic] (Darknet: softmax_layer.c, logistic_layer.c)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

from torch import Tensor

from yoloprune.darknet.declared import flag, integer, number
from yoloprune.darknet.layers.base import Context, KeyNotes, Shape, Vector, register
from yoloprune.darknet.layers.head import Head
from yoloprune.darknet.layers.tree import Tree
from yoloprune.darknet.operators import Arrays, Operators, Value
from yoloprune.darknet.options import Options


@register
@dataclass(frozen=True)
class Softmax(Head):
    """Class probabilities over the flattened map, in equal consecutive groups (Darknet: softmax_layer.c)."""

    tree: Tree | None
    """Softmax is over the groups of a hierarchy instead."""
    groups: int = integer(1, 1)
    temperature: float = number(1.0)
    noloss: bool = flag(trains=True)
    """Whether training passes it over."""

    names: ClassVar[tuple[str, ...]] = ("softmax", "soft")
    key_notes: ClassVar[KeyNotes] = KeyNotes("spatial")
    reads_vectors: ClassVar[bool] = True

    @classmethod
    def read(cls, options: Options, context: Context) -> Self:
        """Defaults as parse_softmax: one group, temperature 1."""
        size = context.shapes[context.previous].size
        layer = cls.of(options, context, tree=Tree.read(options, size))
        if size % layer.groups:
            raise options.error(f"must divide the inputs (found {size})", "groups")
        if layer.temperature <= 0:
            raise options.error("expected a value over 0", "temperature")
        return layer

    @property
    def trainable(self) -> bool:
        """Not in a hierarchy, whose loss isn't offered."""
        return self.tree is None

    @property
    def out(self) -> Shape:
        """As the input."""
        return Vector(*self.source_shapes[0])

    def compute(self, x: Tensor, *others: Tensor) -> Tensor:
        """[B,C,H,W] -> the same."""
        if self.tree:
            return self.tree.softmax(x.flatten(1) / self.temperature, 1).view(x.shape)
        flat = x.reshape(x.shape[0], self.groups, -1) / self.temperature
        return flat.softmax(2).view(x.shape)

    def convert(self, ops: Operators, inputs: Sequence[Value], arrays: Arrays) -> Value:
        """[1,C,H,W] -> the same."""
        flat = ops.reshape(inputs[0], self.groups, -1)
        scaled = flat if self.temperature == 1 else ops.op("Mul", flat, 1 / self.temperature)
        shares = self.tree.convert(ops, scaled, 1) if self.tree else ops.op("Softmax", scaled, axis=1)
        return ops.reshape(shares, 1, *self.out)

    def scores(self, output: Tensor) -> Tensor:
        """Of a tree only leaves are answers, each as probable as all on its way (hierarchy_predictions)."""
        return self.tree.leaves(output.flatten(1)) if self.tree else output.flatten(1)


@register
@dataclass(frozen=True)
class Logistic(Head):
    """Class probabilities, each for itself (pjreddie: logistic_layer.c)."""

    names: ClassVar[tuple[str, ...]] = ("logistic",)
    reads_vectors: ClassVar[bool] = True
    classic: ClassVar[bool] = True

    def compute(self, x: Tensor, *others: Tensor) -> Tensor:
        """[B,C,H,W] -> the same."""
        return x.sigmoid()

    def convert(self, ops: Operators, inputs: Sequence[Value], arrays: Arrays) -> Value:
        """[1,C,H,W] -> the same."""
        return ops.op("Sigmoid", inputs[0])
