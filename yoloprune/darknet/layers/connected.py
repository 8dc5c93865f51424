"""[connected] (Darknet: connected_layer.c)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn

from yoloprune.darknet.declared import flag, integer
from yoloprune.darknet.dialect import Dialect
from yoloprune.darknet.layers.activations import NOT_IN_CONNECTED, OPERATORS, activation
from yoloprune.darknet.layers.affine import Affine
from yoloprune.darknet.layers.base import (
    ChannelGraph,
    Ids,
    Keep,
    Layer,
    Shape,
    TensorSpec,
    register,
)
from yoloprune.darknet.layers.specs import connected_specs
from yoloprune.darknet.operators import Arrays, Operators, Value


@register
@dataclass(frozen=True)
class Connected(Layer):
    """Fully connected layer over the flattened map, then batch norm, then the activation (parse_connected)."""

    output: int = integer(1, 1)
    batch_normalize: bool = flag()
    activation: str = activation("logistic", NOT_IN_CONNECTED)

    names: ClassVar[tuple[str, ...]] = ("connected", "conn")
    reads_vectors: ClassVar[bool] = True
    sums_channels: ClassVar[bool] = True
    shown: ClassVar[Mapping[str, str]] = {"filters": "output"}

    @property
    def out(self) -> Shape:
        """[output, 1, 1]."""
        return Shape(self.output, 1, 1)

    def tensors(self) -> tuple[TensorSpec, ...]:
        """bias [N]; weight [N, C*H*W]; scale, mean, variance [N] with batch norm."""
        return connected_specs(self.source_shapes[0].size, self.output, self.batch_normalize)

    def module(self, dialect: Dialect) -> nn.Module:
        """[B,C,H,W] -> [B,N,1,1]."""
        return _Connected(self, dialect)

    def convert(self, ops: Operators, inputs: Sequence[Value], arrays: Arrays) -> Value:
        """[1,C,H,W] -> [1,N,1,1]."""
        flat = ops.reshape(inputs[0], 1, self.source_shapes[0].size)
        sums = ops.op("Gemm", flat, arrays["weight"], arrays["bias"], transB=1)
        return OPERATORS[self.activation](ops, ops.reshape(sums, 1, self.output, 1, 1))

    def channels(self, graph: ChannelGraph, inputs: Sequence[Ids]) -> Ids:
        """New ids."""
        return graph.new(self.output, self.index)

    def counts(self, inputs: Sequence[int], output: int) -> Mapping[str, int]:
        """Fewer outputs."""
        return {"output": output}

    def array_index(self, inputs: Sequence[Keep], output: Keep) -> Mapping[str, tuple[Keep | None, ...]]:
        """By outputs; each channel in stands for H*W columns of the weight."""
        (shape,) = self.source_shapes
        index: dict[str, tuple[Keep | None, ...]] = {spec.name: (output,) for spec in self.tensors()}
        return {**index, "weight": (output, np.repeat(inputs[0], shape.h * shape.w))}

    @property
    def flops(self) -> int:
        """2 in out."""
        return 2 * self.source_shapes[0].size * self.output


class _Connected(Affine):
    def __init__(self, layer: Connected, dialect: Dialect) -> None:
        super().__init__(layer.tensors(), layer.batch_normalize, layer.activation, dialect, dialect.connected_momentum)

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(x.flatten(1), weight, bias)[:, :, None, None]

    def columns(self, x: Tensor) -> Tensor:
        return x.flatten(1).T[None]
