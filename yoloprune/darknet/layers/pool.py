"""Layers that change the map's size or nothing: [maxpool], [local_avgpool], [avgpool], [upsample], [dropout]."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yoloprune.darknet.declared import flag, integer, number
from yoloprune.darknet.dialect import Dialect
from yoloprune.darknet.layers.base import ChannelGraph, Context, Ids, KeyNotes, Layer, Shape, freeze, register
from yoloprune.darknet.layers.blur import blur, blurred, convert_blur
from yoloprune.darknet.operators import Arrays, Operators, Value
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

    shown: ClassVar[Mapping[str, str]] = {"size": "size", "stride": "stride_x"}

    @classmethod
    def window(cls, options: Options) -> dict[str, int]:
        """Defaults as parse_maxpool: stride 1, size = stride, padding = size-1."""
        stride = options.integer("stride", 1, 1, 1024)
        size = options.integer("size", stride, 1, 1024)
        return {
            "size": size,
            "stride_x": options.integer("stride_x", stride, 1, 1024),
            "stride_y": options.integer("stride_y", stride, 1, 1024),
            "padding": options.integer("padding", size - 1, 0, 1024),
        }

    @property
    def strides(self) -> tuple[int, int]:
        """Of the windows, down and across."""
        return self.stride_y, self.stride_x

    @property
    def pooled(self) -> Shape:
        """[C, H', W'], H' = (H + padding - size) / stride + 1."""
        c, h, w = self.source_shapes[0]
        reach, (down, across) = self.padding - self.size, self.strides
        return Shape(c, (h + reach) // down + 1, (w + reach) // across + 1)

    @property
    def out(self) -> Shape:
        """[C, H', W']."""
        return self.pooled

    @cached_property
    def border(self) -> tuple[int, int, int, int]:
        """Left, right, top, bottom: what windows reach beyond the map, or if negative, fall short of it."""
        _, h, w = self.source_shapes[0]
        before, (down, across) = self.padding // 2, self.strides
        after_w = (self.pooled.w - 1) * across + self.size - w - before
        after_h = (self.pooled.h - 1) * down + self.size - h - before
        return before, after_w, before, after_h

    def windows(self, ops: Operators, x: Value, kind: str, outside: float, **attributes: Any) -> Value:
        """[1,C,H,W] -> [1,C,H',W'] by a pooling operator; one window more is never there where they fall short.

        outside: value beyond the map, where a window may lie there as a whole, which poolings don't allow.
        """
        left, right, top, bottom = (max(side, 0) for side in self.border)
        pads = [top, left, bottom, right]
        if max(pads) >= self.size:
            x = ops.op("Pad", x, np.array([0, 0, top, left, 0, 0, bottom, right], np.int64), outside, mode="constant")
            pads = [0] * 4
        window = {"kernel_shape": [self.size] * 2, "strides": list(self.strides), "pads": pads}
        return ops.op(kind, x, **window, **attributes)


@register
@dataclass(frozen=True)
class Maxpool(_Windowed):
    """Largest value of a window, or with `maxpool_depth` of channels (Darknet: maxpool_layer.c)."""

    out_channels: int
    """With `maxpool_depth`, else 0: channel g out is the largest of channels g, g+out_channels ... at each place."""
    antialiasing: int = integer(0, 0, 2)
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
        out_channels = options.integer("out_channels", 1, 1, when=deep) * deep
        layer = cls.of(options, context, **cls.window(options), out_channels=out_channels)
        stride = options.integer("stride", 1)
        more = (layer.stride_x, layer.stride_y, layer.out_channels, layer.antialiasing)
        if not context.dialect.extended and more != (stride, stride, 0, 0):
            keys = "stride_x, stride_y, maxpool_depth and antialiasing"
            raise options.error(f"{keys} are unknown to dialect {context.dialect.name}")
        if layer.out_channels > layer.source_shapes[0].c:
            raise options.error(f"expected at most the channels in, {layer.source_shapes[0].c}", "out_channels")
        return layer

    @property
    def strides(self) -> tuple[int, int]:
        """Of the windows: 1 where the blur takes the stride."""
        return (1, 1) if self.antialiasing else super().strides

    @property
    def out(self) -> Shape:
        """[C, H', W'], or [out_channels, H, W]."""
        if self.out_channels:
            return self.source_shapes[0]._replace(c=self.out_channels)
        return blurred(self.pooled, self.antialiasing, self.stride_x, self.stride_y)

    @property
    def allocated(self) -> Shape:
        """As before a blur."""
        return self.out if self.out_channels else self.pooled

    @cached_property
    def _inner(self) -> int | None:
        """Padding by which torch pads by itself, faster; None where windows aren't those of Darknet then.

        It must be equal on both sides and small; torch also drops what no window reaches.
        """
        _, h, w = self.source_shapes[0]
        before, after_w, _, after_h = self.border
        down, across = self.strides
        reached = tuple((side + 2 * before - self.size) // step + 1 for side, step in ((h, down), (w, across)))
        inner = before if max(after_h, after_w) <= before <= self.size // 2 else 0
        return inner if inner == before and reached == self.pooled[1:] else None

    def compute(self, x: Tensor, *others: Tensor) -> Tensor:
        """[B,C,H,W] -> [B,C',H',W']."""
        if self.out_channels:
            return _deepest(x, self.out_channels)
        if self._inner is not None:
            y = F.max_pool2d(x, self.size, self.strides, self._inner)
        else:
            least = max(_FLOAT_MIN, torch.finfo(x.dtype).min)  # bfloat16 has not all of float32's numbers
            y = F.max_pool2d(F.pad(x, self.border, value=least), self.size, self.strides)
        return blur(y, self.antialiasing, self.stride_x, self.stride_y)

    def convert(self, ops: Operators, inputs: Sequence[Value], arrays: Arrays) -> Value:
        """[1,C,H,W] -> [1,C',H',W']."""
        if self.out_channels:
            return self._convert_deepest(ops, inputs[0])
        y = self.windows(ops, inputs[0], "MaxPool", _FLOAT_MIN)
        return convert_blur(ops, y, self.pooled.c, self.antialiasing, self.stride_x, self.stride_y)

    def _convert_deepest(self, ops: Operators, x: Value) -> Value:
        """[1,C,H,W] -> [1,out_channels,H,W]."""
        c, depth = self.source_shapes[0].c, self.out_channels
        parts = [ops.slice(x, 1, start, min(start + depth, c)) for start in range(0, c, depth)]
        last = c % depth
        if not last:
            return ops.op("Max", *parts) if len(parts) > 1 else parts[0]
        whole = ops.op("Max", *parts[:-1]) if len(parts) > 2 else parts[0]
        both = ops.op("Max", ops.slice(whole, 1, 0, last), parts[-1])
        return ops.concat([both, ops.slice(whole, 1, last, depth)])

    def channels(self, graph: ChannelGraph, inputs: Sequence[Ids]) -> Ids:
        """They pass through; with `maxpool_depth`, those compared are coupled, or frozen where the last are fewer."""
        (ids,) = inputs
        if not self.out_channels:
            return ids
        if len(ids) % self.out_channels:
            return freeze(graph, ids, graph.new(self.out_channels, self.index))
        graph.couple(*ids.reshape(-1, self.out_channels))
        return ids[: self.out_channels]

    def counts(self, inputs: Sequence[int], output: int) -> Mapping[str, int]:
        """`out_channels`, where the section has them."""
        return {"out_channels": output} if self.out_channels else {}


def _deepest(x: Tensor, depth: int) -> Tensor:
    """The largest of channels g, g+depth ... [B,C,H,W] -> [B,depth,H,W]."""
    parts = torch.split(x, depth, 1)
    whole = torch.stack(parts[: x.shape[1] // depth]).amax(0)
    last = parts[-1]
    if last.shape[1] == depth:
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
        layer = cls.of(options, context, **cls.window(options))
        if max(layer.border) >= layer.size:
            raise options.error("expected windows that reach the map, not such", "padding")
        return layer

    def compute(self, x: Tensor, *others: Tensor) -> Tensor:
        """[B,C,H,W] -> [B,C,H',W']."""
        there = F.avg_pool2d(F.pad(torch.ones_like(x[:1, :1]), self.border), self.size, self.strides)
        return F.avg_pool2d(F.pad(x, self.border), self.size, self.strides) / there

    def convert(self, ops: Operators, inputs: Sequence[Value], arrays: Arrays) -> Value:
        """[1,C,H,W] -> [1,C,H',W']."""
        return self.windows(ops, inputs[0], "AveragePool", 0.0, count_include_pad=0)


@register
@dataclass(frozen=True)
class Avgpool(Layer):
    """Mean over the whole map (Darknet: avgpool_layer.c)."""

    names: ClassVar[tuple[str, ...]] = ("avgpool", "avg")

    @property
    def out(self) -> Shape:
        """[C, 1, 1]."""
        return Shape(self.source_shapes[0].c, 1, 1)

    def compute(self, x: Tensor, *others: Tensor) -> Tensor:
        """[B,C,H,W] -> [B,C,1,1]."""
        return x.mean((2, 3), keepdim=True)

    def convert(self, ops: Operators, inputs: Sequence[Value], arrays: Arrays) -> Value:
        """[1,C,H,W] -> [1,C,1,1]."""
        return ops.op("GlobalAveragePool", inputs[0])


@register
@dataclass(frozen=True)
class Upsample(Layer):
    """Repeats each value, or with a negative stride sums blocks (Darknet: upsample_layer.c)."""

    stride: int = integer(2, -64, 64)
    """Negative: of the blocks."""
    scale: float = number(1.0)

    names: ClassVar[tuple[str, ...]] = ("upsample",)
    shown: ClassVar[Mapping[str, str]] = {"stride": "stride"}

    @classmethod
    def read(cls, options: Options, context: Context) -> Self:
        """Defaults as parse_upsample: stride 2, scale 1. What doesn't divide, Darknet sums by a wrong width."""
        layer = cls.of(options, context)
        stride, (_, h, w) = layer.stride, layer.source_shapes[0]
        if stride == 0:
            raise options.error("expected a stride other than 0", "stride")
        if stride < 0 and (h % stride or w % stride):
            raise options.error(f"must divide width and height (found {w}x{h})", "stride")
        return layer

    @property
    def out(self) -> Shape:
        """[C, H*stride, W*stride], or divided where the stride is negative."""
        c, h, w = self.source_shapes[0]
        if self.stride < 0:
            return Shape(c, h // -self.stride, w // -self.stride)
        return Shape(c, h * self.stride, w * self.stride)

    def compute(self, x: Tensor, *others: Tensor) -> Tensor:
        """[B,C,H,W] -> [B,C,H',W']."""
        if self.stride < 0:
            return F.avg_pool2d(x, -self.stride) * (self.scale * self.stride**2)
        repeated = F.interpolate(x, scale_factor=self.stride, mode="nearest")
        return repeated if self.scale == 1 else repeated * self.scale

    def convert(self, ops: Operators, inputs: Sequence[Value], arrays: Arrays) -> Value:
        """[1,C,H,W] -> [1,C,H',W']."""
        x, scale, side = inputs[0], self.scale, abs(self.stride)
        if self.stride < 0:
            x, scale = ops.op("AveragePool", x, kernel_shape=[side] * 2, strides=[side] * 2), scale * side**2
        else:
            x = ops.repeat(x, side)
        return x if scale == 1 else ops.op("Mul", x, scale)


@register
@dataclass(frozen=True)
class Dropout(Layer):
    """Zeroes values at random when training, else nothing (Darknet: dropout_layer.c)."""

    probability: float = number(lambda dialect: 0.2 if dialect.extended else 0.5, 0, 1, trains=True)
    dropblock: bool = flag(extended=True, trains=True)
    """Training drops blocks instead of values."""

    names: ClassVar[tuple[str, ...]] = ("dropout",)
    key_notes: ClassVar[KeyNotes] = KeyNotes(unread_extended="dropblock_size_rel dropblock_size_abs")
    reads_vectors: ClassVar[bool] = True

    @classmethod
    def read(cls, options: Options, context: Context) -> Self:
        """Not as the first layer."""
        if context.index == 0:
            raise options.error("expected a layer before it, found none (Darknet crashes)")
        return cls.of(options, context)

    @property
    def trainable(self) -> bool:
        """Not in blocks."""
        return not self.dropblock

    def module(self, dialect: Dialect) -> nn.Module:
        """[B,C,H,W] -> the same."""
        return nn.Dropout(self.probability)

    def convert(self, ops: Operators, inputs: Sequence[Value], arrays: Arrays) -> Value:
        """Passed on."""
        return inputs[0]
