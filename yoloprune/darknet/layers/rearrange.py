"""Layers that move values about: [reorg], [reorg3d], [crop]."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from yoloprune.darknet.declared import flag, integer
from yoloprune.darknet.layers.base import ChannelGraph, Context, Ids, Layer, Shape, Vector, freeze, register, single
from yoloprune.darknet.operators import Arrays, Operators, Value
from yoloprune.darknet.options import Options


@dataclass(frozen=True)
class _Blocks(Layer):
    """Blocks of s x s places become channels, or with `reverse` channels become blocks."""

    extra: int
    """pjreddie: nothing is moved, but so many zeros follow the input as a vector."""
    stride: int = integer(1, 1, 64)
    reverse: bool = flag()

    shown: ClassVar[Mapping[str, str]] = {"stride": "stride"}

    @classmethod
    def read(cls, options: Options, context: Context) -> Self:
        """Defaults as parse_reorg: stride 1. What doesn't divide, Darknet writes out of bounds or scrambles."""
        if not context.dialect.extended:
            options.refuse({"flatten": 0}, "is not supported")
        extra = 0 if context.dialect.extended else options.integer("extra", 0, 0, 1 << 20)
        layer = cls.of(options, context, extra=extra)
        if not extra:
            layer.check(options)
        return layer

    def check(self, options: Options) -> None:
        """InputError unless the shape divides."""
        c, h, w = self.source_shapes[0]
        if self.reverse and c % self.stride**2:
            raise options.error(f"expected channels that stride*stride divides, found {c}", "stride")
        if not self.reverse and (h % self.stride or w % self.stride):
            raise options.error(f"must divide width and height (found {w}x{h})", "stride")

    @property
    def out(self) -> Shape:
        """[C*s*s, H/s, W/s], or the reverse."""
        c, h, w = self.source_shapes[0]
        s = self.stride
        if self.extra:
            return Vector(c * h * w + self.extra, 1, 1)
        return Shape(c // s**2, h * s, w * s) if self.reverse else Shape(c * s**2, h // s, w // s)

    def convert_blocks(self, ops: Operators, x: Value) -> Value:
        """Blocks to channels, or the reverse; ONNX has them in the same order."""
        if self.reverse:
            return ops.op("DepthToSpace", x, blocksize=self.stride, mode="DCR")
        return ops.op("SpaceToDepth", x, blocksize=self.stride)

    def forward_blocks(self, x: Tensor, c: int, h: int, w: int) -> Tensor:
        """Blocks of a map, taken for [B, c, h, w], to channels: [B, s*s*c, h/s, w/s]."""
        s = self.stride
        blocks = x.reshape(len(x), c, h // s, s, w // s, s).permute(0, 3, 5, 1, 2, 4)
        return blocks.reshape(len(x), s * s * c, h // s, w // s)

    def reversed_blocks(self, x: Tensor) -> Tensor:
        """Channels to blocks: [B,C,H,W] -> [B, C/s/s, H*s, W*s]."""
        (b, c, h, w), s = x.shape, self.stride
        parts = x.reshape(b, s, s, c // s**2, h, w).permute(0, 3, 4, 1, 5, 2)
        return parts.reshape(b, c // s**2, h * s, w * s)


@register
@dataclass(frozen=True)
class Reorg3d(_Blocks):
    """Channel k of the s*s*C comes from channel k % C, at place k / C of each block (AlexeyAB: reorg_layer.c)."""

    names: ClassVar[tuple[str, ...]] = ("reorg3d",)
    extended: ClassVar[bool] = True

    def compute(self, x: Tensor, *others: Tensor) -> Tensor:
        """[B,C,H,W] -> [B,C',H',W']."""
        return self.reversed_blocks(x) if self.reverse else self.forward_blocks(x, *x.shape[1:])

    def convert(self, ops: Operators, inputs: Sequence[Value], arrays: Arrays) -> Value:
        """[1,C,H,W] -> [1,C',H',W']."""
        return self.convert_blocks(ops, inputs[0])

    def channels(self, graph: ChannelGraph, inputs: Sequence[Ids]) -> Ids:
        """Each channel comes s*s times, at a distance of C; reversed, those that make one are coupled."""
        (ids,) = inputs
        if not self.reverse:
            return np.tile(ids, self.stride**2)
        parts = ids.reshape(self.stride**2, -1)
        graph.couple(*parts)
        return ids[: parts.shape[1]]


@register
@dataclass(frozen=True)
class Reorg(_Blocks):
    """As pjreddie's reorg_cpu has it: the input is taken for a map of another shape, so places and channels mix.

    AlexeyAB: reorg_old_layer.c. The reverse is that of [reorg3d].
    """

    names: ClassVar[tuple[str, ...]] = ("reorg",)

    def check(self, options: Options) -> None:
        """Channels must divide both ways."""
        super().check(options)
        if self.source_shapes[0].c % self.stride**2:
            raise options.error(f"expected channels that stride*stride divides, found {self.source_shapes[0].c}")

    def compute(self, x: Tensor, *others: Tensor) -> Tensor:
        """[B,C,H,W] -> [B,C',H',W']; read as if it were [C/s/s, H*s, W*s], rearranged, read as [C*s*s, H/s, W/s]."""
        if self.extra:
            return F.pad(x.flatten(1), (0, self.extra))[:, :, None, None]
        if self.reverse:
            return self.reversed_blocks(x)
        (_, c, h, w), s = x.shape, self.stride
        return self.forward_blocks(x, c // s**2, h * s, w * s).reshape(len(x), c * s**2, h // s, w // s)

    def convert(self, ops: Operators, inputs: Sequence[Value], arrays: Arrays) -> Value:
        """[1,C,H,W] -> [1,C',H',W']."""
        (x,), (c, h, w), s = inputs, self.source_shapes[0], self.stride
        if self.extra:
            flat = ops.reshape(x, 1, c * h * w, 1, 1)
            return ops.op("Concat", flat, np.zeros((1, self.extra, 1, 1), np.float32), axis=1)
        if self.reverse:
            return self.convert_blocks(ops, x)
        return ops.reshape(self.convert_blocks(ops, ops.reshape(x, 1, c // s**2, h * s, w * s)), 1, *self.out)

    def channels(self, graph: ChannelGraph, inputs: Sequence[Ids]) -> Ids:
        """Nothing can be followed."""
        return freeze(graph, inputs[0], graph.new(self.out.c, self.index))


@register
@dataclass(frozen=True)
class Crop(Layer):
    """The middle of the map, and 2x - 1 of it (Darknet: crop_layer.c). Training takes other parts, and mirrors."""

    height: int
    width: int
    adjust: bool

    names: ClassVar[tuple[str, ...]] = ("crop",)

    @classmethod
    def read(cls, options: Options, context: Context) -> Self:
        """Defaults as parse_crop: one place."""
        shape = context.shapes[context.previous]
        for key in ("flip", "angle", "saturation", "exposure", "shift"):
            options.training.number(key, 0)
        return cls(
            **single(context),
            height=options.integer("crop_height", 1, 1, shape.h),
            width=options.integer("crop_width", 1, 1, shape.w),
            adjust=options.integer("noadjust", 0) == 0,
        )

    @property
    def trainable(self) -> bool:
        """Not with its random parts."""
        return False

    @property
    def out(self) -> Shape:
        """[C, height, width]."""
        return Shape(self.source_shapes[0].c, self.height, self.width)

    def compute(self, x: Tensor, *others: Tensor) -> Tensor:
        """[B,C,H,W] -> [B,C,height,width]."""
        _, h, w = self.source_shapes[0]
        top, left = (h - self.height) // 2, (w - self.width) // 2
        part = x[:, :, top : top + self.height, left : left + self.width]
        return part * 2 - 1 if self.adjust else part

    def convert(self, ops: Operators, inputs: Sequence[Value], arrays: Arrays) -> Value:
        """[1,C,H,W] -> [1,C,height,width]."""
        _, h, w = self.source_shapes[0]
        top, left = (h - self.height) // 2, (w - self.width) // 2
        part = ops.slice(ops.slice(inputs[0], 2, top, top + self.height), 3, left, left + self.width)
        return ops.affine(part, 2.0, -1.0) if self.adjust else part
