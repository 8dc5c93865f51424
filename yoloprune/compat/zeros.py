"""Zeros among the weights, as a network pruned by single weights holds them: how many, and in which pattern."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from yoloprune.darknet.layers.base import Layer
from yoloprune.darknet.sparsity import sparsity
from yoloprune.darknet.weights import Arrays

_MANY: Final = 0.1
"""Share of a layer's weights; fewer zeros are chance."""


@dataclass(frozen=True)
class Zeros:
    """Zeros in the weights of convolutions and connected layers."""

    share: float
    """Of all these weights, in 0..1."""
    layers: int
    """Such layers that have weights."""
    sparse: int
    """Those of which a tenth or more is 0."""
    two_of_four: int
    """Of these, where at most 2 of each 4 neighbouring input channels are not 0 at any place of the kernel, and
    channels are a multiple of 4 (2:4)."""

    @classmethod
    def of(cls, layers: Sequence[Layer], arrays: Sequence[Arrays]) -> Self:
        """Counted. arrays: of each layer."""
        summed = [(layer, each) for layer, each in zip(layers, arrays, strict=True) if layer.sums_channels and each]
        weights = [each["weight"] for _, each in summed]
        many = [each["weight"] for layer, each in summed if (sparsity(layer, each) or 0.0) >= _MANY]
        size = sum(each.size for each in weights)
        zeros = size - sum(int(np.count_nonzero(each)) for each in weights)
        return cls(zeros / size if size else 0.0, len(weights), len(many), sum(map(_two_of_four, many)))


def _two_of_four(weights: NDArray[np.float32]) -> bool:
    """Whether the input channels, the second axis, obey 2:4."""
    if weights.shape[1] % 4:
        return False
    there = np.moveaxis(weights, 1, -1).reshape(-1, 4) != 0
    return bool((there.sum(1) <= 2).all())
