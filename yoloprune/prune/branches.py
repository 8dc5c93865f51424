"""Whole residual branches: what lies between a stream and the layer that adds it back to the stream.

Without its branch, a sum is the stream itself. So the branch's layers and the sum go, and what read the sum reads the
stream. Masked, all arrays of the branch are silenced: then it adds 0.

What the branch gave on average is not lost where consumers are refitted: their least squares has a constant, and it is
the only place where borders under padding come out right. Offered is the plain case: the sum adds two maps of one
shape and does nothing else, the stream stands right in front of the branch, nothing outside reads from inside, and the
branch's end is 0 once silenced.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import torch

from yoloprune.darknet.layers.base import Layer
from yoloprune.darknet.model import Graph
from yoloprune.errors import InputError


@dataclass(frozen=True)
class Branch:
    """Layers between a stream and a sum."""

    stream: int
    """The layer whose output the sum would be."""
    sum: int
    """The layer that adds; it names the branch."""

    @property
    def inside(self) -> range:
        """The branch's layers."""
        return range(self.stream + 1, self.sum)


def branches(graph: Graph) -> tuple[Branch, ...]:
    """All that may go whole, in the order of the cfg; one may hold others."""
    found = []
    for layer in graph.layers:
        if layer.adds_only:
            stream, end = sorted(layer.sources)
            branch = Branch(stream, layer.index)
            if end == layer.index - 1 and _closed(graph, branch) and _silent(graph, end, branch):
                found.append(branch)
    return tuple(found)


def branches_named(graph: Graph, sums: Collection[int]) -> tuple[Branch, ...]:
    """Those of these sums. InputError for one that can't go."""
    known = {branch.sum: branch for branch in branches(graph)}
    for each in sums:
        if each not in known:
            raise InputError(f"layer {each} adds no branch that can go (expected some of {', '.join(map(str, known))})")
    return tuple(known[each] for each in sorted(sums))


def _closed(graph: Graph, branch: Branch) -> bool:
    """Whether nothing but the sum reads from inside, the end once, and nothing inside is a result."""
    if not branch.inside or any(index in graph.outputs for index in branch.inside):
        return False
    for layer in graph.layers[branch.sum :]:
        read = [source for source in layer.sources if source in branch.inside]
        if read and (layer.index != branch.sum or read != [branch.sum - 1]):
            return False
    return True


def _silent(graph: Graph, end: int, branch: Branch) -> bool:
    """Whether a layer gives 0 once the branch is masked: whatever it reads, or because all that it reads is 0."""
    layer = graph.layers[end]
    if end not in branch.inside or layer.shares is not None or not _masked_whole(layer):
        return False
    if layer.tensors() and _gives_zero(graph, layer, 1):
        return True
    return _gives_zero(graph, layer, 0) and all(_silent(graph, source, branch) for source in layer.sources)


def _masked_whole(layer: Layer) -> bool:
    """Whether masking leaves nothing of a layer's arrays where none of its channels stays."""
    everything = [np.ones(shape.c, np.bool_) for shape in layer.source_shapes]
    left = layer.array_index(everything, np.zeros(layer.out.c, np.bool_))
    return all(any(keep is not None and not keep.any() for keep in left.get(spec.name, ())) for spec in layer.tensors())


def _gives_zero(graph: Graph, layer: Layer, value: float) -> bool:
    """Whether a layer with masked arrays makes 0 of maps that are `value` everywhere."""
    module = layer.module(graph.dialect).eval()
    with torch.inference_mode():
        for spec in layer.tensors():
            getattr(module, spec.name).fill_(spec.masked)
        out: torch.Tensor = module(*(torch.full((1, *shape), float(value)) for shape in layer.source_shapes))
    return not bool(out.count_nonzero())
