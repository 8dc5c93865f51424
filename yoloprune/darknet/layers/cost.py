"""[cost], the loss of a classifier (Darknet: cost_layer.c)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from yoloprune.darknet.declared import choice, number
from yoloprune.darknet.layers.base import KeyNotes, Layer, Shape, Vector, register
from yoloprune.darknet.operators import Arrays, Operators, Value


@register
@dataclass(frozen=True)
class Cost(Layer):
    """The loss of a classifier; passes its input on (Darknet: cost_layer.c, parse_cost)."""

    type: str = choice("sse", trains=True)
    scale: float = number(1.0, trains=True)

    names: ClassVar[tuple[str, ...]] = ("cost",)
    key_notes: ClassVar[KeyNotes] = KeyNotes("ratio", unread_classic="noobj thresh")
    reads_vectors: ClassVar[bool] = True

    @property
    def out(self) -> Shape:
        """As the input."""
        return Vector(*self.source_shapes[0])

    def convert(self, ops: Operators, inputs: Sequence[Value], arrays: Arrays) -> Value:
        """Passed on."""
        return inputs[0]
