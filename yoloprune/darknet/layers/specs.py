"""Arrays that several sections store alike, in disk order (parser.c: load_convolutional_weights and its kin)."""

from __future__ import annotations

import math

from yoloprune.darknet.layers.base import TensorSpec


def norm_specs(channels: int, prefix: str = "") -> tuple[TensorSpec, ...]:
    """scale, mean and variance [channels] of batch norm."""
    return (
        TensorSpec(f"{prefix}scale", (channels,), start=1.0),
        TensorSpec(f"{prefix}mean", (channels,), trained=False),
        TensorSpec(f"{prefix}variance", (channels,), masked=1.0, trained=False, variance=True),
    )


def convolution_specs(
    channels: int, filters: int, size: int, groups: int, batch_normalize: bool, prefix: str = ""
) -> tuple[TensorSpec, ...]:
    """bias [N]; scale, mean, variance [N] with batch norm; weight [N, C/groups, k, k]."""
    shape = (filters, channels // groups, size, size)
    weight = TensorSpec(f"{prefix}weight", shape, bound=math.sqrt(2 / math.prod(shape[1:])), decay=True)
    return TensorSpec(f"{prefix}bias", (filters,)), *(norm_specs(filters, prefix) if batch_normalize else ()), weight


def connected_specs(inputs: int, outputs: int, batch_normalize: bool, prefix: str = "") -> tuple[TensorSpec, ...]:
    """bias [N]; weight [N, inputs]; scale, mean, variance [N] with batch norm."""
    weight = TensorSpec(f"{prefix}weight", (outputs, inputs), bound=math.sqrt(2 / inputs), decay=True, dense=True)
    return TensorSpec(f"{prefix}bias", (outputs,)), weight, *(norm_specs(outputs, prefix) if batch_normalize else ())
