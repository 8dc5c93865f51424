"""How much of a network is zeros, counted in the values that are there, and what that leaves of its operations."""

from __future__ import annotations

import numpy as np

from yoloprune.darknet.layers.base import Layer
from yoloprune.darknet.model import Model
from yoloprune.darknet.weights import Arrays


def nonzero(layer: Layer, arrays: Arrays) -> int:
    """Floats of a layer, of those that a .weights file holds, that are not 0."""
    return sum(int(np.count_nonzero(arrays[spec.name][: layer.storage.rows(spec)])) for spec in layer.tensors())


def sparsity(layer: Layer, arrays: Arrays) -> float | None:
    """Share of a layer's weights that are 0, in 0..1; biases, scales and statistics don't count. None without any."""
    weights = [arrays[spec.name] for spec in layer.tensors() if spec.decay]
    size = sum(array.size for array in weights)
    return (size - sum(int(np.count_nonzero(array)) for array in weights)) / size if size else None


def total_nonzero(model: Model) -> int:
    """Floats of the .weights payload that are not 0."""
    return sum(nonzero(*each) for each in zip(model.graph.layers, model.weights.layers, strict=True))


def effective_bflops(model: Model) -> float:
    """1e9 floating point operations an image without those on weights that are 0: what a program could do that skips
    them all. A layer that computes with another's arrays skips as that one does.
    """
    layers, arrays = model.graph.layers, model.weights.layers
    left = [1 - (sparsity(*each) or 0.0) for each in zip(layers, arrays, strict=True)]
    return sum(layer.flops * left[layer.index if layer.shares is None else layer.shares] for layer in layers) / 1e9
