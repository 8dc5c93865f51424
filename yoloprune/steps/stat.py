"""`stat`: a cfg's layers and sizes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from yoloprune.darknet.dialect import dialect_named
from yoloprune.darknet.layers.base import Layer, Shape
from yoloprune.darknet.model import Graph, load, load_graph
from yoloprune.darknet.sparsity import nonzero, sparsity
from yoloprune.darknet.weights import Arrays, Header, Weights


@dataclass(frozen=True)
class Stat:
    """A cfg's layers and sizes."""

    graph: Graph
    bytes: int
    """Of the .weights file."""
    weights: Weights | None = field(default=None, repr=False)
    """Of which zeros are counted, where there are any."""

    def as_dict(self) -> dict[str, Any]:
        """As reports show it; zeros only where there are weights."""
        totals = {"bflops": self.graph.bflops, "parameters": self.graph.parameters, "bytes": self.bytes}
        layers = [_layer_dict(layer) for layer in self.graph.layers]
        if self.weights is None:
            return {**totals, "layers": layers}
        counted = list(map(_zeros_dict, self.graph.layers, self.weights.layers))
        both = [layer | zeros for layer, zeros in zip(layers, counted, strict=True)]
        return {**totals, "nonzero": sum(zeros["nonzero"] for zeros in counted), "layers": both}


def stat(cfg: Path, weights: Path | None = None, *, dialect: str = "alexeyab") -> Stat:
    """A cfg's layers; weights, if given, are checked to be of this cfg, and their zeros counted."""
    if weights is None:
        graph = load_graph(cfg, dialect_named(dialect))
        return Stat(graph, Header().size + 4 * graph.parameters)
    model = load(cfg, weights, dialect_named(dialect))
    return Stat(model.graph, model.weights.header.size + 4 * model.graph.parameters, model.weights)


def _layer_dict(layer: Layer) -> dict[str, Any]:
    parts = layer.described()
    return {
        "index": layer.index,
        "type": layer.name,
        "filters": parts.get("filters"),
        "size": parts.get("size"),
        "stride": parts.get("stride"),
        "from": list(layer.sources),
        "input": _whc(layer.source_shapes[0]),
        "output": _whc(layer.out),
        "bflops": layer.flops / 1e9,
        "parameters": sum(spec.size for spec in layer.tensors()),
    }


def _zeros_dict(layer: Layer, arrays: Arrays) -> dict[str, Any]:
    return {"nonzero": nonzero(layer, arrays), "sparsity": sparsity(layer, arrays)}


def _whc(shape: Shape) -> list[int]:
    return [shape.w, shape.h, shape.c]
