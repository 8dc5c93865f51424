"""Which channels live and die together: ids, atoms, groups.

Every channel that a layer makes gets an id. Layers say in their channel rule which ids flow through and which are tied;
a class of tied ids is an atom. Atoms with the same producers form a group, whose sparsity is dropped over all atoms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from yoloprune.darknet.layers.base import Ids, Keep
from yoloprune.darknet.model import Graph
from yoloprune.prune.branches import Branch

KeepAtoms = NDArray[np.bool_]
"""For each atom of a network, whether it stays [atoms]."""


@dataclass(frozen=True)
class Group:
    """Atoms with the same producers; each can go alone."""

    producers: tuple[int, ...]
    """Layers that make these channels; one filter of each goes with an atom (or several, tied)."""
    atoms: NDArray[np.int64]
    """Numbers of the atoms, in the order of their first channel."""

    @property
    def label(self) -> str:
        """A name that is stable for a cfg: the producers' indexes."""
        return "+".join(map(str, self.producers))


@dataclass(frozen=True)
class Channels:
    """A graph's channels by atom."""

    outputs: tuple[NDArray[np.int64], ...]
    """For each layer, the atom of each output channel [C]."""
    inputs: tuple[tuple[NDArray[np.int64], ...], ...]
    """For each layer and each of its sources, the atom of each channel [C]."""
    groups: tuple[Group, ...]
    """In the order of their first producer; frozen atoms are in none."""
    atoms: int
    """How many there are, frozen ones included."""
    branches: tuple[Branch, ...] = ()
    """Residual branches that are gone; the atoms that their layers make are in no group and never kept."""
    gone: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    """Those atoms."""

    def all_kept(self) -> KeepAtoms:
        """Nothing pruned but the branches that are gone."""
        keep = np.ones(self.atoms, np.bool_)
        keep[self.gone] = False
        return keep

    @property
    def removed(self) -> frozenset[int]:
        """Layers that a slim network lacks: the branches that are gone, and their sums."""
        return frozenset(index for branch in self.branches for index in (*branch.inside, branch.sum))

    def carried(self, keep: KeepAtoms, other: Channels) -> KeepAtoms:
        """A keep-set of these channels in terms of another trace of the same graph."""
        result = other.all_kept()
        for index in set(range(len(self.outputs))) - other.removed - self.removed:
            result[other.outputs[index][~keep[self.outputs[index]]]] = False
        return result

    def kept_inputs(self, layer: int, keep: KeepAtoms) -> tuple[Keep, ...]:
        """Which channels of each source of a layer stay."""
        return tuple(keep[atoms] for atoms in self.inputs[layer])

    def kept_outputs(self, layer: int, keep: KeepAtoms) -> Keep:
        """Which channels of a layer's output stay."""
        return keep[self.outputs[layer]]


class _Book:
    """Union-find over channel ids, with producers and frozen marks (the ChannelBook that layers write into)."""

    def __init__(self) -> None:
        self.parent: list[int] = []
        self.producer: list[int] = []
        self.frozen: set[int] = set()

    def new(self, count: int, producer: int) -> Ids:
        start = len(self.parent)
        self.parent.extend(range(start, start + count))
        self.producer.extend([producer] * count)
        return np.arange(start, start + count)

    def tie(self, *ids: Ids) -> None:
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

    The network's input and its outputs are frozen. without: residual branches that are gone. Their layers tie nothing,
    and what their sums give is the stream.
    """
    streams = {branch.sum: branch.stream for branch in without}
    inside = {index for branch in without for index in branch.inside}
    book = _Book()
    ids: dict[int, Ids] = {-1: book.new(graph.net.input.c, -1)}
    book.freeze(ids[-1])
    for layer in graph.layers:
        if layer.index in inside:
            ids[layer.index] = book.new(layer.out.c, layer.index)
        elif layer.index in streams:
            ids[layer.index] = ids[streams[layer.index]]
        else:
            ids[layer.index] = layer.channels(book, [ids[source] for source in layer.sources])
    for index in graph.outputs:
        book.freeze(ids[index])

    roots = np.array([book.root(channel) for channel in range(len(book.parent))], np.int64)
    names, atom_of = np.unique(roots, return_inverse=True)  # a root is its class' first id: atoms come in that order
    producers: list[set[int]] = [set() for _ in names]
    for atom, producer in zip(atom_of, book.producer, strict=True):
        producers[atom].add(producer)
    frozen = {int(atom_of[channel]) for channel in book.frozen}
    gone = {int(atom) for index in inside for atom in atom_of[ids[index]]}
    return Channels(
        outputs=tuple(atom_of[ids[layer.index]] for layer in graph.layers),
        inputs=tuple(tuple(atom_of[ids[source]] for source in layer.sources) for layer in graph.layers),
        groups=_grouped(producers, frozen | gone),
        atoms=len(names),
        branches=tuple(without),
        gone=np.array(sorted(gone), np.int64),
    )


def _grouped(producers: Sequence[set[int]], frozen: set[int]) -> tuple[Group, ...]:
    members: dict[tuple[int, ...], list[int]] = {}
    for atom, made_by in enumerate(producers):
        if atom not in frozen:
            members.setdefault(tuple(sorted(made_by)), []).append(atom)
    return tuple(Group(made_by, np.array(atoms, np.int64)) for made_by, atoms in sorted(members.items()))
