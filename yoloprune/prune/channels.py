"""The channel graph: which channels can only go together: ids, units, groups.

Every channel that a layer makes gets an id. Layers say in their channel rule which ids flow through and which are
coupled; a class of coupled ids is a unit. Units with the same producers form a group, whose sparsity is dropped over
all units.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from yoloprune.darknet.layers.base import Ids, Keep
from yoloprune.darknet.model import Graph
from yoloprune.prune.branches import Branch

KeepMask = NDArray[np.bool_]
"""For each unit of a network, whether it stays [units]."""


@dataclass(frozen=True)
class Group:
    """Units with the same producers; each can go alone."""

    producers: tuple[int, ...]
    """Layers that make these channels; one filter of each goes with a unit (or several, coupled)."""
    units: NDArray[np.int64]
    """Numbers of the units, in the order of their first channel."""

    @property
    def label(self) -> str:
        """A name that is stable for a cfg: the producers' indexes."""
        return "+".join(map(str, self.producers))

    @property
    def size(self) -> int:
        """Number of units."""
        return len(self.units)

    @property
    def counts(self) -> Sequence[int]:
        """Any number may go."""
        return ()


@dataclass(frozen=True)
class Channels:
    """A graph's channels by unit."""

    outputs: tuple[NDArray[np.int64], ...]
    """For each layer, the unit of each output channel [C]."""
    inputs: tuple[tuple[NDArray[np.int64], ...], ...]
    """For each layer and each of its sources, the unit of each channel [C]."""
    groups: tuple[Group, ...]
    """In the order of their first producer; frozen units are in none."""
    units: int
    """How many there are, frozen ones included."""
    branches: tuple[Branch, ...] = ()
    """Residual branches that are gone; the units that their layers make are in no group and never kept."""
    gone: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    """Those units."""

    def group(self, label: str) -> Group:
        """The group of that label."""
        return self._by_label[label]

    @cached_property
    def _by_label(self) -> dict[str, Group]:
        return {group.label: group for group in self.groups}

    def all_kept(self) -> KeepMask:
        """Nothing pruned but the branches that are gone."""
        keep = np.ones(self.units, np.bool_)
        keep[self.gone] = False
        return keep

    @property
    def removed(self) -> frozenset[int]:
        """Layers that a slim network lacks: the branches that are gone, and their sums."""
        return frozenset(index for branch in self.branches for index in (*branch.inside, branch.sum))

    def carried(self, keep: KeepMask, other: Channels) -> KeepMask:
        """A keep-set of these channels in terms of another trace of the same graph."""
        result = other.all_kept()
        for index in set(range(len(self.outputs))) - other.removed - self.removed:
            result[other.outputs[index][~keep[self.outputs[index]]]] = False
        return result

    def kept_inputs(self, layer: int, keep: KeepMask) -> tuple[Keep, ...]:
        """Which channels of each source of a layer stay."""
        return tuple(keep[units] for units in self.inputs[layer])

    def kept_outputs(self, layer: int, keep: KeepMask) -> Keep:
        """Which channels of a layer's output stay."""
        return keep[self.outputs[layer]]


class _ChannelGraph:
    """Union-find over channel ids, with producers and frozen marks (the ChannelGraph that layers write into)."""

    def __init__(self) -> None:
        self.parent: list[int] = []
        self.producer: list[int] = []
        self.frozen: set[int] = set()

    def new(self, count: int, producer: int) -> Ids:
        start = len(self.parent)
        self.parent.extend(range(start, start + count))
        self.producer.extend([producer] * count)
        return np.arange(start, start + count)

    def couple(self, *ids: Ids) -> None:
        first, *others = ids
        for other in others:
            for a, b in zip(first, other, strict=True):
                low, high = sorted((self.root(int(a)), self.root(int(b))))
                self.parent[high] = low

    def freeze(self, ids: Ids) -> None:
        self.frozen.update(map(int, ids))

    def root(self, channel: int) -> int:
        while self.parent[channel] != channel:
            self.parent[channel] = self.parent[self.parent[channel]]
            channel = self.parent[channel]
        return channel


def trace(graph: Graph, without: Sequence[Branch] = ()) -> Channels:
    """Walk the layers once, each mapping the ids of its inputs to those of its output, and group what results.

    The network's input and its outputs are frozen. without: residual branches that are gone. Their layers couple
    nothing, and what their sums give is the stream.
    """
    streams = {branch.sum: branch.stream for branch in without}
    inside = {index for branch in without for index in branch.inside}
    channel_graph = _ChannelGraph()
    ids: dict[int, Ids] = {-1: channel_graph.new(graph.net.input.c, -1)}
    channel_graph.freeze(ids[-1])
    for layer in graph.layers:
        if layer.index in inside:
            ids[layer.index] = channel_graph.new(layer.out.c, layer.index)
        elif layer.index in streams:
            ids[layer.index] = ids[streams[layer.index]]
        else:
            ids[layer.index] = layer.channels(channel_graph, [ids[source] for source in layer.sources])
    for index in graph.outputs:
        channel_graph.freeze(ids[index])

    roots = np.array([channel_graph.root(channel) for channel in range(len(channel_graph.parent))], np.int64)
    names, unit_of = np.unique(roots, return_inverse=True)  # a root is its class' first id: units come in that order
    producers: list[set[int]] = [set() for _ in names]
    for unit, producer in zip(unit_of, channel_graph.producer, strict=True):
        producers[unit].add(producer)
    frozen = {int(unit_of[channel]) for channel in channel_graph.frozen}
    gone = {int(unit) for index in inside for unit in unit_of[ids[index]]}
    return Channels(
        outputs=tuple(unit_of[ids[layer.index]] for layer in graph.layers),
        inputs=tuple(tuple(unit_of[ids[source]] for source in layer.sources) for layer in graph.layers),
        groups=_grouped(producers, frozen | gone),
        units=len(names),
        branches=tuple(without),
        gone=np.array(sorted(gone), np.int64),
    )


def _grouped(producers: Sequence[set[int]], frozen: set[int]) -> tuple[Group, ...]:
    members: dict[tuple[int, ...], list[int]] = {}
    for unit, made_by in enumerate(producers):
        if unit not in frozen:
            members.setdefault(tuple(sorted(made_by)), []).append(unit)
    return tuple(Group(made_by, np.array(units, np.int64)) for made_by, units in sorted(members.items()))
