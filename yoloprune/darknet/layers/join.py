"""Layers that read several layers: [route], [shortcut], [scale_channels]."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from yoloprune.darknet.dialect import Dialect
from yoloprune.darknet.layers.activations import ACTIVATIONS, read_activation
from yoloprune.darknet.layers.base import ChannelBook, Context, Ids, Layer, Shape, register, same_size
from yoloprune.darknet.options import Options


@register
@dataclass(frozen=True)
class Route(Layer):
    """Concatenates channels; with groups, the same slice of each input (Darknet: route_layer.c)."""

    groups: int
    group_id: int

    names: ClassVar[tuple[str, ...]] = ("route",)

    @classmethod
    def read(cls, options: Options, context: Context) -> Self:
        """`layers` lists what to join; groups=1 and group_id=0 unless said."""
        values = options.integers("layers")
        if not values:
            raise options.error("expected layers=, found none")
        sources = tuple(context.source(options, "layers", value) for value in values)
        shapes = tuple(context.shapes[source] for source in sources)
        same_size(options, shapes)
        groups = options.integer("groups", 1, 1)
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
            group_id=options.integer("group_id", 0, 0, groups - 1),
        )

    @property
    def out(self) -> Shape:
        """[sum of C / groups, H, W]."""
        first = self.source_shapes[0]
        return Shape(sum(shape.c for shape in self.source_shapes) // self.groups, first.h, first.w)

    @property
    def links(self) -> Mapping[str, tuple[int, ...]]:
        """`layers`."""
        return {"layers": self.sources}

    def module(self, dialect: Dialect) -> nn.Module:
        """[B,C_i,H,W] ... -> [B,C,H,W]."""
        return _Route(self)

    def channels(self, book: ChannelBook, inputs: Sequence[Ids]) -> Ids:
        """Concatenation; with groups, the parts of an input are tied so that they stay equal."""
        taken = []
        for ids in inputs:
            parts = ids.reshape(self.groups, -1)
            book.tie(*parts)
            taken.append(parts[self.group_id])
        return np.concatenate(taken)


class _Route(nn.Module):
    def __init__(self, layer: Route) -> None:
        super().__init__()
        self.groups, self.group_id = layer.groups, layer.group_id

    def forward(self, *inputs: Tensor) -> Tensor:
        parts = [x.chunk(self.groups, 1)[self.group_id] for x in inputs] if self.groups > 1 else list(inputs)
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


@register
@dataclass(frozen=True)
class Shortcut(Layer):
    """Adds layers to the one before, channel by channel as far as both go (Darknet: shortcut_layer.c)."""

    activation: str
    alpha: float
    """Factor of the layer before, where something is added to it."""
    beta: float
    """Factor of what is added."""

    names: ClassVar[tuple[str, ...]] = ("shortcut",)

    @classmethod
    def read(cls, options: Options, context: Context) -> Self:
        """`from` lists what to add; pjreddie takes one and knows alpha and beta."""
        values = options.integers("from")
        scaled = context.dialect.shortcut_scaled
        if not values or (scaled and len(values) > 1):
            expected = "one layer" if scaled else "layers"
            raise options.error(f"expected from= with {expected} in dialect {context.dialect.name}", "from")
        if options.text("weights_type", "none") != "none":
            raise options.error("is not supported (expected none)", "weights_type")
        sources = (context.previous, *(context.source(options, "from", value) for value in values))
        shapes = tuple(context.shapes[source] for source in sources)
        if not scaled:
            same_size(options, shapes)
        elif not _commensurable(shapes[0], shapes[1]):
            raise options.error(f"expected sizes in one whole ratio, found {shapes[0]} and {shapes[1]}")
        return cls(
            index=context.index,
            sources=sources,
            source_shapes=shapes,
            activation=read_activation(options, "linear", context.dialect),
            alpha=options.number("alpha", 1.0) if scaled else 1.0,
            beta=options.number("beta", 1.0) if scaled else 1.0,
        )

    @property
    def out(self) -> Shape:
        """As the layer before."""
        return self.source_shapes[0]

    @property
    def adds_only(self) -> bool:
        """Two sources of one shape, no factors, no activation."""
        plain = self.activation == "linear" and self.alpha == self.beta == 1
        return plain and len(set(self.sources)) == len(self.sources) == 2 and len(set(self.source_shapes)) == 1

    @property
    def links(self) -> Mapping[str, tuple[int, ...]]:
        """`from`."""
        return {"from": self.sources[1:]}

    def module(self, dialect: Dialect) -> nn.Module:
        """[B,C,H,W], [B,C_i,H_i,W_i] ... -> [B,C,H,W]."""
        return _Shortcut(self)

    def channels(self, book: ChannelBook, inputs: Sequence[Ids]) -> Ids:
        """What is added is tied to what it is added to."""
        first = inputs[0]
        for ids in inputs[1:]:
            both = min(len(first), len(ids))
            book.tie(first[:both], ids[:both])
        return first

    def hazard(self, in_shapes: Mapping[int, Shape]) -> str | None:
        """AlexeyAB's fast path looks at the from-layer's input, and adds memory past the end of a narrower output."""
        for source, shape in zip(self.sources[1:], self.source_shapes[1:], strict=True):
            if in_shapes[source] == self.out and shape.c < self.out.c:
                return f"AlexeyAB's Darknet reads past layer {source}: {shape.c} channels for {self.out.c}"
        return None


def _commensurable(a: Shape, b: Shape) -> bool:
    """Whether pjreddie's shortcut_cpu can map one size to the other (it asserts one ratio for both sides)."""
    return b.w // a.w == b.h // a.h and a.w // b.w == a.h // b.h


class _Shortcut(nn.Module):
    def __init__(self, layer: Shortcut) -> None:
        super().__init__()
        self.activate = ACTIVATIONS[layer.activation]
        self.alpha, self.beta = layer.alpha, layer.beta

    def forward(self, x: Tensor, *others: Tensor) -> Tensor:
        for other in others:
            if other.shape == x.shape and self.alpha == 1 and self.beta == 1:
                x = x + other
            else:
                x = self._added(x.clone(), other)
        return self.activate(x)

    def _added(self, x: Tensor, other: Tensor) -> Tensor:
        """Adds the common channels, at every k-th place where one map is k times the other (blas.c shortcut_cpu)."""
        sample = max(x.shape[3] // other.shape[3], 1)
        stride = max(other.shape[3] // x.shape[3], 1)
        c, h, w = (min(a, b) for a, b in zip(x.shape[1:], other.shape[1:], strict=True))
        there = x[:, :c, : (h - 1) * sample + 1 : sample, : (w - 1) * sample + 1 : sample]
        added = other[:, :c, : (h - 1) * stride + 1 : stride, : (w - 1) * stride + 1 : stride]
        there.copy_(self.alpha * there + self.beta * added)
        return x


@register
@dataclass(frozen=True)
class ScaleChannels(Layer):
    """Multiplies each channel of a map by a number (squeeze and excitation; Darknet: scale_channels_layer.c)."""

    scale_wh: bool
    activation: str

    names: ClassVar[tuple[str, ...]] = ("scale_channels",)
    extended: ClassVar[bool] = True

    @classmethod
    def read(cls, options: Options, context: Context) -> Self:
        """`from` is the map; the layer before holds [C,1,1], or with scale_wh=1 [1,H,W]."""
        if not options.has("from"):
            raise options.error("expected from=, found none")
        source = context.source(options, "from", options.integer("from", 0))
        scale, shape = context.shapes[context.previous], context.shapes[source]
        scale_wh = options.integer("scale_wh", 0, 0, 1) != 0
        expected = Shape(1, shape.h, shape.w) if scale_wh else Shape(shape.c, 1, 1)
        if scale != expected:
            raise options.error(f"expected {expected} from the layer before, found {scale}")
        activation = read_activation(options, "linear", context.dialect)
        if activation in ("swish", "mish"):
            raise options.error("Darknet can't use it in this section", "activation")
        return cls(context.index, (context.previous, source), (scale, shape), scale_wh, activation)

    @property
    def out(self) -> Shape:
        """As the map."""
        return self.source_shapes[1]

    @property
    def links(self) -> Mapping[str, tuple[int, ...]]:
        """`from`."""
        return {"from": self.sources[1:]}

    def module(self, dialect: Dialect) -> nn.Module:
        """[B,C,1,1], [B,C,H,W] -> [B,C,H,W]."""
        return _Scale(ACTIVATIONS[self.activation])

    def channels(self, book: ChannelBook, inputs: Sequence[Ids]) -> Ids:
        """Numbers and channels are tied; a single map that scales all of them must stay."""
        scale, ids = inputs
        if self.scale_wh:
            book.freeze(scale)
        else:
            book.tie(scale, ids)
        return ids

    def described(self) -> Mapping[str, Any]:
        """Nothing beside shapes."""
        return {}


class _Scale(nn.Module):
    def __init__(self, activate: Any) -> None:
        super().__init__()
        self.activate = activate

    def forward(self, scale: Tensor, x: Tensor) -> Tensor:
        result: Tensor = self.activate(x * scale)
        return result
