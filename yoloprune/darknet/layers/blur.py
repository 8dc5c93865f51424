"""The fixed blur that `antialiasing` puts behind a layer; it strides instead of that layer (Zhang 2019, "BlurPool").

Darknet: convolutional_layer.c and maxpool_layer.c, `l.antialiasing`. Its weights are in no file.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from yoloprune.darknet.layers.base import Shape
from yoloprune.darknet.operators import Operators, Value

_ROWS = {1: (1.0, 2.0, 1.0), 2: (1.0, 1.0)}
"""A kernel is the outer product of its row with itself, divided by its sum; 1 pads by one zero, 2 doesn't pad."""


def blurred(shape: Shape, kind: int, stride_x: int, stride_y: int) -> Shape:
    """Shape behind the blur; 0: none."""
    if kind == 0:
        return shape
    lost = 1 if kind == 2 else 0
    return Shape(shape.c, (shape.h - lost - 1) // stride_y + 1, (shape.w - lost - 1) // stride_x + 1)


def blur(x: Tensor, kind: int, stride_x: int, stride_y: int) -> Tensor:
    """[B,C,H,W] -> [B,C,H',W']; kind 0: nothing is done."""
    if kind == 0:
        return x
    c = x.shape[1]
    kernel = _kernel(kind, c).to(x)
    return F.conv2d(x, kernel, None, (stride_y, stride_x), 1 if kind == 1 else 0, 1, c)


def convert_blur(ops: Operators, x: Value, channels: int, kind: int, stride_x: int, stride_y: int) -> Value:
    """The same in operators."""
    if kind == 0:
        return x
    kernel = _kernel(kind, channels).numpy()
    return ops.conv(x, kernel, stride=(stride_y, stride_x), padding=1 if kind == 1 else 0, groups=channels)


def _kernel(kind: int, channels: int) -> Tensor:
    """[C, 1, k, k]."""
    row = torch.tensor(_ROWS[kind])
    kernel = row[:, None] * row / row.sum() ** 2
    return kernel.expand(channels, 1, *kernel.shape)
