"""Keep-sets -> masked weights of unchanged shape, or a network without the dropped channels.

Both index with the same arrays, by the plan and never by looking for zeros; so masked and slim compute the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from yoloprune.darknet import cfg as cfg_file
from yoloprune.darknet.layers.base import Keep, TensorSpec
from yoloprune.darknet.mask import Mask
from yoloprune.darknet.model import Graph, Model, build_graph
from yoloprune.darknet.weights import Arrays, Weights
from yoloprune.prune.channels import Channels, KeepMask


def channel_mask(graph: Graph, channels: Channels, keep: KeepMask) -> Mask:
    """Which values are kept: those that a slim network has. Layers of which all channels stay name no arrays."""
    layers = []
    for layer in graph.layers:
        inputs, output = channels.kept_inputs(layer.index, keep), channels.kept_outputs(layer.index, keep)
        arrays = {}
        if not all(each.all() for each in (*inputs, output)):
            index = layer.array_index(inputs, output)
            for spec in layer.tensors():
                array = np.zeros(spec.shape, np.bool_)
                array[slice_index(spec, index)] = True
                arrays[spec.name] = array
        layers.append(arrays)
    return Mask(tuple(layers))


def mask(model: Model, channels: Channels, keep: KeepMask) -> Model:
    """The same graph, pruned channels silenced: their weights, scale and bias 0, mean 0, variance 1, unread by all."""
    return channel_mask(model.graph, channels, keep).apply(model)


def slim_graph(graph: Graph, channels: Channels, keep: KeepMask) -> Graph:
    """The graph without the dropped channels and branches.

    Its cfg has new `filters`, `groups`, `output`; where layers went, the others name their sources by new indexes.
    """
    sources = _sources(graph, channels)
    rewired = _rewired(graph, channels, sources)
    changes: dict[int, dict[str, str]] = {}
    for index in kept_layers(graph, channels):
        inputs = [int(each.sum()) for each in channels.kept_inputs(index, keep)]
        output = int(channels.kept_outputs(index, keep).sum())
        changed = graph.layers[index].changed_counts(inputs, output) | rewired.get(index, {})
        if changed:
            changes[index + 1] = changed
    cfg = cfg_file.without_sections(cfg_file.edit(graph.cfg, changes), [index + 1 for index in channels.removed])
    slimmed = build_graph(cfg, graph.dialect)
    for old, layer in zip(kept_layers(graph, channels), slimmed.layers, strict=True):
        expected = int(channels.kept_outputs(old, keep).sum())
        if layer.out.c != expected:
            raise AssertionError(f"{layer}: {layer.out.c} channels in the slim cfg, {expected} kept")
        if layer.sources != sources[old]:
            raise AssertionError(f"{layer}: reads {layer.sources} in the slim cfg, expected {sources[old]}")
    return slimmed


def slim(model: Model, channels: Channels, keep: KeepMask) -> Model:
    """The network without the dropped channels and branches."""
    layers: list[Arrays] = []
    for index in kept_layers(model.graph, channels):
        layer, arrays = model.graph.layers[index], model.weights.layers[index]
        left = layer.array_index(channels.kept_inputs(index, keep), channels.kept_outputs(index, keep))
        specs = {spec.name: spec for spec in layer.tensors()}
        layers.append(
            {name: np.ascontiguousarray(array[slice_index(specs[name], left)]) for name, array in arrays.items()}
        )
    return Model(slim_graph(model.graph, channels, keep), Weights(model.weights.header, tuple(layers)))


def kept_layers(graph: Graph, channels: Channels) -> list[int]:
    """Indexes of the layers that a slim network has, in its order."""
    return [layer.index for layer in graph.layers if layer.index not in channels.removed]


def _sources(graph: Graph, channels: Channels) -> dict[int, tuple[int, ...]]:
    """For each layer that stays, what it reads, as the slim network counts; instead of a sum that went, its stream."""
    streams = {branch.sum: branch.stream for branch in channels.branches}
    new = {old: index for index, old in enumerate(kept_layers(graph, channels))} | {-1: -1}

    def stays(index: int) -> int:
        return stays(streams[index]) if index in streams else index

    return {old: tuple(new[stays(source)] for source in graph.layers[old].sources) for old in new if old >= 0}


def _rewired(graph: Graph, channels: Channels, reads: Mapping[int, tuple[int, ...]]) -> dict[int, dict[str, str]]:
    """Keys that name layers by other indexes once branches went; what counted back counts back still."""
    changes: dict[int, dict[str, str]] = {}
    if not channels.branches:
        return changes
    for new, (old, sources) in enumerate(reads.items()):
        moved = dict(zip(graph.layers[old].sources, sources, strict=True))
        for key, named in graph.layers[old].links.items():
            entry = graph.cfg.sections[old + 1].get(key)
            assert entry is not None
            written = [int(text) for text in re.findall(r"[+-]?\d+", re.split("[#;]", entry.value)[0])]
            now = [moved[each] - new if value < 0 else moved[each] for each, value in zip(named, written, strict=True)]
            if now != written:
                changes.setdefault(old, {})[key] = ",".join(map(str, now))
    return changes


def slice_index(spec: TensorSpec, array_index: Mapping[str, tuple[Keep | None, ...]]) -> tuple[NDArray[np.intp], ...]:
    """Open index that picks what stays of an array by its layer's `array_index`; all of it where that doesn't say."""
    kept: Sequence[Keep | None] = array_index.get(spec.name, (None,) * len(spec.shape))
    axes = [
        np.arange(size) if keep is None else np.flatnonzero(keep) for keep, size in zip(kept, spec.shape, strict=True)
    ]
    return np.ix_(*axes)
