"""[cost], the loss of a classifier (Darknet: cost_layer.c)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from torch import nn

from yoloprune.darknet.dialect import Dialect
from yoloprune.darknet.layers.base import Context, KeyNotes, Layer, Shape, Vector, register
from yoloprune.darknet.options import Options


@register
@dataclass(frozen=True)
class Cost(Layer):
    """The loss of a classifier; passes its input on (Darknet: cost_layer.c)."""

    type: str
    scale: float

    names: ClassVar[tuple[str, ...]] = ("cost",)
    key_notes: ClassVar[KeyNotes] = KeyNotes("ratio", unread_classic="noobj thresh")
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
