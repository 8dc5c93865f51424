"""Convolution, bias and activation in one pass over memory: oneDNN's, where PyTorch has it for a CPU.

Small networks are bound by memory: an activation by itself reads and writes the whole map again. The operator is what
PyTorch's own compiler emits (torch/_inductor/fx_passes/mkldnn_fusion.py). Another version may lack it, or name it
otherwise, so it is used only where it agrees with PyTorch's plain ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor

from yoloprune.darknet.layers.activations import ACTIVATIONS

_NAMES: Final[Mapping[str, tuple[str, tuple[float, ...]]]] = {
    "linear": ("none", ()),
    "leaky": ("leaky_relu", (0.1,)),
    "revleaky": ("leaky_relu", (0.1,)),
    "relie": ("leaky_relu", (0.01,)),
    "relu": ("relu", ()),
    "relu6": ("hardtanh", (0.0, 6.0)),
    "hardtan": ("hardtanh", (-1.0, 1.0)),
    "logistic": ("sigmoid", ()),
    "tanh": ("tanh", ()),
    "swish": ("swish", ()),
}
"""Darknet's activations: oneDNN's name, and its scalars."""
_TOLERANCE: Final = 1e-5
"""Most that the two may differ by on values around 1: a few roundings of a float32 sum."""


def applies(x: Tensor, activation: str) -> bool:
    """Whether `convolution` can be asked for: on a CPU, in float32, where no gradient is wanted."""
    plain = x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    return plain and not torch.is_grad_enabled() and fusible(activation)


@cache
def fusible(activation: str) -> bool:
    """Whether convolutions with it can be computed in one pass here: the operator is there, and agrees."""
    if activation not in _NAMES:
        return False
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (torch.randn(shape, generator=generator) for shape in ((2, 8, 9, 11), (16, 4, 3, 3), (16,)))
    geometry: Any = ((2, 1), (1, 1), (1, 1), 2)
    with torch.inference_mode():
        expected = ACTIVATIONS[activation](F.conv2d(x, weight, bias, *geometry))
        try:
            packed = pack(weight, geometry, x.shape)
            found = convolution(x, packed, bias, geometry, activation)
        except (AttributeError, NotImplementedError, RuntimeError):  # another PyTorch, or no oneDNN in it
            return False
    return found.shape == expected.shape and bool((found - expected).abs().max() <= _TOLERANCE)


def pack(weight: Tensor, geometry: Any, shape: torch.Size) -> Tensor:
    """A weight [N, C/groups, k, k] as oneDNN wants it for inputs of `shape`; it takes others, too.

    geometry: stride, padding, dilation, groups, as of `F.conv2d`.
    """
    stride, padding, dilation, groups = geometry
    reorder: Any = torch._C._nn.mkldnn_reorder_conv2d_weight  # torch's types lack its last argument
    packed: Tensor = reorder(weight.to_mkldnn(), padding, stride, dilation, groups, list(shape))
    return packed


def convolution(x: Tensor, packed: Tensor, bias: Tensor, geometry: Any, activation: str) -> Tensor:
    """The activation of a convolution [B,C,H,W] -> [B,N,H',W'] on a CPU, without gradients."""
    stride, padding, dilation, groups = geometry
    name, scalars = _NAMES[activation]
    result: Tensor = torch.ops.mkldnn._convolution_pointwise(
        x, packed, bias, padding, stride, dilation, groups, name, scalars, ""
    )
    return result
