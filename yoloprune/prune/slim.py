"""Keep-sets -> masked weights of unchanged shape, or a network without the dropped channels.

Both index with the same arrays, by the plan and never by looking for zeros; so masked and slim compute the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from yoloprune.darknet import cfg as cfg_file
from yoloprune.darknet.layers.base import Keep, Narrowed, TensorSpec
from yoloprune.darknet.model import Graph, Model, understand
from yoloprune.darknet.weights import Arrays, Weights
from yoloprune.prune.channels import Channels, KeepAtoms

Free = tuple[dict[str, NDArray[np.bool_]], ...]
"""For each layer and tensor, which values are not masked."""


def narrow(graph: Graph, channels: Channels, keep: KeepAtoms) -> tuple[Narrowed, ...]:
    """What is left of each layer when only the atoms in `keep` stay."""
    return tuple(
        layer.narrow(channels.kept_inputs(layer.index, keep), channels.kept_outputs(layer.index, keep))
        for layer in graph.layers
    )


def free(graph: Graph, channels: Channels, keep: KeepAtoms) -> Free:
    """Boolean arrays shaped as the weights: False where a value is held because its channel is masked."""
    result = []
    for layer, narrowed in zip(graph.layers, narrow(graph, channels, keep), strict=True):
        arrays = {}
        for spec in layer.tensors():
            array = np.zeros(spec.shape, np.bool_)
            array[_index(spec, narrowed)] = True
            arrays[spec.name] = array
        result.append(arrays)
    return tuple(result)


def mask(model: Model, channels: Channels, keep: KeepAtoms) -> Model:
    """The same graph, dropped channels silenced: their weights, scale and bias 0, mean 0, variance 1, unread by all."""
    layers: list[Arrays] = []
    for layer, arrays, allowed in zip(
        model.graph.layers, model.weights.layers, free(model.graph, channels, keep), strict=True
    ):
        specs = {spec.name: spec for spec in layer.tensors()}
        layers.append(
            {
                name: np.where(allowed[name], array, np.float32(specs[name].masked)).astype(array.dtype)
                for name, array in arrays.items()
            }
        )
    return model.with_weights(Weights(model.weights.header, tuple(layers)))


def slim_graph(graph: Graph, channels: Channels, keep: KeepAtoms) -> Graph:
    """The graph without the dropped channels: its cfg has new `filters`, `groups`, `output`; all else stays."""
    everything = narrow(graph, channels, channels.all_kept())
    changes = {}
    for layer, before, after in zip(graph.layers, everything, narrow(graph, channels, keep), strict=True):
        changed = {key: str(value) for key, value in after.values.items() if value != before.values[key]}
        if changed:
            changes[layer.index + 1] = changed
    slimmed = understand(cfg_file.edit(graph.cfg, changes), graph.dialect)
    for layer in slimmed.layers:
        expected = int(channels.kept_outputs(layer.index, keep).sum())
        if layer.out.c != expected:
            raise AssertionError(f"{layer}: {layer.out.c} channels in the slim cfg, {expected} kept")
    return slimmed


def slim(model: Model, channels: Channels, keep: KeepAtoms) -> Model:
    """The network without the dropped channels."""
    layers: list[Arrays] = []
    narrowed = narrow(model.graph, channels, keep)
    for layer, arrays, left in zip(model.graph.layers, model.weights.layers, narrowed, strict=True):
        specs = {spec.name: spec for spec in layer.tensors()}
        layers.append({name: np.ascontiguousarray(array[_index(specs[name], left)]) for name, array in arrays.items()})
    return Model(slim_graph(model.graph, channels, keep), Weights(model.weights.header, tuple(layers)))


def _index(spec: TensorSpec, narrowed: Narrowed) -> tuple[NDArray[np.intp], ...]:
    """Open mesh that picks what stays of a tensor; all of it where its layer says nothing."""
    kept: Sequence[Keep | None] = narrowed.index.get(spec.name, (None,) * len(spec.shape))
    axes = [
        np.arange(size) if keep is None else np.flatnonzero(keep) for keep, size in zip(kept, spec.shape, strict=True)
    ]
    return np.ix_(*axes)
