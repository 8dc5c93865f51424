"""Which values of a network are kept, and the file that says so.

`mask.bits` holds one bit for every value of every array that the cfg's layers have, in disk order, 1 where it is kept,
the first value in the highest bit of the first byte; the last byte is filled up with zeros.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from yoloprune.darknet.layers.base import Layer
from yoloprune.darknet.model import Model
from yoloprune.darknet.weights import Arrays, Weights
from yoloprune.errors import InputError


@dataclass(frozen=True, eq=False)
class Mask:
    """True where a value is kept; the others are `TensorSpec.masked`."""

    layers: tuple[Mapping[str, NDArray[np.bool_]], ...]
    """For each layer, by the names of its arrays and in their shapes; an array that is not named is kept whole."""

    def apply(self, model: Model) -> Model:
        """The model with the values that aren't kept silenced; layers that are kept whole keep their very arrays."""
        layers: list[Arrays] = []
        for layer, arrays, kept in zip(model.graph.layers, model.weights.layers, self.layers, strict=True):
            silent = {spec.name: np.float32(spec.masked) for spec in layer.tensors()}
            masked = {
                name: np.where(kept[name], array, silent[name]).astype(array.dtype) if name in kept else array
                for name, array in arrays.items()
            }
            layers.append(masked if kept else arrays)
        return model.with_weights(Weights(model.weights.header, tuple(layers)))

    def __and__(self, other: Mask) -> Mask:
        """What both keep."""
        both = []
        for a, b in zip(self.layers, other.layers, strict=True):
            both.append({**a, **b, **{name: a[name] & b[name] for name in a.keys() & b.keys()}})
        return Mask(tuple(both))


def dump(mask: Mask, layers: Sequence[Layer]) -> bytes:
    """Mask -> bytes of `mask.bits`."""
    flat = [
        (kept[spec.name] if spec.name in kept else np.ones(spec.shape, np.bool_)).ravel()
        for layer, kept in zip(layers, mask.layers, strict=True)
        for spec in layer.tensors()
    ]
    return np.packbits(np.concatenate(flat) if flat else np.zeros(0, np.bool_)).tobytes()


def parse(data: bytes, layers: Sequence[Layer], file: str = "<mask>") -> Mask:
    """Bytes -> Mask that names what isn't kept whole. InputError unless there are just as many bits as values."""
    values = sum(spec.size for layer in layers for spec in layer.tensors())
    if len(data) != -(-values // 8):
        raise InputError(f"expected {-(-values // 8)} bytes for {values} values, found {len(data)}", file=file)
    bits = np.unpackbits(np.frombuffer(data, np.uint8), count=values).astype(np.bool_)
    at, parsed = 0, []
    for layer in layers:
        kept = {}
        for spec in layer.tensors():
            part = bits[at : at + spec.size].reshape(spec.shape)
            at += spec.size
            if not part.all():
                kept[spec.name] = part
        parsed.append(kept)
    return Mask(tuple(parsed))
