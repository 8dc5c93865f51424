"""Layers that read several layers: [route], [scale_channels], [sam]; and [implicit], which reads none."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from yoloprune.darknet.declared import declared, integer, number
from yoloprune.darknet.dialect import Dialect
from yoloprune.darknet.layers.activations import ACTIVATIONS, NOT_IN_CONNECTED, OPERATORS, activation
from yoloprune.darknet.layers.base import (
    ChannelGraph,
    Context,
    Ids,
    Keep,
    KeyNotes,
    Layer,
    Shape,
    TensorSpec,
    WithArrays,
    register,
    same_size,
)
from yoloprune.darknet.operators import Arrays, Operators, Value
from yoloprune.darknet.options import Options


@register
@dataclass(frozen=True)
class Route(Layer):
    """Concatenates channels; with groups, the same slice of each input (Darknet: route_layer.c)."""

    groups: int
    group_id: int

    names: ClassVar[tuple[str, ...]] = ("route",)
    key_notes: ClassVar[KeyNotes] = KeyNotes(unread_extended="stream wait_stream", unknown_classic="groups group_id")
    reads_vectors: ClassVar[bool] = True

    @classmethod
    def read(cls, options: Options, context: Context) -> Self:
        """`layers` lists what to join; groups=1 and group_id=0 unless said."""
        values, groups = options.integers("layers"), options.integer("groups", 1, 1)
        group_id = options.integer("group_id", 0, 0, groups - 1)
        if not values:
            raise options.error("expected layers=, found none")
        sources = tuple(context.source(options, "layers", value) for value in values)
        shapes = tuple(context.shapes[source] for source in sources)
        same_size(options, shapes)
        if groups > 1 and not context.dialect.extended:
            raise options.error(f"is ignored by dialect {context.dialect.name}, which takes all channels", "groups")
        for source, shape in zip(sources, shapes, strict=True):
            if shape.c % groups:
                raise options.error(f"must divide the channels of layer {source} (found {shape.c})", "groups")
        return cls(
            index=context.index,
            sources=sources,
            source_shapes=shapes,
            groups=groups,
            group_id=group_id,
        )

    @property
    def out(self) -> Shape:
        """[sum of C / groups, H, W]."""
        return self.source_shapes[0]._replace(c=sum(shape.c for shape in self.source_shapes) // self.groups)

    @property
    def links(self) -> Mapping[str, tuple[int, ...]]:
        """`layers`."""
        return {"layers": self.sources}

    def compute(self, *inputs: Tensor) -> Tensor:
        """[B,C_i,H,W] ... -> [B,C,H,W]."""
        parts = [x.chunk(self.groups, 1)[self.group_id] for x in inputs] if self.groups > 1 else inputs
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)

    def convert(self, ops: Operators, inputs: Sequence[Value], arrays: Arrays) -> Value:
        """[1,C_i,H,W] ... -> [1,C,H,W]."""
        if self.groups == 1:
            return ops.concat(inputs)
        sizes = [shape.c // self.groups for shape in self.source_shapes]
        starts = [size * self.group_id for size in sizes]
        cut = zip(inputs, starts, sizes, strict=True)
        return ops.concat([ops.slice(x, 1, start, start + size) for x, start, size in cut])

    def channels(self, graph: ChannelGraph, inputs: Sequence[Ids]) -> Ids:
        """Concatenation; with groups, the parts of an input are coupled so that they stay equal."""
        by_group = [ids.reshape(self.groups, -1) for ids in inputs]
        for parts in by_group:
            graph.couple(*parts)
        return np.concatenate([parts[self.group_id] for parts in by_group])


@dataclass(frozen=True)
class _Product(Layer):
    """The layer before times that of `from`, then the activation."""

    activation: str = activation("linear", NOT_IN_CONNECTED)

    extended: ClassVar[bool] = True

    @property
    def links(self) -> Mapping[str, tuple[int, ...]]:
        """`from`."""
        return {"from": self.sources[1:]}

    def compute(self, *inputs: Tensor) -> Tensor:
        """[B,C,1,1] or [B,C,H,W], and [B,C,H,W] -> [B,C,H,W]."""
        scale, x = inputs
        return ACTIVATIONS[self.activation](x * scale)

    def convert(self, ops: Operators, inputs: Sequence[Value], arrays: Arrays) -> Value:
        """[1,C,1,1] or [1,C,H,W], and [1,C,H,W] -> [1,C,H,W]."""
        scale, x = inputs
        return OPERATORS[self.activation](ops, ops.op("Mul", x, scale))


@register
@dataclass(frozen=True)
class ScaleChannels(_Product):
    """Multiplies each channel of a map by a number (squeeze and excitation; Darknet: scale_channels_layer.c)."""

    scale_wh: bool = declared(lambda options, dialect, key: options.integer(key, 0, 0, 1) != 0)

    names: ClassVar[tuple[str, ...]] = ("scale_channels",)

    @classmethod
    def read(cls, options: Options, context: Context) -> Self:
        """`from` is the map; the layer before holds [C,1,1], or with scale_wh=1 [1,H,W]."""
        layer = cls.of(options, context)
        source = _from(options, context)
        scale, shape = context.shapes[context.previous], context.shapes[source]
        expected = Shape(1, shape.h, shape.w) if layer.scale_wh else Shape(shape.c, 1, 1)
        if scale != expected:
            raise options.error(f"expected {expected} from the layer before, found {scale}")
        return replace(layer, sources=(context.previous, source), source_shapes=(scale, shape))

    @property
    def out(self) -> Shape:
        """As the map."""
        return self.source_shapes[1]

    def channels(self, graph: ChannelGraph, inputs: Sequence[Ids]) -> Ids:
        """Numbers and channels are coupled; a single map that scales all of them must stay."""
        scale, ids = inputs
        if self.scale_wh:
            graph.freeze(scale)
        else:
            graph.couple(scale, ids)
        return ids


def _from(options: Options, context: Context) -> int:
    """The layer that `from` names."""
    value = options.integer("from", 0)
    if not options.has("from"):
        raise options.error("expected from=, found none")
    return context.source(options, "from", value)


@register
@dataclass(frozen=True)
class Sam(_Product):
    """Multiplies two maps of one shape (spatial attention; Darknet: sam_layer.c)."""

    names: ClassVar[tuple[str, ...]] = ("sam",)

    @classmethod
    def read(cls, options: Options, context: Context) -> Self:
        """`from` is the other map."""
        layer = cls.of(options, context)
        sources = (context.previous, _from(options, context))
        mine, other = (context.shapes[source] for source in sources)
        if mine != other:
            raise options.error(f"expected {mine} as the layer before has it, found {other}", "from")
        return replace(layer, sources=sources, source_shapes=(mine, other))

    def channels(self, graph: ChannelGraph, inputs: Sequence[Ids]) -> Ids:
        """What is multiplied is coupled."""
        graph.couple(*inputs)
        return inputs[0]


@register
@dataclass(frozen=True)
class Implicit(Layer):
    """Its own weights, whatever the image (Darknet: representation_layer.c, parse_implicit)."""

    filters: int = integer(128, 1)
    atoms: int = integer(1, 1)
    mean: float = number(0.0)
    std: float = number(0.2, 0)

    names: ClassVar[tuple[str, ...]] = ("implicit",)
    extended: ClassVar[bool] = True

    @property
    def out(self) -> Shape:
        """[filters, atoms, 1]."""
        return Shape(self.filters, self.atoms, 1)

    def tensors(self) -> tuple[TensorSpec, ...]:
        """weight [filters, atoms], at first a uniform draw of that mean and deviation."""
        shape = (self.filters, self.atoms)
        return (TensorSpec("weight", shape, start=self.mean, bound=self.std * math.sqrt(3), decay=True),)

    def module(self, dialect: Dialect) -> nn.Module:
        """[B,..] -> [B,filters,atoms,1]."""
        return _Implicit(self, dialect)

    def convert(self, ops: Operators, inputs: Sequence[Value], arrays: Arrays) -> Value:
        """[1,filters,atoms,1]."""
        return ops.op("Identity", arrays["weight"][None, :, :, None])

    def channels(self, graph: ChannelGraph, inputs: Sequence[Ids]) -> Ids:
        """New ids."""
        return graph.new(self.filters, self.index)

    def counts(self, inputs: Sequence[int], output: int) -> Mapping[str, int]:
        """Fewer filters."""
        return {"filters": output}

    def array_index(self, inputs: Sequence[Keep], output: Keep) -> Mapping[str, tuple[Keep | None, ...]]:
        """By filters."""
        return {"weight": (output, None)}


class _Implicit(WithArrays[Implicit]):
    weight: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return self.weight[None, :, :, None].expand(x.shape[0], -1, -1, 1)
