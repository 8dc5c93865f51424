"""Layers that change the map's size or nothing: [maxpool], [avgpool], [upsample], [dropout]."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch.nn.functional as F
from torch import Tensor, nn

from yoloprune.darknet.dialect import Dialect
from yoloprune.darknet.layers.base import Context, Layer, Shape, register
from yoloprune.darknet.options import Options

_FLOAT_MIN = -3.4028234663852886e38  # -FLT_MAX, what Darknet pads with


@register
@dataclass(frozen=True)
class Maxpool(Layer):
    """Largest value of a window (Darknet: maxpool_layer.c)."""

    size: int
    stride: int
    padding: int
    """In total, not on each side; the window starts padding/2 before the map."""

    names: ClassVar[tuple[str, ...]] = ("maxpool", "max")

    @classmethod
    def read(cls, options: Options, context: Context) -> Self:
        """Defaults as parse_maxpool: stride 1, size = stride, padding = size-1."""
        stride = options.integer("stride", 1, 1, 1024)
        options.refuse(
            {"maxpool_depth": 0, "maxpool_zero_nonmax": 0, "antialiasing": 0, "stride_x": stride, "stride_y": stride},
            "is not supported",
        )
        size = options.integer("size", stride, 1, 1024)
        return cls(
            index=context.index,
            sources=(context.previous,),
            source_shapes=(context.shapes[context.previous],),
            size=size,
            stride=stride,
            padding=options.integer("padding", size - 1, 0, 1024),
        )

    @property
    def out(self) -> Shape:
        """[C, H', W'], H' = (H + padding - size) / stride + 1."""
        c, h, w = self.source_shapes[0]
        return Shape(
            c, (h + self.padding - self.size) // self.stride + 1, (w + self.padding - self.size) // self.stride + 1
        )

    def module(self, dialect: Dialect) -> nn.Module:
        """[B,C,H,W] -> [B,C,H',W']."""
        return _Maxpool(self)

    def described(self) -> Mapping[str, Any]:
        """size, stride."""
        return {"size": self.size, "stride": self.stride}


class _Maxpool(nn.Module):
    def __init__(self, layer: Maxpool) -> None:
        super().__init__()
        self.size, self.stride = layer.size, layer.stride
        before = layer.padding // 2
        (_, h, w), (_, out_h, out_w) = layer.source_shapes[0], layer.out
        after_h = (out_h - 1) * layer.stride + layer.size - h - before
        after_w = (out_w - 1) * layer.stride + layer.size - w - before
        # torch pads by itself, faster, where both sides are equal and small; it also drops what no window reaches
        self.inner = before if max(after_h, after_w) <= before <= layer.size // 2 else 0
        self.exact = (
            self.inner == before
            and (h + 2 * before - layer.size) // layer.stride + 1 == out_h
            and (w + 2 * before - layer.size) // layer.stride + 1 == out_w
        )
        self.border = (before, after_w, before, after_h)

    def forward(self, x: Tensor) -> Tensor:
        if self.exact:
            return F.max_pool2d(x, self.size, self.stride, self.inner)
        return F.max_pool2d(F.pad(x, self.border, value=_FLOAT_MIN), self.size, self.stride)


@register
@dataclass(frozen=True)
class Avgpool(Layer):
    """Mean over the whole map (Darknet: avgpool_layer.c)."""

    names: ClassVar[tuple[str, ...]] = ("avgpool", "avg")

    @classmethod
    def read(cls, options: Options, context: Context) -> Self:
        """No options."""
        return cls(context.index, (context.previous,), (context.shapes[context.previous],))

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
        """Defaults as parse_upsample: stride 2, scale 1."""
        stride = options.integer("stride", 2, -64, 64)
        if stride == 0:
            raise options.error("expected a stride other than 0", "stride")
        return cls(
            index=context.index,
            sources=(context.previous,),
            source_shapes=(context.shapes[context.previous],),
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

    names: ClassVar[tuple[str, ...]] = ("dropout",)

    @classmethod
    def read(cls, options: Options, context: Context) -> Self:
        """Default probability .2 in AlexeyAB, .5 in pjreddie."""
        if context.index == 0:
            raise options.error("expected a layer before it, found none (Darknet crashes)")
        options.refuse({"dropblock": 0}, "is not supported")
        return cls(
            index=context.index,
            sources=(context.previous,),
            source_shapes=(context.shapes[context.previous],),
            probability=options.number("probability", 0.2 if context.dialect.extended else 0.5, 0, 1),
        )

    @property
    def out(self) -> Shape:
        """As the input."""
        return self.source_shapes[0]

    def module(self, dialect: Dialect) -> nn.Module:
        """[B,C,H,W] -> the same."""
        return nn.Dropout(self.probability)
