"""Weights to start training from: the first layers of any file, as `darknet partial` would cut it.

A file doesn't say which network it is of. How many of its layers are this network's follows from its length, where it
ends behind one of them, or differs by the number of classes or a classifier's last layer; else from its values: behind
layers of another shape, what stands in place of a variance is soon below 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from yoloprune.darknet import weights as weights_file
from yoloprune.darknet.layers.base import Layer
from yoloprune.darknet.model import Graph
from yoloprune.darknet.weights import Weights
from yoloprune.errors import InputError

Floats = NDArray[np.float32]


def read_pretrained(path: str | Path, graph: Graph, seed: int, layers: int | None = None) -> tuple[Weights, int]:
    """Weights whose first layers are the file's, the others as in a new network; and how many of them are.

    layers: take so many. InputError if the file has not as many, or if its first ones are of another shape.
    """

    def choose(floats: Floats) -> int:
        if layers is None:
            return _fitting(floats, graph, path)
        if not 0 < layers <= len(graph.layers):
            expected = f"expected 1..{len(graph.layers)} as the network has layers"
            raise InputError(f"--pretrained-layers: {expected}, found {layers}")
        needed = weights_file.count(graph.layers[:layers])
        if floats.size < needed:
            found = f"expected {needed} floats for {layers} layers, found {floats.size}"
            raise InputError(f"--pretrained-layers: {found}", file=path)
        return layers

    return weights_file.read_first(path, graph.layers, seed, choose)


def _fitting(floats: Floats, graph: Graph, path: str | Path) -> int:
    """How many of the first layers are the file's. InputError if that can be said of none."""
    layers = graph.layers
    ends = list(accumulate((weights_file.count([layer]) for layer in layers), initial=0))

    def until(end: int) -> int:
        """Layers that end there, with those behind them that hold nothing."""
        return len(ends) - 1 - ends[::-1].index(end)

    if floats.size in ends:
        return until(floats.size)
    readable, last = _readable(floats, layers)
    before_heads = _before_heads(floats.size, graph)
    if before_heads is not None and before_heads <= readable:
        return before_heads
    # The weights of the last one with variances may be another shape's: only variances behind them tell.
    left = floats.size - ends[last + 1]
    if left > 0 and left % (1 + layers[last].out.c) == 0:  # a classifier's last layer
        return until(ends[last + 1])
    if last < 0 or not ends[last]:
        why = "its first layers are of another shape than the cfg's"
        raise InputError(f"{why}; --pretrained-layers N takes the first N all the same", file=path)
    return last


def _readable(floats: Floats, layers: Sequence[Layer]) -> tuple[int, int]:
    """How many of the first layers have values that can be theirs; and the last layer whose variances can be, or -1."""
    last = -1
    for layer, spec, place in weights_file.places(layers):
        bound = layer.storage.variance_over if spec.variance else -np.inf
        stored = floats[place]
        if place.stop > floats.size or not (np.isfinite(stored) & weights_file.over(stored, bound)).all():
            return layer.index, last
        last = layer.index if spec.variance else last
    return len(layers), last


def _before_heads(size: int, graph: Graph) -> int | None:
    """How many layers stand before the first that knows the number of classes, if a file of so many floats is of this
    network with another number of them.
    """
    heads = [(head, graph.layers[head.sources[0]]) for head in graph.detection_heads]
    for_each = sum(len(head.anchors) * weights_file.count([layer]) // layer.out.c for head, layer in heads)
    more = size - graph.parameters
    if not for_each or more % for_each or more // for_each + graph.classes < 1:
        return None
    return min(layer.index for _, layer in heads)
