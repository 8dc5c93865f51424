"""Layers that keep the map's shape: [activation], [batchnorm], [normalization], [l2norm], [empty], [contrastive]."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yoloprune.darknet.dialect import Dialect
from yoloprune.darknet.layers.activations import ACTIVATIONS, NOT_IN_CONNECTED, read_activation
from yoloprune.darknet.layers.base import (
    ChannelGraph,
    Context,
    Ids,
    Keep,
    KeyNotes,
    Layer,
    Shape,
    Slices,
    TensorSpec,
    add_tensors,
    freeze,
    register,
    single,
)
from yoloprune.darknet.layers.norm import fold, normalize
from yoloprune.darknet.layers.specs import norm_specs
from yoloprune.darknet.options import Options


@dataclass(frozen=True)
class SameShape(Layer):
    """One output value for each input value."""

    @classmethod
    def read(cls, options: Options, context: Context) -> Self:
        """No options."""
        return cls(**single(context))

    @property
    def out(self) -> Shape:
        """As the input."""
        return self.source_shapes[0]

    def module(self, dialect: Dialect) -> nn.Module:
        """[B,C,H,W] -> the same."""
        return nn.Identity()


@register
@dataclass(frozen=True)
class Empty(SameShape):
    """Does nothing (Darknet: parser.c)."""

    names: ClassVar[tuple[str, ...]] = ("empty", "silence")
    extended: ClassVar[bool] = True


@register
@dataclass(frozen=True)
class Contrastive(SameShape):
    """A loss on embeddings (Darknet: representation_layer.c); at inference it passes on what it reads."""

    names: ClassVar[tuple[str, ...]] = ("contrastive",)
    key_notes: ClassVar[KeyNotes] = KeyNotes(
        "classes cls_normalizer contrastive_neg_max max_delta temperature yolo_layer"
    )
    extended: ClassVar[bool] = True

    @property
    def trainable(self) -> bool:
        """Its loss isn't offered."""
        return False

    def channels(self, graph: ChannelGraph, inputs: Sequence[Ids]) -> Ids:
        """An embedding keeps its size."""
        return freeze(graph, inputs[0])


@register
@dataclass(frozen=True)
class Activation(SameShape):
    """An activation alone (Darknet: activation_layer.c)."""

    activation: str

    names: ClassVar[tuple[str, ...]] = ("activation",)
    reads_vectors: ClassVar[bool] = True

    @classmethod
    def read(cls, options: Options, context: Context) -> Self:
        """Linear by default."""
        activation = read_activation(options, "linear", context.dialect, NOT_IN_CONNECTED)
        return cls(**single(context), activation=activation)

    def module(self, dialect: Dialect) -> nn.Module:
        """[B,C,H,W] -> the same."""
        return _Activation(self.activation)


class _Activation(nn.Module):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.activate = ACTIVATIONS[name]

    def forward(self, x: Tensor) -> Tensor:
        return self.activate(x.clone())  # some work in place, and others may read x


@register
@dataclass(frozen=True)
class Batchnorm(SameShape):
    """Batch normalization alone (Darknet: batchnorm_layer.c)."""

    biased: bool
    """Whether it has a bias: pjreddie's stores none."""

    names: ClassVar[tuple[str, ...]] = ("batchnorm",)

    @classmethod
    def read(cls, options: Options, context: Context) -> Self:
        """No options."""
        return cls(**single(context), biased=context.dialect.batchnorm_bias)

    def tensors(self) -> tuple[TensorSpec, ...]:
        """bias, where there is one; scale, mean, variance; all [C]."""
        channels = self.source_shapes[0].c
        return *((TensorSpec("bias", (channels,)),) if self.biased else ()), *norm_specs(channels)

    def module(self, dialect: Dialect) -> nn.Module:
        """[B,C,H,W] -> the same."""
        return _Batchnorm(self, dialect)

    def slices(self, inputs: Sequence[Keep], output: Keep) -> Slices:
        """The arrays of what stays."""
        return Slices(index={spec.name: (output,) for spec in self.tensors()})


class _Batchnorm(nn.Module):
    scale: Tensor
    mean: Tensor
    variance: Tensor

    def __init__(self, layer: Batchnorm, dialect: Dialect) -> None:
        super().__init__()
        add_tensors(self, layer.tensors())
        self.biased, self.dialect, self.momentum = layer.biased, dialect, dialect.bn_momentum

    def forward(self, x: Tensor) -> Tensor:
        bias = self.bias if self.biased else torch.zeros_like(self.scale)
        assert isinstance(bias, Tensor)
        if self.training:
            return normalize(x, self.scale, bias, self.mean, self.variance, self.dialect, self.momentum)
        factor, offset = fold(self.scale, bias, self.mean, self.variance, self.dialect)
        return x * factor.view(1, -1, 1, 1) + offset.view(1, -1, 1, 1)


@register
@dataclass(frozen=True)
class Normalization(SameShape):
    """Local response normalization as Darknet sums it, which is not quite a window (normalization_layer.c)."""

    size: int
    alpha: float
    beta: float
    kappa: float

    names: ClassVar[tuple[str, ...]] = ("normalization", "lrn")

    @classmethod
    def read(cls, options: Options, context: Context) -> Self:
        """Defaults as parse_normalization."""
        return cls(
            **single(context),
            size=options.integer("size", 5, 1, 2 * context.shapes[context.previous].c),
            alpha=options.number("alpha", 1e-4),
            beta=options.number("beta", 0.75),
            kappa=options.number("kappa", 1.0),
        )

    def module(self, dialect: Dialect) -> nn.Module:
        """[B,C,H,W] -> the same."""
        return _Normalization(self)

    def channels(self, graph: ChannelGraph, inputs: Sequence[Ids]) -> Ids:
        """Each channel looks at its neighbours."""
        return freeze(graph, inputs[0])


class _Normalization(nn.Module):
    """The sum of squares of channel 0 is over channels below size/2; from one channel to the next one comes, one goes.

    So channel size/2 never comes, but goes all the same.
    """

    def __init__(self, layer: Normalization) -> None:
        super().__init__()
        self.ahead, self.behind = layer.size // 2, (layer.size - 1) // 2 + 1
        self.alpha, self.beta, self.kappa = layer.alpha, layer.beta, layer.kappa

    def forward(self, x: Tensor) -> Tensor:
        squares = x * x
        comes = F.pad(squares, (0, 0, 0, 0, 0, self.ahead))[:, self.ahead :]
        goes = F.pad(squares, (0, 0, 0, 0, self.behind, 0))[:, : x.shape[1]]
        first = squares[:, : self.ahead].sum(1, keepdim=True)
        sums = torch.cat([first, (comes - goes)[:, 1:]], 1).cumsum(1)
        result: Tensor = x * (self.kappa + self.alpha * sums) ** -self.beta
        return result


@register
@dataclass(frozen=True)
class L2norm(SameShape):
    """Divides the channels at each place by the root of their squares' sum (Darknet: l2norm_layer.c)."""

    names: ClassVar[tuple[str, ...]] = ("l2norm",)
    classic: ClassVar[bool] = True

    def module(self, dialect: Dialect) -> nn.Module:
        """[B,C,H,W] -> the same."""
        return _L2norm()

    def channels(self, graph: ChannelGraph, inputs: Sequence[Ids]) -> Ids:
        """Each channel looks at all."""
        return freeze(graph, inputs[0])


class _L2norm(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / x.square().sum(1, keepdim=True).sqrt()
