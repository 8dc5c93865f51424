"""Layers that make channels: [convolutional], [connected] (Darknet: convolutional_layer.c, connected_layer.c)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yoloprune.darknet.dialect import Dialect
from yoloprune.darknet.layers.activations import ACTIVATIONS, read_activation
from yoloprune.darknet.layers.base import ChannelBook, Context, Ids, Keep, Layer, Narrowed, Shape, TensorSpec, register
from yoloprune.darknet.layers.norm import fold, normalize
from yoloprune.darknet.options import Options

_STORED_OTHERWISE = {"flipped": 0.0, "dontload": 0.0, "dontloadscales": 0.0, "numload": 0.0, "dontsave": 0.0}
_COMPUTED_OTHERWISE = {
    "antialiasing": 0.0,
    "binary": 0.0,
    "xnor": 0.0,
    "sway": 0.0,
    "rotate": 0.0,
    "stretch": 0.0,
    "stretch_sway": 0.0,
    "deform": 0.0,
}


def _norm_specs(filters: int) -> tuple[TensorSpec, ...]:
    return (
        TensorSpec("scale", (filters,), start=1.0),
        TensorSpec("mean", (filters,), trained=False),
        TensorSpec("variance", (filters,), masked=1.0, trained=False, positive=True),
    )


@register
@dataclass(frozen=True)
class Convolutional(Layer):
    """Convolution, then batch normalization or a bias, then the activation."""

    filters: int
    size: int
    stride_x: int
    stride_y: int
    padding: int
    """Zeros on each side."""
    dilation: int
    groups: int
    batch_normalize: bool
    activation: str

    names: ClassVar[tuple[str, ...]] = ("convolutional", "conv")
    sums_channels: ClassVar[bool] = True

    @classmethod
    def read(cls, options: Options, context: Context) -> Self:
        """Defaults as parse_convolutional: one 1x1 filter, logistic."""
        options.refuse(_STORED_OTHERWISE | _COMPUTED_OTHERWISE, "is not supported")
        if options.has("share_index"):
            raise options.error("is not supported", "share_index")
        size = options.integer("size", 1, 1, 1024)
        stride = options.integer("stride", 1, 1, 1024)
        pad = options.integer("pad", 0)
        padding = options.integer("padding", 0, 0, 1024)
        stride_x = options.integer("stride_x", stride, 1, 1024)
        stride_y = options.integer("stride_y", stride, 1, 1024)
        dilation = options.integer("dilation", 1, 1, 1024) if size > 1 else 1
        if not context.dialect.extended and (stride_x, stride_y, dilation) != (stride, stride, 1):
            raise options.error(f"dilation, stride_x and stride_y are unknown to dialect {context.dialect.name}")
        shape = context.shapes[context.previous]
        layer = cls(
            index=context.index,
            sources=(context.previous,),
            source_shapes=(shape,),
            filters=options.integer("filters", 1, 1),
            size=size,
            stride_x=stride_x,
            stride_y=stride_y,
            padding=(size // 2 if pad else padding) * dilation,
            dilation=dilation,
            groups=options.integer("groups", 1, 1),
            batch_normalize=options.integer("batch_normalize", 0) != 0,
            activation=read_activation(options, "logistic", context.dialect),
        )
        if shape.c % layer.groups or layer.filters % layer.groups:
            found = f"{shape.c} and {layer.filters}"
            raise options.error(f"must divide both channels in and filters (found {found})", "groups")
        if size == 1 and not context.dialect.extended and (stride > 1 or layer.padding):
            why = "a 1x1 convolution with stride or padding is computed wrongly"
            raise options.error(f"{why} by dialect {context.dialect.name} (expected stride=1 and no padding)")
        return layer

    @property
    def out(self) -> Shape:
        """[N, H', W'] by Darknet's integer division."""
        (shape,) = self.source_shapes
        window = self.dilation * (self.size - 1) + 1
        height = (shape.h + 2 * self.padding - window) // self.stride_y + 1
        width = (shape.w + 2 * self.padding - window) // self.stride_x + 1
        return Shape(self.filters, height, width)

    def tensors(self) -> tuple[TensorSpec, ...]:
        """bias [N]; scale, mean, variance [N] with batch norm; weight [N, C/groups, k, k]."""
        shape = (self.filters, self.source_shapes[0].c // self.groups, self.size, self.size)
        bound = math.sqrt(2 / math.prod(shape[1:]))
        norm = _norm_specs(self.filters) if self.batch_normalize else ()
        return TensorSpec("bias", (self.filters,)), *norm, TensorSpec("weight", shape, bound=bound, decay=True)

    def module(self, dialect: Dialect) -> nn.Module:
        """[B,C,H,W] -> [B,N,H',W']."""
        return _Convolution(self, dialect)

    @property
    def depthwise(self) -> bool:
        """Each input channel makes its own outputs."""
        return self.groups > 1 and self.groups == self.source_shapes[0].c

    def channels(self, book: ChannelBook, inputs: Sequence[Ids]) -> Ids:
        """New ids. Depthwise: an input and its outputs are one; grouped: ties keep the groups equal."""
        (ids,) = inputs
        made = book.new(self.filters, self.index)
        if self.groups > 1:
            by_group = made.reshape(self.groups, -1)
            if self.depthwise:
                book.tie(ids, *by_group.T)
            else:
                book.tie(*ids.reshape(self.groups, -1))
                book.tie(*by_group)
        return made

    def narrow(self, inputs: Sequence[Keep], output: Keep) -> Narrowed:
        """Fewer filters; depthwise: fewer groups too."""
        (keep,) = inputs
        values = {"filters": int(output.sum())}
        if self.depthwise:
            values["groups"] = int(keep.sum())
            within = None
        else:
            within = keep.reshape(self.groups, -1)[0]
        index: dict[str, tuple[Keep | None, ...]] = {spec.name: (output,) for spec in self.tensors()}
        index["weight"] = (output, within, None, None)
        return Narrowed(values, index)

    @property
    def groups_summed(self) -> int:
        """The cfg's groups."""
        return self.groups

    @property
    def flops(self) -> int:
        """2 N k^2 (C/groups) H' W'."""
        inner = self.source_shapes[0].c // self.groups * self.size**2
        return 2 * inner * self.out.size

    def described(self) -> Mapping[str, Any]:
        """filters, size, stride."""
        return {"filters": self.filters, "size": self.size, "stride": self.stride_x}


@register
@dataclass(frozen=True)
class Connected(Layer):
    """Fully connected layer over the flattened map, then batch norm, then the activation."""

    outputs: int
    batch_normalize: bool
    activation: str

    names: ClassVar[tuple[str, ...]] = ("connected", "conn")
    sums_channels: ClassVar[bool] = True

    @classmethod
    def read(cls, options: Options, context: Context) -> Self:
        """Defaults as parse_connected: one output, logistic."""
        options.refuse(_STORED_OTHERWISE, "is not supported")
        return cls(
            index=context.index,
            sources=(context.previous,),
            source_shapes=(context.shapes[context.previous],),
            outputs=options.integer("output", 1, 1),
            batch_normalize=options.integer("batch_normalize", 0) != 0,
            activation=read_activation(options, "logistic", context.dialect),
        )

    @property
    def out(self) -> Shape:
        """[outputs, 1, 1]."""
        return Shape(self.outputs, 1, 1)

    def tensors(self) -> tuple[TensorSpec, ...]:
        """bias [N]; weight [N, C*H*W]; scale, mean, variance [N] with batch norm."""
        inputs = self.source_shapes[0].size
        weight = TensorSpec("weight", (self.outputs, inputs), bound=math.sqrt(2 / inputs), decay=True)
        norm = _norm_specs(self.outputs) if self.batch_normalize else ()
        return TensorSpec("bias", (self.outputs,)), weight, *norm

    def module(self, dialect: Dialect) -> nn.Module:
        """[B,C,H,W] -> [B,N,1,1]."""
        return _Connected(self, dialect)

    def channels(self, book: ChannelBook, inputs: Sequence[Ids]) -> Ids:
        """New ids."""
        return book.new(self.outputs, self.index)

    def narrow(self, inputs: Sequence[Keep], output: Keep) -> Narrowed:
        """Fewer outputs; each channel in stands for H*W columns."""
        (shape,) = self.source_shapes
        columns = np.repeat(inputs[0], shape.h * shape.w)
        index: dict[str, tuple[Keep | None, ...]] = {spec.name: (output,) for spec in self.tensors()}
        index["weight"] = (output, columns)
        return Narrowed({"output": int(output.sum())}, index)

    @property
    def flops(self) -> int:
        """2 in out."""
        return 2 * self.source_shapes[0].size * self.outputs

    def described(self) -> Mapping[str, Any]:
        """filters: the outputs."""
        return {"filters": self.outputs}


class Affine(nn.Module):
    """What convolution and connected share: tensors by name, folded batch norm at inference, activation."""

    bias: Tensor
    scale: Tensor
    mean: Tensor
    variance: Tensor
    weight: Tensor

    def __init__(self, layer: Convolutional | Connected, dialect: Dialect) -> None:
        super().__init__()
        for spec in layer.tensors():
            empty = torch.empty(spec.shape)
            if spec.trained:
                self.register_parameter(spec.name, nn.Parameter(empty))
            else:
                self.register_buffer(spec.name, empty)
        self.normalized = layer.batch_normalize
        self.activate = ACTIVATIONS[layer.activation]
        self.dialect = dialect
        self.momentum = dialect.connected_momentum if isinstance(layer, Connected) else dialect.bn_momentum

    def forward(self, x: Tensor) -> Tensor:
        if self.normalized and self.training:
            raw = self.linear(x, self.weight, None)
            statistics = (self.mean, self.variance)
            return self.activate(normalize(raw, self.scale, self.bias, *statistics, self.dialect, self.momentum))
        if self.normalized:
            factor, bias = fold(self.scale, self.bias, self.mean, self.variance, self.dialect)
            return self.activate(self.linear(x, self.weight * factor.view(-1, *[1] * (self.weight.dim() - 1)), bias))
        return self.activate(self.linear(x, self.weight, self.bias))

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The weighted sum alone: x [B,C,H,W] -> [B,N,H',W']."""
        raise NotImplementedError

    def columns(self, x: Tensor) -> Tensor:
        """What the weights multiply, zeros of the padding included: x [B,C,H,W] -> [groups, D, M] for M = B H' W'.

        With the weight as [groups, N/groups, D], `linear` is their product.
        """
        raise NotImplementedError


class _Convolution(Affine):
    def __init__(self, layer: Convolutional, dialect: Dialect) -> None:
        super().__init__(layer, dialect)
        self.stride = (layer.stride_y, layer.stride_x)
        self.padding = layer.padding
        self.dilation = layer.dilation
        self.groups = layer.groups

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)

    def columns(self, x: Tensor) -> Tensor:
        patches = F.unfold(x, self.weight.shape[2:], self.dilation, self.padding, self.stride)
        by_group = patches.view(x.shape[0], self.groups, -1, patches.shape[2])
        return by_group.permute(1, 2, 0, 3).flatten(2)


class _Connected(Affine):
    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(x.flatten(1), weight, bias)[:, :, None, None]

    def columns(self, x: Tensor) -> Tensor:
        return x.flatten(1).T[None]
