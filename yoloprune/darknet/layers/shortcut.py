"""[shortcut] (Darknet: shortcut_layer.c)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from yoloprune.darknet.dialect import Dialect
from yoloprune.darknet.layers.activations import ACTIVATIONS, NOT_IN_SHORTCUT, OPERATORS, read_activation
from yoloprune.darknet.layers.base import (
    ChannelGraph,
    Context,
    Ids,
    Keep,
    KeyNotes,
    Layer,
    Shape,
    TensorSpec,
    WithArrays,
    register,
    same_size,
)
from yoloprune.darknet.operators import Arrays, Operators, UnconvertibleError, Value
from yoloprune.darknet.options import Options

_TYPES = ("none", "per_feature", "per_layer", "per_channel")
_NORMALIZATIONS = ("none", "relu", "avg_relu", "softmax")


@register
@dataclass(frozen=True)
class Shortcut(Layer):
    """Adds layers to the one before, channel by channel as far as both go (Darknet: shortcut_layer.c)."""

    activation: str
    alpha: float
    """Factor of the layer before, where something is added to it."""
    beta: float
    """Factor of what is added."""
    per_channel: bool
    """Whether there is a weight for each channel of each layer, not one for each layer."""
    normalization: str
    """How the weights of what is added together are made to add up to 1: relu or softmax; empty without weights."""

    names: ClassVar[tuple[str, ...]] = ("shortcut",)
    adds: ClassVar[bool] = True
    key_notes: ClassVar[KeyNotes] = KeyNotes(unknown_classic="weights_type weights_normalization")

    @classmethod
    def read(cls, options: Options, context: Context) -> Self:
        """`from` lists what to add; pjreddie takes one and knows alpha and beta."""
        values, scaled = options.integers("from"), context.dialect.shortcut_scaled
        activation = read_activation(options, "linear", context.dialect, NOT_IN_SHORTCUT)
        alpha, beta = (options.number(key, 1.0) if scaled else 1.0 for key in ("alpha", "beta"))
        weighted = options.choice("weights_type", "none", _TYPES)
        normalization = options.choice("weights_normalization", "none", _NORMALIZATIONS)
        if not values or (scaled and len(values) > 1):
            expected = "one layer" if scaled else "layers"
            raise options.error(f"expected from= with {expected} in dialect {context.dialect.name}", "from")
        if weighted != "none" and scaled:
            raise options.error(f"is unknown to dialect {context.dialect.name}", "weights_type")
        if weighted != "none" and normalization == "none":
            raise options.error("needs weights_normalization, relu or softmax", "weights_type")
        sources = (context.previous, *(context.source(options, "from", value) for value in values))
        shapes = tuple(context.shapes[source] for source in sources)
        if not scaled:
            same_size(options, shapes)
        elif not _commensurable(shapes[0], shapes[1]):
            raise options.error(f"expected sizes in one whole ratio, found {shapes[0]} and {shapes[1]}")
        return cls(
            index=context.index,
            sources=sources,
            source_shapes=shapes,
            activation=activation,
            alpha=alpha,
            beta=beta,
            per_channel=weighted == "per_channel",
            normalization="" if weighted == "none" else normalization.removeprefix("avg_"),
        )

    @property
    def trainable(self) -> bool:
        """Not with weights: Darknet's gradient isn't that of the normalization."""
        return not self.normalization

    def tensors(self) -> tuple[TensorSpec, ...]:
        """With weights: weight [layers], the layer before first, or [layers, C]."""
        shape = (len(self.sources), self.out.c) if self.per_channel else (len(self.sources),)
        return (TensorSpec("weight", shape, start=1.0),) if self.normalization else ()

    def array_index(self, inputs: Sequence[Keep], output: Keep) -> Mapping[str, tuple[Keep | None, ...]]:
        """The weights of what stays."""
        return {"weight": (None, output)} if self.per_channel else {}

    @property
    def adds_only(self) -> bool:
        """Two sources of one shape, no factors, no weights, no activation."""
        plain = self.activation == "linear" and self.alpha == self.beta == 1 and not self.normalization
        return plain and len(set(self.sources)) == len(self.sources) == 2 and len(set(self.source_shapes)) == 1

    @property
    def links(self) -> Mapping[str, tuple[int, ...]]:
        """`from`."""
        return {"from": self.sources[1:]}

    def module(self, dialect: Dialect) -> nn.Module:
        """[B,C,H,W], [B,C_i,H_i,W_i] ... -> [B,C,H,W]."""
        return _Shortcut(self, dialect)

    def convert(self, ops: Operators, inputs: Sequence[Value], arrays: Arrays) -> Value:
        """[1,C,H,W], [1,C_i,H_i,W_i] ... -> [1,C,H,W]."""
        x = inputs[0]
        if self.normalization:
            first, *rest = self.shares_of(torch.from_numpy(arrays["weight"])).numpy()
            x = ops.op("Mul", x, first[None])
        else:
            rest = [None] * len(inputs[1:])
        for other, theirs, share in zip(inputs[1:], self.source_shapes[1:], rest, strict=True):
            x = self._convert_added(ops, x, other, theirs, share)
        return OPERATORS[self.activation](ops, x)

    def _convert_added(
        self, ops: Operators, x: Value, other: Value, theirs: Shape, share: NDArray[np.float32] | None
    ) -> Value:
        """Adds what both have; share: factor of the other [C or 1, 1, 1]."""
        (c, h, w), stride = self.out, max(theirs.w // self.out.w, 1)
        if w > theirs.w or h > theirs.h:
            raise UnconvertibleError(f"adds {theirs} at some places of a larger map, {self.out}")
        both = min(c, theirs.c)
        for axis, stop in ((1, both), (2, (h - 1) * stride + 1), (3, (w - 1) * stride + 1)):
            if stop < theirs[axis - 1]:
                other = ops.slice(other, axis, 0, stop, 1 if axis == 1 else stride)
        factor = self.beta if share is None else share[None, :both]
        if share is not None or factor != 1:
            other = ops.op("Mul", other, factor)
        mine = x if both == c else ops.slice(x, 1, 0, both)
        if self.alpha != 1:
            mine = ops.op("Mul", mine, self.alpha)
        total = ops.op("Add", mine, other)
        return total if both == c else ops.concat([total, ops.slice(x, 1, both, c)])

    def shares_of(self, weight: Tensor) -> Tensor:
        """Weights over their sum [layers, C or 1, 1, 1] (blas.c shortcut_multilayer_cpu)."""
        size = weight.relu() if self.normalization == "relu" else (weight - weight.amax(0)).exp()
        return (size / (size.sum(0) + 1e-4)).view(len(size), -1, 1, 1)

    def channels(self, graph: ChannelGraph, inputs: Sequence[Ids]) -> Ids:
        """What is added is coupled to what it is added to."""
        first = inputs[0]
        for ids in inputs[1:]:
            both = min(len(first), len(ids))
            graph.couple(first[:both], ids[:both])
        return first

    def hazard(self, in_shapes: Mapping[int, Shape]) -> str | None:
        """AlexeyAB's fast path, for one layer and no weights, adds as much as that layer's input has.

        Where the output is narrower, it reads memory past the end.
        """
        source, shape = self.sources[-1], self.source_shapes[-1]
        fast = len(self.sources) == 2 and not self.normalization and in_shapes[source] == self.out
        if fast and shape.c < self.out.c:
            return f"AlexeyAB's Darknet reads past layer {source}: {shape.c} channels for {self.out.c}"
        return None


def _commensurable(a: Shape, b: Shape) -> bool:
    """Whether pjreddie's shortcut_cpu can map one size to the other (it asserts one ratio for both sides)."""
    return b.w // a.w == b.h // a.h and a.w // b.w == a.h // b.h


class _Shortcut(WithArrays[Shortcut]):
    weight: Tensor

    def forward(self, x: Tensor, *others: Tensor) -> Tensor:
        if self.layer.normalization:
            first, *rest = self.layer.shares_of(self.weight)
            common = [
                (other[:, : x.shape[1]], each[: other.shape[1]]) for other, each in zip(others, rest, strict=True)
            ]
            x, others = x * first, tuple(other * each for other, each in common)
        for other in others:
            if other.shape == x.shape and self.layer.alpha == 1 and self.layer.beta == 1:
                x = x + other
            else:
                x = self._added(x.clone(), other)
        return ACTIVATIONS[self.layer.activation](x)

    def _added(self, x: Tensor, other: Tensor) -> Tensor:
        """Adds the common channels, at every k-th place where one map is k times the other (blas.c shortcut_cpu)."""
        sample = max(x.shape[3] // other.shape[3], 1)
        stride = max(other.shape[3] // x.shape[3], 1)
        c, h, w = (min(a, b) for a, b in zip(x.shape[1:], other.shape[1:], strict=True))
        there = x[:, :c, : (h - 1) * sample + 1 : sample, : (w - 1) * sample + 1 : sample]
        added = other[:, :c, : (h - 1) * stride + 1 : stride, : (w - 1) * stride + 1 : stride]
        there.copy_(self.layer.alpha * there + self.layer.beta * added)
        return x
