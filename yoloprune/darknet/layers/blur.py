"""The fixed blur that `antialiasing` puts behind a layer; it strides instead of that layer (Zhang 2019, "BlurPool").

Darknet: convolutional_layer.c and maxpool_layer.c, `l.antialiasing`. Its weights are in no file.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from yoloprune.darknet.layers.base import Shape

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
    row = torch.tensor(_ROWS[kind], dtype=x.dtype, device=x.device)
    kernel = row[:, None] * row / row.sum() ** 2
    c = x.shape[1]
    return F.conv2d(x, kernel.expand(c, 1, *kernel.shape), None, (stride_y, stride_x), 1 if kind == 1 else 0, 1, c)
