"""What several tests share: one comparison, and random networks with random weights."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from yoloprune.darknet import cfg as cfg_file
from yoloprune.darknet.dialect import ALEXEYAB, Dialect
from yoloprune.darknet.model import Graph, Model, build_graph
from yoloprune.darknet.weights import Header, Weights


def worst(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """max|a-b| / max|b|, the one measure of closeness; shapes must be equal."""
    assert a.shape == b.shape, (a.shape, b.shape)
    assert np.isfinite(a).all()
    assert np.isfinite(b).all()
    return float(np.abs(a.astype(np.float64) - b).max() / max(np.abs(b).max(), 1e-30))


def graph_of(text: str, dialect: Dialect = ALEXEYAB) -> Graph:
    """A graph from cfg text."""
    return build_graph(cfg_file.parse(text.encode(), "test.cfg"), dialect)


def random_model(graph: Graph, seed: int) -> Model:
    """Random weights of a sane size for every tensor: running statistics and biases too, never zeros."""
    rng = np.random.default_rng(seed)
    layers = []
    for layer in graph.layers:
        arrays = {}
        for spec in layer.tensors():
            if spec.variance:
                values = rng.uniform(0.5, 2, spec.shape)
            elif spec.start:
                values = rng.uniform(0.5, 1.5, spec.shape)
            elif spec.bound:
                values = rng.uniform(-spec.bound, spec.bound, spec.shape) * 1.5
            else:
                values = rng.normal(0, 0.3, spec.shape)
            arrays[spec.name] = values.astype(np.float32)
        layers.append(arrays)
    return Model(graph, Weights(Header(), tuple(layers)))


def with_input(text: str, width: int, height: int) -> str:
    """Cfg text with another input size and a batch of 1."""
    changes = {"width": width, "height": height, "batch": 1, "subdivisions": 1}
    cfg = cfg_file.parse(text.encode("utf-8", "surrogateescape"))
    present = {key: str(value) for key, value in changes.items()}
    return cfg_file.dump(cfg_file.edit(cfg, {0: present})).decode("utf-8", "surrogateescape")
