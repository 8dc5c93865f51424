"""Layers that keep the map's shape: [activation], [batchnorm], [normalization], [l2norm], [empty], [contrastive]."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yoloprune.darknet.declared import declared, number
from yoloprune.darknet.dialect import Dialect
from yoloprune.darknet.layers.activations import ACTIVATIONS, NOT_IN_CONNECTED, OPERATORS, activation
from yoloprune.darknet.layers.base import (
    Context,
    Keep,
    KeyNotes,
    Layer,
    TensorSpec,
    WithArrays,
    register,
)
from yoloprune.darknet.layers.norm import fold, normalize
from yoloprune.darknet.layers.specs import norm_specs
from yoloprune.darknet.operators import Arrays, Operators, Value
from yoloprune.darknet.options import Options


@register
@dataclass(frozen=True)
class Empty(Layer):
    """Does nothing (Darknet: parser.c)."""

    names: ClassVar[tuple[str, ...]] = ("empty", "silence")
    extended: ClassVar[bool] = True

    def convert(self, ops: Operators, inputs: Sequence[Value], arrays: Arrays) -> Value:
        """Passed on."""
        return inputs[0]


@register
@dataclass(frozen=True)
class Contrastive(Layer):
    """A loss on embeddings, which keep their size (Darknet: representation_layer.c); inference passes them on."""

    names: ClassVar[tuple[str, ...]] = ("contrastive",)
    key_notes: ClassVar[KeyNotes] = KeyNotes(
        "classes cls_normalizer contrastive_neg_max max_delta temperature yolo_layer"
    )
    extended: ClassVar[bool] = True
    keeps_all: ClassVar[bool] = True

    @property
    def trainable(self) -> bool:
        """Its loss isn't offered."""
        return False

    def convert(self, ops: Operators, inputs: Sequence[Value], arrays: Arrays) -> Value:
        """Passed on."""
        return inputs[0]


@register
@dataclass(frozen=True)
class Activation(Layer):
    """An activation alone (Darknet: activation_layer.c)."""

    activation: str = activation("linear", NOT_IN_CONNECTED)

    names: ClassVar[tuple[str, ...]] = ("activation",)
    reads_vectors: ClassVar[bool] = True

    def compute(self, x: Tensor, *others: Tensor) -> Tensor:
        """[B,C,H,W] -> the same."""
        return ACTIVATIONS[self.activation](x.clone())  # some work in place, and others may read x

    def convert(self, ops: Operators, inputs: Sequence[Value], arrays: Arrays) -> Value:
        """[1,C,H,W] -> the same."""
        return OPERATORS[self.activation](ops, inputs[0])


@register
@dataclass(frozen=True)
class Batchnorm(Layer):
    """Batch normalization alone (Darknet: batchnorm_layer.c)."""

    biased: bool = declared(lambda options, dialect, _: dialect.batchnorm_bias)
    """Whether it has a bias: pjreddie's stores none."""

    names: ClassVar[tuple[str, ...]] = ("batchnorm",)

    def tensors(self) -> tuple[TensorSpec, ...]:
        """bias, where there is one; scale, mean, variance; all [C]."""
        channels = self.source_shapes[0].c
        return *((TensorSpec("bias", (channels,)),) if self.biased else ()), *norm_specs(channels)

    def module(self, dialect: Dialect) -> nn.Module:
        """[B,C,H,W] -> the same."""
        return _Batchnorm(self, dialect)

    def array_index(self, inputs: Sequence[Keep], output: Keep) -> Mapping[str, tuple[Keep | None, ...]]:
        """The arrays of what stays."""
        return {spec.name: (output,) for spec in self.tensors()}

    def convert(self, ops: Operators, inputs: Sequence[Value], arrays: Arrays) -> Value:
        """[1,C,H,W] -> the same."""
        return ops.affine(inputs[0], arrays["weight"].reshape(1, -1, 1, 1), arrays["bias"].reshape(1, -1, 1, 1))


class _Batchnorm(WithArrays[Batchnorm]):
    scale: Tensor
    mean: Tensor
    variance: Tensor

    @property
    def momentum(self) -> float:
        """Share of a mini-batch in the running statistics."""
        return self.dialect.bn_momentum

    def forward(self, x: Tensor) -> Tensor:
        bias = self.bias if self.layer.biased else torch.zeros_like(self.scale)
        assert isinstance(bias, Tensor)
        if self.training:
            return normalize(x, self.scale, bias, self.mean, self.variance, self.dialect, self.momentum)
        factor, offset = fold(self.scale, bias, self.mean, self.variance, self.dialect)
        return x * factor.view(1, -1, 1, 1) + offset.view(1, -1, 1, 1)


@register
@dataclass(frozen=True)
class Normalization(Layer):
    """Local response normalization as Darknet sums it, which is not quite a window (normalization_layer.c)."""

    size: int
    alpha: float = number(1e-4)
    beta: float = number(0.75)
    kappa: float = number(1.0)

    names: ClassVar[tuple[str, ...]] = ("normalization", "lrn")
    keeps_all: ClassVar[bool] = True

    @classmethod
    def read(cls, options: Options, context: Context) -> Self:
        """Defaults as parse_normalization."""
        size = options.integer("size", 5, 1, 2 * context.shapes[context.previous].c)
        return cls.of(options, context, size=size)

    def compute(self, x: Tensor, *others: Tensor) -> Tensor:
        """[B,C,H,W] -> the same.

        The sum of squares of channel 0 is over channels below size/2; from one channel to the next one comes, one
        goes. So channel size/2 never comes, but goes all the same.
        """
        result: Tensor = x * (self.kappa + self.alpha * self._sums(x * x)) ** -self.beta
        return result

    def _sums(self, squares: Tensor) -> Tensor:
        """[B,C,H,W] -> the same."""
        ahead, behind = self.size // 2, (self.size - 1) // 2 + 1
        comes = F.pad(squares, (0, 0, 0, 0, 0, ahead))[:, ahead:]
        goes = F.pad(squares, (0, 0, 0, 0, behind, 0))[:, : squares.shape[1]]
        first = squares[:, :ahead].sum(1, keepdim=True)
        return torch.cat([first, (comes - goes)[:, 1:]], 1).cumsum(1)

    def convert(self, ops: Operators, inputs: Sequence[Value], arrays: Arrays) -> Value:
        """[1,C,H,W] -> the same; the sums by a 1x1 convolution, whose weight is what they make of single channels."""
        one_by_one = self._sums(torch.eye(self.out.c)[:, :, None, None])[..., 0, 0].T[:, :, None, None]
        x = inputs[0]
        sums = ops.conv(ops.op("Mul", x, x), one_by_one.numpy())
        return ops.op("Mul", x, ops.op("Pow", ops.affine(sums, self.alpha, self.kappa), -self.beta))


@register
@dataclass(frozen=True)
class L2norm(Layer):
    """Divides the channels at each place by the root of their squares' sum (Darknet: l2norm_layer.c)."""

    names: ClassVar[tuple[str, ...]] = ("l2norm",)
    classic: ClassVar[bool] = True
    keeps_all: ClassVar[bool] = True

    def compute(self, x: Tensor, *others: Tensor) -> Tensor:
        """[B,C,H,W] -> the same."""
        return x / x.square().sum(1, keepdim=True).sqrt()

    def convert(self, ops: Operators, inputs: Sequence[Value], arrays: Arrays) -> Value:
        """[1,C,H,W] -> the same."""
        return ops.op("Div", inputs[0], ops.op("ReduceL2", inputs[0], axes=[1], keepdims=1))
