"""Weights that take few values, as quantization leaves them: in how many layers, and of how many bits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from yoloprune.darknet.exact import exact_codes
from yoloprune.darknet.layers.base import Layer
from yoloprune.darknet.weights import Arrays


@dataclass(frozen=True)
class Bits:
    """Layers whose weights lie on a grid, bit by bit."""

    coded: int
    layers: int
    """All convolutions and connected layers that have weights."""
    most: int
    """Bits of a weight where it has most."""

    @classmethod
    def of(cls, layers: Sequence[Layer], arrays: Sequence[Arrays]) -> Self:
        """Counted. arrays: of each layer."""
        weights = [each["weight"] for layer, each in zip(layers, arrays, strict=True) if layer.sums_channels and each]
        found = [exact_codes(weight.reshape(len(weight), -1)) for weight in weights]
        bits = [each[0].bits for each in found if each is not None]
        return cls(len(bits), len(weights), max(bits, default=0))
