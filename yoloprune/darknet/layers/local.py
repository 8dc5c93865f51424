"""[local]: a convolution with other weights at every place (Darknet: local_layer.c)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yoloprune.darknet.declared import integer
from yoloprune.darknet.dialect import Dialect
from yoloprune.darknet.layers.activations import ACTIVATIONS, NOT_IN_CONNECTED, OPERATORS, activation
from yoloprune.darknet.layers.base import (
    ChannelGraph,
    Context,
    Ids,
    Layer,
    Shape,
    TensorSpec,
    WithArrays,
    freeze,
    register,
)
from yoloprune.darknet.operators import Arrays, Operators, Value
from yoloprune.darknet.options import Options


@register
@dataclass(frozen=True)
class Local(Layer):
    """Bias and weights for each place of the output, then the activation."""

    filters: int = integer(1, 1)
    size: int = integer(1, 1, 1024)
    stride: int = integer(1, 1, 1024)
    pad: int = integer(0, 0, 1024)
    """Zeros on each side, whatever the size."""
    activation: str = activation("logistic", NOT_IN_CONNECTED)

    names: ClassVar[tuple[str, ...]] = ("local",)
    shown: ClassVar[Mapping[str, str]] = {"filters": "filters", "size": "size", "stride": "stride"}

    @classmethod
    def read(cls, options: Options, context: Context) -> Self:
        """Defaults as parse_local. Darknet sizes the output by one formula and the columns by another."""
        layer = cls.of(options, context)
        _, h, w = layer.source_shapes[0]
        places = tuple((side + 2 * layer.pad - layer.size) // layer.stride + 1 for side in (h, w))
        if places != layer.out[1:]:
            raise options.error(f"is computed wrongly with size={layer.size} by Darknet (expected size=3, or 0)", "pad")
        return layer

    @property
    def out(self) -> Shape:
        """[N, H', W'], H' = (H - 1) / stride + 1 with `pad`, else (H - size) / stride + 1."""
        _, h, w = self.source_shapes[0]
        reach = 1 if self.pad else self.size
        return Shape(self.filters, (h - reach) // self.stride + 1, (w - reach) // self.stride + 1)

    def tensors(self) -> tuple[TensorSpec, ...]:
        """bias [N, H', W']; weight [H'*W', N, C*k*k]."""
        inner = self.source_shapes[0].c * self.size**2
        weight = (self.out.h * self.out.w, self.filters, inner)
        return TensorSpec("bias", self.out), TensorSpec("weight", weight, bound=math.sqrt(2 / inner), decay=True)

    def module(self, dialect: Dialect) -> nn.Module:
        """[B,C,H,W] -> [B,N,H',W']."""
        return _Local(self, dialect)

    def convert(self, ops: Operators, inputs: Sequence[Value], arrays: Arrays) -> Value:
        """[1,C,H,W] -> [1,N,H',W']; what each place reads, as channels, by a convolution that only moves values."""
        (c, _, _), (n, h, w), size = self.source_shapes[0], self.out, self.size
        pick = np.tile(np.eye(size**2, dtype=np.float32).reshape(-1, 1, size, size), (c, 1, 1, 1))
        columns = ops.conv(inputs[0], pick, stride=(self.stride,) * 2, padding=self.pad, groups=c)
        by_place = ops.op("Transpose", ops.reshape(columns, c * size**2, h * w, 1), perm=[1, 0, 2])
        sums = ops.op("MatMul", arrays["weight"], by_place)
        maps = ops.reshape(ops.op("Transpose", sums, perm=[2, 1, 0]), 1, n, h, w)
        return OPERATORS[self.activation](ops, ops.op("Add", maps, arrays["bias"][None]))

    def channels(self, graph: ChannelGraph, inputs: Sequence[Ids]) -> Ids:
        """None is taken away on either side."""
        return freeze(graph, inputs[0], graph.new(self.filters, self.index))


class _Local(WithArrays[Local]):
    weight: Tensor
    bias: Tensor

    def forward(self, x: Tensor) -> Tensor:
        layer = self.layer
        columns = F.unfold(x, layer.size, 1, layer.pad, layer.stride)
        sums = torch.einsum("lnd,bdl->bnl", self.weight, columns)
        return ACTIVATIONS[layer.activation](sums.view(-1, *self.bias.shape) + self.bias)
