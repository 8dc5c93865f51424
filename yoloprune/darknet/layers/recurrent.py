"""[rnn], [gru], [lstm]: one step from a fresh state, which is 0 (Darknet: rnn_layer.c, gru_layer.c, lstm_layer.c).

That is what the first network_predict after loading gives. Darknet keeps the state for the next call; here every image
of a batch is a first one.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, NoReturn, Self, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yoloprune.darknet.declared import declared, flag
from yoloprune.darknet.dialect import Dialect
from yoloprune.darknet.layers.activations import ACTIVATIONS, NOT_IN_CONNECTED, activation
from yoloprune.darknet.layers.base import (
    ChannelGraph,
    Context,
    Ids,
    Layer,
    Shape,
    TensorSpec,
    Vector,
    WithArrays,
    freeze,
    register,
)
from yoloprune.darknet.layers.norm import fold
from yoloprune.darknet.layers.specs import connected_specs
from yoloprune.darknet.operators import Arrays, Operators, UnconvertibleError, Value
from yoloprune.darknet.options import Options


def _outputs(options: Options) -> int:
    return options.integer("output", 1, 1, 1 << 16)


@dataclass(frozen=True, kw_only=True)
class Recurrent(Layer):
    """Fully connected parts on the flattened input and on a state of `hidden` values."""

    hidden: int
    parts: tuple[str, ...]
    """Names of the parts in disk order; those that start with u read the input, the others the state."""
    outputs: int = declared(lambda options, dialect, _: _outputs(options))
    batch_normalize: bool = flag()

    reads_vectors: ClassVar[bool] = True
    shown: ClassVar[Mapping[str, str]] = {"filters": "outputs"}

    @property
    def out(self) -> Shape:
        """[outputs, 1, 1]."""
        return Vector(self.outputs, 1, 1)

    def tensors(self) -> tuple[TensorSpec, ...]:
        """Those of a [connected] section for each part."""
        return tuple(spec for part in self.parts for spec in self.part(part))

    def part(self, name: str) -> tuple[TensorSpec, ...]:
        """The arrays of one part."""
        inputs = self.source_shapes[0].size if name.startswith("u") else self.hidden
        return connected_specs(inputs, self.hidden, self.batch_normalize, f"{name}_")

    def channels(self, graph: ChannelGraph, inputs: Sequence[Ids]) -> Ids:
        """None is taken away on either side."""
        return freeze(graph, inputs[0], graph.new(self.outputs, self.index))

    def convert(self, ops: Operators, inputs: Sequence[Value], arrays: Arrays) -> NoReturn:
        """UnconvertibleError."""
        raise UnconvertibleError("keeps a state from call to call")

    @property
    def trainable(self) -> bool:
        """Not through time."""
        return False

    @property
    def flops(self) -> int:
        """2 in out of every part."""
        return sum(2 * spec.size for spec in self.tensors() if spec.name.endswith("weight"))


_R = TypeVar("_R", bound=Recurrent)


class _Step(WithArrays[_R]):
    """One step; parts by name."""

    def forward(self, x: Tensor) -> Tensor:
        return self.step(x.flatten(1), x.new_zeros(len(x), self.layer.hidden))[:, :, None, None]

    @abstractmethod
    def step(self, x: Tensor, state: Tensor) -> Tensor:
        """x [B, inputs], state [B, hidden] -> output [B, outputs]."""

    def part(self, name: str, x: Tensor) -> Tensor:
        """A part without activation: [B, inputs] -> [B, N]."""
        weight, bias = (getattr(self, f"{name}_{key}") for key in ("weight", "bias"))
        if not self.layer.batch_normalize:
            return F.linear(x, weight, bias)
        scale, mean, variance = (getattr(self, f"{name}_{key}") for key in ("scale", "mean", "variance"))
        factor, offset = fold(scale, bias, mean, variance, self.dialect)
        return F.linear(x, weight) * factor + offset


@register
@dataclass(frozen=True, kw_only=True)
class Rnn(Recurrent):
    """state = f(input part) + g(state part), and the old state with `shortcut`; output = f(output part of it)."""

    own_activation: str
    """g."""
    activation: str = activation("logistic", NOT_IN_CONNECTED)

    names: ClassVar[tuple[str, ...]] = ("rnn",)

    @classmethod
    def read(cls, options: Options, context: Context) -> Self:
        """AlexeyAB's has `hidden` and `logistic` (2: loggy); pjreddie's state is as wide as its output."""
        extended = context.dialect.extended
        own = {1: "logistic", 2: "loggy"}.get(options.integer("logistic", 0) if extended else 0)
        options.integer("shortcut", 0)  # adds the old state, which is 0
        hidden = options.integer("hidden", 1, 1, 1 << 16) if extended else _outputs(options)
        layer = cls.of(options, context, hidden=hidden, parts=("u", "w", "output"), own_activation="")
        return replace(layer, own_activation=own or layer.activation)

    def part(self, name: str) -> tuple[TensorSpec, ...]:
        """The output part is as wide as the output."""
        if name == "output":
            return connected_specs(self.hidden, self.outputs, self.batch_normalize, "output_")
        return super().part(name)

    def module(self, dialect: Dialect) -> nn.Module:
        """[B,C,H,W] -> [B,outputs,1,1]."""
        return _Rnn(self, dialect)


class _Rnn(_Step[Rnn]):
    def step(self, x: Tensor, state: Tensor) -> Tensor:
        activate, own = ACTIVATIONS[self.layer.activation], ACTIVATIONS[self.layer.own_activation]
        state = activate(self.part("u", x)) + own(self.part("w", state))
        return activate(self.part("output", state))


@register
@dataclass(frozen=True, kw_only=True)
class Gru(Recurrent):
    """z and r of input and state; output = z * state + (1 - z) * candidate (of the input and r * state)."""

    tanh: bool
    """Whether the candidate goes through tanh, else the logistic."""

    names: ClassVar[tuple[str, ...]] = ("gru",)

    @classmethod
    def read(cls, options: Options, context: Context) -> Self:
        """pjreddie's has `tanh`, 0 by default."""
        tanh = not context.dialect.extended and options.flag("tanh")
        return cls.of(options, context, hidden=_outputs(options), parts=context.dialect.gru_order, tanh=tanh)

    def module(self, dialect: Dialect) -> nn.Module:
        """[B,C,H,W] -> [B,outputs,1,1]."""
        return _Gru(self, dialect)


class _Gru(_Step[Gru]):
    def step(self, x: Tensor, state: Tensor) -> Tensor:
        z = torch.sigmoid(self.part("uz", x) + self.part("wz", state))
        r = torch.sigmoid(self.part("ur", x) + self.part("wr", state))
        mixed = self.part("uh", x) + self.part("wh", r * state)
        candidate = torch.tanh(mixed) if self.layer.tanh else torch.sigmoid(mixed)
        return z * state + (1 - z) * candidate


@register
@dataclass(frozen=True, kw_only=True)
class Lstm(Recurrent):
    """cell = forget * cell + in * tanh(candidate); output = out * tanh(cell)."""

    names: ClassVar[tuple[str, ...]] = ("lstm",)

    @classmethod
    def read(cls, options: Options, context: Context) -> Self:
        """Nothing of its own."""
        return cls.of(options, context, hidden=_outputs(options), parts=context.dialect.lstm_order)

    def module(self, dialect: Dialect) -> nn.Module:
        """[B,C,H,W] -> [B,outputs,1,1]."""
        return _Lstm(self, dialect)


class _Lstm(_Step[Lstm]):
    def step(self, x: Tensor, state: Tensor) -> Tensor:
        i, g, o = (self.part(f"u{gate}", x) + self.part(f"w{gate}", state) for gate in "igo")
        cell = torch.sigmoid(i) * torch.tanh(g)  # what is forgotten is 0
        return torch.sigmoid(o) * torch.tanh(cell)
