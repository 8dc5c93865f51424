"""Layers that change the map's size or nothing: [maxpool], [local_avgpool], [avgpool], [upsample], [dropout]."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yoloprune.darknet.dialect import Dialect
from yoloprune.darknet.layers.base import (
    ChannelGraph,
    Context,
    Ids,
    Keep,
    KeyNotes,
    Layer,
    Shape,
    Slices,
    freeze,
    register,
    single,
)
from yoloprune.darknet.layers.blur import Blur, blurred
from yoloprune.darknet.options import Options

_FLOAT_MIN = -3.4028234663852886e38  # -FLT_MAX, what Darknet pads with


@dataclass(frozen=True)
class _Windowed(Layer):
    """One value for each window of each channel."""

    size: int
    stride_x: int
    stride_y: int
    padding: int
    """In total, not on each side; the window starts padding/2 before the map."""

    @classmethod
    def window(cls, options: Options, context: Context) -> dict[str, Any]:
        """Defaults as parse_maxpool: stride 1, size = stride, padding = size-1."""
        stride = options.integer("stride", 1, 1, 1024)
        size = options.integer("size", stride, 1, 1024)
        return {
            **single(context),
            "size": size,
            "stride_x": options.integer("stride_x", stride, 1, 1024),
            "stride_y": options.integer("stride_y", stride, 1, 1024),
            "padding": options.integer("padding", size - 1, 0, 1024),
        }

    def pooled(self, stride_x: int, stride_y: int) -> Shape:
        """[C, H', W'], H' = (H + padding - size) / stride + 1."""
        c, h, w = self.source_shapes[0]
        reach = self.padding - self.size
        return Shape(c, (h + reach) // stride_y + 1, (w + reach) // stride_x + 1)

    @property
    def out(self) -> Shape:
        """[C, H', W']."""
        return self.pooled(self.stride_x, self.stride_y)

    def described(self) -> Mapping[str, Any]:
        """size, stride."""
        return {"size": self.size, "stride": self.stride_x}


def _border(layer: _Windowed, out: Shape, stride_x: int, stride_y: int) -> tuple[int, int, int, int]:
    """Left, right, top, bottom: what windows reach beyond the map, or if negative, fall short of it."""
    _, h, w = layer.source_shapes[0]
    before = layer.padding // 2
    after_w = (out.w - 1) * stride_x + layer.size - w - before
    after_h = (out.h - 1) * stride_y + layer.size - h - before
    return before, after_w, before, after_h


@register
@dataclass(frozen=True)
class Maxpool(_Windowed):
    """Largest value of a window, or with `maxpool_depth` of channels (Darknet: maxpool_layer.c)."""

    depth: int
    """Channels out with `maxpool_depth`: channel g is the largest of channels g, g+depth ... at each place; else 0."""
    antialiasing: int
    """As of a convolution: the blur behind takes the stride."""

    names: ClassVar[tuple[str, ...]] = ("maxpool", "max")
    key_notes: ClassVar[KeyNotes] = KeyNotes(
        unknown_classic="maxpool_zero_nonmax maxpool_depth out_channels stride_x stride_y antialiasing"
    )

    @classmethod
    def read(cls, options: Options, context: Context) -> Self:
        """Defaults as parse_maxpool. pjreddie's Darknet knows stride, size and padding only."""
        options.refuse({"maxpool_zero_nonmax": 0}, "is not supported")
        deep = options.flag("maxpool_depth")
        layer = cls(
            **cls.window(options, context),
            depth=options.integer("out_channels", 1, 1, when=deep) * deep,
            antialiasing=options.integer("antialiasing", 0, 0, 2),
        )
        stride = options.integer("stride", 1)
        if not context.dialect.extended and (layer.stride_x, layer.stride_y, layer.depth, layer.antialiasing) != (
            stride, stride, 0, 0,
        ):  # fmt: skip
            keys = "stride_x, stride_y, maxpool_depth and antialiasing"
            raise options.error(f"{keys} are unknown to dialect {context.dialect.name}")
        if layer.depth > layer.source_shapes[0].c:
            raise options.error(f"expected at most the channels in, {layer.source_shapes[0].c}", "out_channels")
        return layer

    @property
    def out(self) -> Shape:
        """[C, H', W'], or [depth, H, W]."""
        if self.depth:
            return self.source_shapes[0]._replace(c=self.depth)
        if self.antialiasing:
            return blurred(self.pooled(1, 1), self.antialiasing, self.stride_x, self.stride_y)
        return super().out

    @property
    def allocated(self) -> Shape:
        """As before a blur."""
        return self.pooled(1, 1) if self.antialiasing and not self.depth else self.out

    def module(self, dialect: Dialect) -> nn.Module:
        """[B,C,H,W] -> [B,C',H',W']."""
        if self.depth:
            return _Deepest(self.depth)
        return _Maxpool(self)

    def channels(self, graph: ChannelGraph, inputs: Sequence[Ids]) -> Ids:
        """They pass through; with `maxpool_depth`, those compared are tied, or frozen where the last are fewer."""
        (ids,) = inputs
        if not self.depth:
            return ids
        if len(ids) % self.depth:
            return freeze(graph, ids, graph.new(self.depth, self.index))
        compared = ids.reshape(-1, self.depth)
        graph.couple(*compared)
        return ids[: self.depth]

    def slices(self, inputs: Sequence[Keep], output: Keep) -> Slices:
        """Fewer `out_channels`, where the section has them."""
        return Slices({"out_channels": int(output.sum())} if self.depth else {})


class _Maxpool(nn.Module):
    def __init__(self, layer: Maxpool) -> None:
        super().__init__()
        stride_x, stride_y = (1, 1) if layer.antialiasing else (layer.stride_x, layer.stride_y)
        self.size, self.stride = layer.size, (stride_y, stride_x)
        _, h, w = layer.source_shapes[0]
        out = layer.pooled(stride_x, stride_y)
        self.border = _border(layer, out, stride_x, stride_y)
        before, after_w, _, after_h = self.border
        # torch pads by itself, faster, where both sides are equal and small; it also drops what no window reaches
        self.inner = before if max(after_h, after_w) <= before <= layer.size // 2 else 0
        self.exact = (
            self.inner == before
            and (h + 2 * before - layer.size) // stride_y + 1 == out.h
            and (w + 2 * before - layer.size) // stride_x + 1 == out.w
        )
        self.blur = Blur(layer.antialiasing, layer.stride_x, layer.stride_y) if layer.antialiasing else None

    def forward(self, x: Tensor) -> Tensor:
        if self.exact:
            y = F.max_pool2d(x, self.size, self.stride, self.inner)
        else:
            least = max(_FLOAT_MIN, torch.finfo(x.dtype).min)  # bfloat16 has not all of float32's numbers
            y = F.max_pool2d(F.pad(x, self.border, value=least), self.size, self.stride)
        return y if self.blur is None else self.blur(y)


class _Deepest(nn.Module):
    def __init__(self, depth: int) -> None:
        super().__init__()
        self.depth = depth

    def forward(self, x: Tensor) -> Tensor:
        parts = torch.split(x, self.depth, 1)
        whole = torch.stack(parts[: x.shape[1] // self.depth]).amax(0)
        last = parts[-1]
        if last.shape[1] == self.depth:
            return whole
        return torch.cat([torch.maximum(whole[:, : last.shape[1]], last), whole[:, last.shape[1] :]], 1)


@register
@dataclass(frozen=True)
class LocalAvgpool(_Windowed):
    """Mean of the values of a window that are on the map (Darknet: maxpool_layer.c forward_local_avgpool_layer)."""

    names: ClassVar[tuple[str, ...]] = ("local_avgpool", "local_avg")
    extended: ClassVar[bool] = True

    @classmethod
    def read(cls, options: Options, context: Context) -> Self:
        """Defaults as of [maxpool]; a window off the map, which has no mean, is refused."""
        layer = cls(**cls.window(options, context))
        if max(_border(layer, layer.out, layer.stride_x, layer.stride_y)) >= layer.size:
            raise options.error("expected windows that reach the map, not such", "padding")
        return layer

    def module(self, dialect: Dialect) -> nn.Module:
        """[B,C,H,W] -> [B,C,H',W']."""
        return _LocalMean(self)


class _LocalMean(nn.Module):
    def __init__(self, layer: LocalAvgpool) -> None:
        super().__init__()
        self.size, self.stride = layer.size, (layer.stride_y, layer.stride_x)
        self.border = _border(layer, layer.out, layer.stride_x, layer.stride_y)

    def forward(self, x: Tensor) -> Tensor:
        there = F.avg_pool2d(F.pad(torch.ones_like(x[:1, :1]), self.border), self.size, self.stride)
        return F.avg_pool2d(F.pad(x, self.border), self.size, self.stride) / there


@register
@dataclass(frozen=True)
class Avgpool(Layer):
    """Mean over the whole map (Darknet: avgpool_layer.c)."""

    names: ClassVar[tuple[str, ...]] = ("avgpool", "avg")

    @classmethod
    def read(cls, options: Options, context: Context) -> Self:
        """No options."""
        return cls(**single(context))

    @property
    def out(self) -> Shape:
        """[C, 1, 1]."""
        return Shape(self.source_shapes[0].c, 1, 1)

    def module(self, dialect: Dialect) -> nn.Module:
        """[B,C,H,W] -> [B,C,1,1]."""
        return _Mean()


class _Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3), keepdim=True)


@register
@dataclass(frozen=True)
class Upsample(Layer):
    """Repeats each value, or with a negative stride sums blocks (Darknet: upsample_layer.c)."""

    stride: int
    reverse: bool
    factor: float

    names: ClassVar[tuple[str, ...]] = ("upsample",)

    @classmethod
    def read(cls, options: Options, context: Context) -> Self:
        """Defaults as parse_upsample: stride 2, scale 1. What doesn't divide, Darknet sums by a wrong width."""
        stride = options.integer("stride", 2, -64, 64)
        if stride == 0:
            raise options.error("expected a stride other than 0", "stride")
        _, h, w = context.shapes[context.previous]
        if stride < 0 and (h % stride or w % stride):
            raise options.error(f"must divide width and height (found {w}x{h})", "stride")
        return cls(
            **single(context),
            stride=abs(stride),
            reverse=stride < 0,
            factor=options.number("scale", 1.0),
        )

    @property
    def out(self) -> Shape:
        """[C, H*stride, W*stride], or divided where the stride is negative."""
        c, h, w = self.source_shapes[0]
        if self.reverse:
            return Shape(c, h // self.stride, w // self.stride)
        return Shape(c, h * self.stride, w * self.stride)

    def module(self, dialect: Dialect) -> nn.Module:
        """[B,C,H,W] -> [B,C,H',W']."""
        return _Upsample(self)

    def described(self) -> Mapping[str, Any]:
        """stride."""
        return {"stride": -self.stride if self.reverse else self.stride}


class _Upsample(nn.Module):
    def __init__(self, layer: Upsample) -> None:
        super().__init__()
        self.stride, self.reverse, self.factor = layer.stride, layer.reverse, layer.factor

    def forward(self, x: Tensor) -> Tensor:
        if self.reverse:
            return F.avg_pool2d(x, self.stride) * (self.factor * self.stride**2)
        repeated = F.interpolate(x, scale_factor=self.stride, mode="nearest")
        return repeated if self.factor == 1 else repeated * self.factor


@register
@dataclass(frozen=True)
class Dropout(Layer):
    """Zeroes values at random when training, else nothing (Darknet: dropout_layer.c)."""

    probability: float
    dropblock: bool
    """Training drops blocks instead of values."""

    names: ClassVar[tuple[str, ...]] = ("dropout",)
    key_notes: ClassVar[KeyNotes] = KeyNotes(unread_extended="dropblock_size_rel dropblock_size_abs")
    reads_vectors: ClassVar[bool] = True

    @classmethod
    def read(cls, options: Options, context: Context) -> Self:
        """Default probability .2 in AlexeyAB, .5 in pjreddie."""
        if context.index == 0:
            raise options.error("expected a layer before it, found none (Darknet crashes)")
        options = options.training
        return cls(
            **single(context),
            probability=options.number("probability", 0.2 if context.dialect.extended else 0.5, 0, 1),
            dropblock=context.dialect.extended and options.flag("dropblock"),
        )

    @property
    def trainable(self) -> bool:
        """Not in blocks."""
        return not self.dropblock

    @property
    def out(self) -> Shape:
        """As the input."""
        return self.source_shapes[0]

    def module(self, dialect: Dialect) -> nn.Module:
        """[B,C,H,W] -> the same."""
        return nn.Dropout(self.probability)
