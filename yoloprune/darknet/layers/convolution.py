"""[convolutional] (Darknet: convolutional_layer.c)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yoloprune.darknet.declared import flag, integer
from yoloprune.darknet.dialect import Dialect
from yoloprune.darknet.layers import fused
from yoloprune.darknet.layers.activations import MIXING, OPERATORS, activation
from yoloprune.darknet.layers.affine import Affine, State, same, state_of
from yoloprune.darknet.layers.base import (
    ChannelGraph,
    Context,
    Ids,
    Keep,
    KeyNotes,
    Layer,
    Shape,
    TensorSpec,
    register,
)
from yoloprune.darknet.layers.blur import blur, blurred, convert_blur
from yoloprune.darknet.layers.norm import fold
from yoloprune.darknet.layers.specs import convolution_specs
from yoloprune.darknet.operators import Arrays, Operators, UnconvertibleError, Value
from yoloprune.darknet.options import Options
from yoloprune.errors import InputError

_COMPUTED_OTHERWISE = dict.fromkeys(("sway", "rotate", "stretch", "stretch_sway", "deform"), 0.0)


@register
@dataclass(frozen=True)
class Convolutional(Layer):
    """Convolution, then batch normalization or a bias, then the activation."""

    size: int
    stride_x: int
    stride_y: int
    padding: int
    """Zeros on each side."""
    dilation: int
    owner: Convolutional | None
    """Whose arrays it computes with, where `share_index` names a layer."""
    filters: int = integer(1, 1)
    groups: int = integer(1, 1)
    batch_normalize: bool = flag()
    activation: str = activation("logistic")
    antialiasing: int = integer(0, 0, 2)
    """1 or 2: the stride is taken by a blur behind the activation instead (blur.py); 0: none."""
    xnor: bool = flag()
    """Weights and inputs are only signs, times the mean size of a filter's weights."""

    names: ClassVar[tuple[str, ...]] = ("convolutional", "conv")
    key_notes: ClassVar[KeyNotes] = KeyNotes(
        unread="binary dot",
        unread_extended="assisted_excitation cbn bin_output angle grad_centr reverse coordconv stream wait_stream",
        unknown_extended="deform",
        unknown_classic="dilation antialiasing stride_x stride_y",
    )
    sums_channels: ClassVar[bool] = True
    shown: ClassVar[Mapping[str, str]] = {"filters": "filters", "size": "size", "stride": "stride_x"}

    @classmethod
    def read(cls, options: Options, context: Context) -> Self:
        """Defaults as parse_convolutional: one 1x1 filter, logistic."""
        extended = context.dialect.extended
        if extended:
            options.refuse(_COMPUTED_OTHERWISE, "is not supported")
        size, stride = options.integer("size", 1, 1, 1024), options.integer("stride", 1, 1, 1024)
        padding = options.integer("padding", 0, 0, 1024)
        dilation = options.integer("dilation", 1, 1, 1024, when=size > 1)
        layer = cls.of(
            options,
            context,
            size=size,
            stride_x=options.integer("stride_x", stride, 1, 1024),
            stride_y=options.integer("stride_y", stride, 1, 1024),
            padding=(size // 2 if options.flag("pad") else padding) * dilation,
            dilation=dilation,
            owner=None,
        )
        more = (layer.stride_x, layer.stride_y, dilation, layer.antialiasing)
        if not extended and more != (stride, stride, 1, 0):
            keys = "dilation, antialiasing, stride_x and stride_y"
            raise options.error(f"{keys} are unknown to dialect {context.dialect.name}")
        (shape,) = layer.source_shapes
        if shape.c % layer.groups or layer.filters % layer.groups:
            found = f"{shape.c} and {layer.filters}"
            raise options.error(f"must divide both channels in and filters (found {found})", "groups")
        if layer.xnor and layer.groups > 1 and extended:
            raise options.error("expected groups=1 with xnor: Darknet takes it for 1", "groups")
        if size == 1 and not extended and (stride > 1 or layer.padding):
            why = "a 1x1 convolution with stride or padding is computed wrongly"
            raise options.error(f"{why} by dialect {context.dialect.name} (expected stride=1 and no padding)")
        return layer._sharing(options, context) if extended and options.has("share_index") else layer

    def _sharing(self, options: Options, context: Context) -> Self:
        """`share_index` points to a convolution of the same weights; what that one reads is coupled: a source too."""
        layer = context.layers[context.source(options, "share_index", options.integer("share_index", 0))]
        owner = layer.owner or layer if isinstance(layer, Convolutional) else None
        mine = (self.filters, self.source_shapes[0].c, self.groups, self.size, self.batch_normalize)
        if owner is None:
            raise options.error(f"expected a convolution, found {layer}", "share_index")
        theirs = (owner.filters, owner.source_shapes[0].c, owner.groups, owner.size, owner.batch_normalize)
        if mine != theirs:
            raise options.error("expected equal filters, channels, groups, size and batch_normalize", "share_index")
        return replace(
            self,
            sources=(*self.sources, owner.index, owner.sources[0]),
            source_shapes=(*self.source_shapes, owner.out, owner.source_shapes[0]),
            owner=owner,
        )

    @property
    def out(self) -> Shape:
        """[N, H', W'] by Darknet's integer division."""
        return blurred(self.sums, self.antialiasing, self.stride_x, self.stride_y)

    @property
    def allocated(self) -> Shape:
        """As before a blur."""
        return self.sums

    @property
    def sums(self) -> Shape:
        """Before the blur, if there is one; then it strides, not the convolution."""
        shape = self.source_shapes[0]
        window = self.dilation * (self.size - 1) + 1
        stride_y, stride_x = self._stride
        height = (shape.h + 2 * self.padding - window) // stride_y + 1
        width = (shape.w + 2 * self.padding - window) // stride_x + 1
        return Shape(self.filters, height, width)

    def tensors(self) -> tuple[TensorSpec, ...]:
        """bias [N]; scale, mean, variance [N] with batch norm; weight [N, C/groups, k, k]. Nothing if shared."""
        if self.owner:
            return ()
        return convolution_specs(self.source_shapes[0].c, self.filters, self.size, self.groups, self.batch_normalize)

    @property
    def trainable(self) -> bool:
        """Not through signs."""
        return not self.xnor

    @property
    def shares(self) -> int | None:
        """The layer of `share_index`."""
        return self.owner.index if self.owner else None

    @property
    def links(self) -> Mapping[str, tuple[int, ...]]:
        """`share_index`."""
        return {"share_index": (self.owner.index,)} if self.owner else {}

    def module(self, dialect: Dialect) -> nn.Module:
        """[B,C,H,W] -> [B,N,H',W']."""
        convolution = _SharedConvolution if self.owner else _XnorConvolution if self.xnor else _Convolution
        return convolution(self, dialect)

    def convert(self, ops: Operators, inputs: Sequence[Value], arrays: Arrays) -> Value:
        """[1,C,H,W] -> [1,N,H',W']."""
        if self.xnor:
            raise UnconvertibleError("computes with signs (xnor)")
        y = ops.conv(
            inputs[0],
            arrays["weight"],
            arrays["bias"],
            stride=self._stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
        )
        activated = OPERATORS[self.activation](ops, y)
        return convert_blur(ops, activated, self.filters, self.antialiasing, self.stride_x, self.stride_y)

    @property
    def _stride(self) -> tuple[int, int]:
        """Of the convolution, down and across: 1 where the blur takes it."""
        return (1, 1) if self.antialiasing else (self.stride_y, self.stride_x)

    @property
    def depthwise(self) -> bool:
        """Each input channel makes its own outputs."""
        return self.groups > 1 and self.groups == self.source_shapes[0].c

    def channels(self, graph: ChannelGraph, inputs: Sequence[Ids]) -> Ids:
        """New ids. Depthwise: an input and its outputs are one; grouped: coupled, so that the groups stay equal."""
        ids = inputs[0]
        made = graph.new(self.filters, self.index)
        if self.owner:
            graph.couple(made, inputs[1])
            graph.couple(ids, inputs[2])
        if self.xnor:
            graph.freeze(ids)  # a filter's mean is over all of its weights
        if self.activation in MIXING:
            graph.freeze(made)
        if self.groups > 1:
            by_group = made.reshape(self.groups, -1)
            if self.depthwise:
                graph.couple(ids, *by_group.T)
            else:
                graph.couple(*ids.reshape(self.groups, -1))
                graph.couple(*by_group)
        return made

    def counts(self, inputs: Sequence[int], output: int) -> Mapping[str, int]:
        """Fewer filters; depthwise: fewer groups too."""
        return {"filters": output, **({"groups": inputs[0]} if self.depthwise else {})}

    def array_index(self, inputs: Sequence[Keep], output: Keep) -> Mapping[str, tuple[Keep | None, ...]]:
        """By filters, the weight by channels of a group too."""
        within = None if self.depthwise else inputs[0].reshape(self.groups, -1)[0]
        index: dict[str, tuple[Keep | None, ...]] = {spec.name: (output,) for spec in self.tensors()}
        return {**index, "weight": (output, within, None, None)} if index else {}

    @property
    def groups_summed(self) -> int:
        """The cfg's groups."""
        return self.groups

    @property
    def flops(self) -> int:
        """2 N k^2 (C/groups) H' W'."""
        inner = self.source_shapes[0].c // self.groups * self.size**2
        return 2 * inner * self.sums.size


class _Convolution(Affine):
    def __init__(self, layer: Convolutional, dialect: Dialect) -> None:
        super().__init__(layer.tensors(), layer.batch_normalize, layer.activation, dialect, dialect.bn_momentum)
        self.stride = layer._stride
        self.padding, self.dilation, self.groups = layer.padding, layer.dilation, layer.groups
        self.activation = layer.activation
        self.one_pass = False
        """Whether `fused` computes it where it can."""
        self._packed: tuple[State, Tensor] | None = None
        self.blur = layer.antialiasing, layer.stride_x, layer.stride_y

    def forward(self, x: Tensor) -> Tensor:
        return blur(super().forward(x), *self.blur)

    def __getstate__(self) -> dict[str, Any]:
        """What a copy is made of: oneDNN's own tensors can't be copied."""
        return {**self.__dict__, "_packed": None}

    def activated(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        uncounted = weight is self.weight and weight.is_inference()  # PyTorch doesn't count its changes
        if not self.one_pass or uncounted or not fused.applies(x, self.activation):
            return super().activated(x, weight, bias)
        padding, dilation = (self.padding, self.padding), (self.dilation, self.dilation)
        geometry = (self.stride, padding, dilation, self.groups)
        state = state_of(weight)
        if self._packed is None or not same(self._packed[0], state):
            self._packed = state, fused.pack(weight, geometry, x.shape)
        return fused.convolution(x, self._packed[1], bias, geometry, self.activation)

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)

    def columns(self, x: Tensor) -> Tensor:
        kernel = tuple(self.weight.shape[2:])
        plain = kernel == self.stride == (1, 1) and not self.padding  # unfolding would copy, which takes its time
        patches = x.flatten(2) if plain else F.unfold(x, kernel, self.dilation, self.padding, self.stride)
        by_group = patches.view(x.shape[0], self.groups, -1, patches.shape[2])
        return by_group.permute(1, 2, 0, 3).flatten(2)


class _SharedConvolution(_Convolution):
    """Computes with the arrays of another module, which `Network` hands it; it registers none."""

    owners: tuple[Affine, ...] = ()

    def borrow(self, owner: nn.Module) -> None:
        """Use the arrays of `owner` from here on."""
        assert isinstance(owner, Affine)
        self.owners = (owner,)  # a tuple, so that it isn't a submodule: its arrays belong to one layer only

    def forward(self, x: Tensor, *_: Tensor) -> Tensor:
        return super().forward(x)

    def __getattr__(self, name: str) -> Any:
        if name in ("bias", "scale", "mean", "variance", "weight"):
            return getattr(self.owners[0], name)
        return super().__getattr__(name)


class _XnorConvolution(_Convolution):
    """Both signs count as sizes: an input is 1 or -1, a weight its filter's mean size (convolutional_layer.c)."""

    def __init__(self, layer: Convolutional, dialect: Dialect) -> None:
        if dialect.extended:
            why = "xnor is not supported in this dialect: its Darknet computes with bits, by other rules"
            raise InputError(f"{layer}: {why}")
        super().__init__(layer, dialect)

    def forward(self, x: Tensor) -> Tensor:
        factor, bias = (
            fold(self.scale, self.bias, self.mean, self.variance, self.dialect)
            if self.normalized
            else (torch.ones_like(self.bias), self.bias)
        )
        size = self.weight.abs().mean((1, 2, 3), keepdim=True) * factor.view(-1, 1, 1, 1)
        return self.activate(self.linear(_sign(x), _sign(self.weight) * size, bias))


def _sign(x: Tensor) -> Tensor:
    return (x > 0).to(x.dtype) * 2 - 1
