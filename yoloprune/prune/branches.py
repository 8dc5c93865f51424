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
    """Whether a layer gives 0 once the branch's arrays are silenced."""
    layer = graph.layers[end]
    if end not in branch.inside or not _zero_from_zero(graph, layer):
        return False
    return bool(layer.tensors()) or all(_silent(graph, source, branch) for source in layer.sources)


def _zero_from_zero(graph: Graph, layer: Layer) -> bool:
    """Whether a layer with silenced arrays makes 0 of 0."""
    module = layer.module(graph.dialect).eval()
    with torch.inference_mode():
        for spec in layer.tensors():
            getattr(module, spec.name).fill_(spec.masked)
        out: torch.Tensor = module(*(torch.zeros(1, *shape) for shape in layer.source_shapes))
    return not bool(out.count_nonzero())
