"""Activations (Darknet: activations.h, activations.c). Each keeps the shape; all but MIXING work element by element.

They are given a layer's own fresh sums, so the common ones overwrite them: half of a small network's time is memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from yoloprune.darknet.declared import declared
from yoloprune.darknet.dialect import Dialect
from yoloprune.darknet.operators import Operators, Value
from yoloprune.darknet.options import Options

Activation = Callable[[Tensor], Tensor]
_NORMALIZE_EPSILON = 1e-4


def _linear(x: Tensor) -> Tensor:
    return x


def _leaky(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.1, inplace=True)


def _relie(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.01, inplace=True)


def _loggy(x: Tensor) -> Tensor:
    return 2 * torch.sigmoid(x) - 1


def _ramp(x: Tensor) -> Tensor:
    return F.relu(x) + 0.1 * x


def _elu(x: Tensor) -> Tensor:
    return torch.where(x >= 0, x, torch.expm1(x.clamp(max=0)))


def _selu(x: Tensor) -> Tensor:
    return torch.where(x >= 0, 1.0507 * x, 1.0507 * 1.6732 * torch.expm1(x.clamp(max=0)))


def _plse(x: Tensor) -> Tensor:
    middle = 0.125 * x + 0.5
    return torch.where(x < -4, 0.01 * (x + 4), torch.where(x > 4, 0.01 * (x - 4) + 1, middle))


def _stair(x: Tensor) -> Tensor:
    n = torch.floor(x)
    half = torch.floor(x / 2)
    return torch.where(torch.remainder(n, 2) == 0, half, (x - n) + half)


def _hardtan(x: Tensor) -> Tensor:
    return x.clamp(-1, 1)


def _lhtan(x: Tensor) -> Tensor:
    return torch.where(x < 0, 0.001 * x, torch.where(x > 1, 0.001 * (x - 1) + 1, x))


def _hard_mish(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, torch.where(x > -2, x * x / 2 + x, torch.zeros_like(x)))


def _gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.tanh(0.797885 * x + 0.035677 * x**3))


def _channels_relu(x: Tensor) -> Tensor:
    positive = F.relu(x)
    return positive / (positive.sum(1, keepdim=True) + _NORMALIZE_EPSILON)


def _channels_softmax(x: Tensor) -> Tensor:
    powers = x.exp()
    return powers / (powers.sum(1, keepdim=True) + _NORMALIZE_EPSILON)


def _channels_softmax_maxval(x: Tensor) -> Tensor:
    return _channels_softmax(x - x.amax(1, keepdim=True))


CLASSIC: Final[Mapping[str, Activation]] = {
    "logistic": torch.sigmoid,
    "loggy": _loggy,
    "relu": F.relu_,
    "elu": _elu,
    "selu": _selu,
    "relie": _relie,
    "ramp": _ramp,
    "linear": _linear,
    "tanh": torch.tanh,
    "plse": _plse,
    "leaky": _leaky,
    "stair": _stair,
    "hardtan": _hardtan,
    "lhtan": _lhtan,
}
"""What every dialect has."""

EXTENDED: Final[Mapping[str, Activation]] = {
    "swish": F.silu,
    "mish": F.mish,
    "hard_mish": _hard_mish,
    "gelu": _gelu,
    "revleaky": _leaky,
    "relu6": F.relu6,
}
"""What AlexeyAB adds. pjreddie takes any of these for ReLU, with only a line on stderr."""

MIXING: Final[Mapping[str, Activation]] = {
    "normalize_channels": _channels_relu,
    "normalize_channels_softmax": _channels_softmax,
    "normalize_channels_softmax_maxval": _channels_softmax_maxval,
}
"""AlexeyAB's that sum over the channels at each place of a map [B, C, H, W], so that none of them can go."""

ACTIVATIONS: Final[Mapping[str, Activation]] = {**CLASSIC, **EXTENDED, **MIXING}

Conversion = Callable[[Operators, Value], Value]


def _plain(kind: str, **attributes: float) -> Conversion:
    """One operator."""
    return lambda ops, x: ops.op(kind, x, **attributes)


def _convert_ramp(ops: Operators, x: Value) -> Value:
    return ops.op("Add", ops.op("Relu", x), ops.op("Mul", x, 0.1))


def _convert_plse(ops: Operators, x: Value) -> Value:
    """Outside -4..4 the slope is 0.01 instead of 1/8."""
    middle = ops.clip(x, -4, 4)
    return ops.op("Add", ops.affine(middle, 0.125, 0.5), ops.op("Mul", ops.op("Sub", x, middle), 0.01))


def _convert_lhtan(ops: Operators, x: Value) -> Value:
    """Outside 0..1 the slope is 0.001 instead of 1."""
    middle = ops.clip(x, 0, 1)
    return ops.op("Add", middle, ops.op("Mul", ops.op("Sub", x, middle), 0.001))


def _convert_stair(ops: Operators, x: Value) -> Value:
    """floor(x/2), and what x is over a whole number where that is odd."""
    n, half = ops.op("Floor", x), ops.op("Floor", ops.op("Mul", x, 0.5))
    odd = ops.op("Sub", n, ops.op("Mul", half, 2.0))
    return ops.op("Add", half, ops.op("Mul", odd, ops.op("Sub", x, n)))


def _convert_swish(ops: Operators, x: Value) -> Value:
    return ops.op("Mul", x, ops.op("Sigmoid", x))


def _convert_mish(ops: Operators, x: Value) -> Value:
    return ops.op("Mul", x, ops.op("Tanh", ops.op("Softplus", x)))


def _convert_hard_mish(ops: Operators, x: Value) -> Value:
    """x over 0; x + x*x/2 from -2 to 0."""
    low = ops.clip(x, -2, 0)
    return ops.op("Add", ops.op("Relu", x), ops.op("Mul", low, ops.affine(low, 0.5, 1.0)))


def _convert_gelu(ops: Operators, x: Value) -> Value:
    cubic = ops.op("Mul", x, ops.affine(ops.op("Mul", x, x), 0.035677, 0.797885))
    return ops.op("Mul", x, ops.affine(ops.op("Tanh", cubic), 0.5, 0.5))


def _convert_shares(ops: Operators, positive: Value) -> Value:
    """Over their sum."""
    total = ops.op("ReduceSum", positive, np.array([1], np.int64), keepdims=1)
    return ops.op("Div", positive, ops.op("Add", total, _NORMALIZE_EPSILON))


def _convert_below_maximum(ops: Operators, x: Value) -> Value:
    return ops.op("Sub", x, ops.op("ReduceMax", x, axes=[1], keepdims=1))


OPERATORS: Final[Mapping[str, Conversion]] = {
    "logistic": _plain("Sigmoid"),
    "loggy": lambda ops, x: ops.affine(ops.op("Sigmoid", x), 2.0, -1.0),
    "relu": _plain("Relu"),
    "elu": _plain("Elu", alpha=1.0),
    "selu": _plain("Selu", alpha=1.6732, gamma=1.0507),
    "relie": _plain("LeakyRelu", alpha=0.01),
    "ramp": _convert_ramp,
    "linear": lambda _, x: x,
    "tanh": _plain("Tanh"),
    "plse": _convert_plse,
    "leaky": _plain("LeakyRelu", alpha=0.1),
    "stair": _convert_stair,
    "hardtan": lambda ops, x: ops.clip(x, -1, 1),
    "lhtan": _convert_lhtan,
    "swish": _convert_swish,
    "mish": _convert_mish,
    "hard_mish": _convert_hard_mish,
    "gelu": _convert_gelu,
    "revleaky": _plain("LeakyRelu", alpha=0.1),
    "relu6": lambda ops, x: ops.clip(x, 0, 6),
    "normalize_channels": lambda ops, x: _convert_shares(ops, ops.op("Relu", x)),
    "normalize_channels_softmax": lambda ops, x: _convert_shares(ops, ops.op("Exp", x)),
    "normalize_channels_softmax_maxval": lambda ops, x: _convert_shares(
        ops, ops.op("Exp", _convert_below_maximum(ops, x))
    ),
}
"""Each in operators."""

NOT_IN_CONNECTED: Final = ("swish", "mish", "hard_mish", *MIXING)
"""AlexeyAB's Darknet has these in [convolutional] only, elsewhere it gives zeros: so in [connected], [activation]."""
NOT_IN_SHORTCUT: Final = ("hard_mish", *MIXING)
"""Likewise, though [shortcut] has swish and mish too."""


_OTHER_NAMES: Final[Mapping[str, str]] = {
    "silu": "swish",
    "sigmoid": "logistic",
    "leaky_relu": "leaky",
    "leakyrelu": "leaky",
    "hardtanh": "hardtan",
    "identity": "linear",
    "none": "linear",
}
"""What other frameworks call some of these."""


def read_activation(options: Options, default: str, dialect: Dialect, without: Sequence[str] = ()) -> str:
    """Name of the section's activation. InputError for one that the dialect lacks: Darknet would take ReLU silently."""
    known = ACTIVATIONS if dialect.extended else CLASSIC
    meant = _OTHER_NAMES.get(options.text("activation", default).lower())
    if meant in known:
        raise options.error(f"is {meant} in Darknet, which would take ReLU for it", "activation")
    name = options.choice("activation", default, tuple(known))
    if name in without:
        raise options.error("can't be used in this section: Darknet gives zeros", "activation")
    return name


def activation(default: str, without: Sequence[str] = ()) -> str:
    """Declares the field `activation`."""
    value: str = declared(lambda options, dialect, _: read_activation(options, default, dialect, without))
    return value
