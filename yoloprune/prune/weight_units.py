"""Single weights, blocks and n of every m as units: zeros in a network of unchanged shape.

A group is a layer that sums over channels and has weights of its own; depthwise layers, biases, scales and running
statistics stay. Which units go depends on how many: the choice for a count is no part of that for a larger one.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Protocol, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from yoloprune.choices import NONZERO, NOTHING, RECALIBRATE, REFIT, WEIGHT_CRITERIA
from yoloprune.darknet.layers.base import Layer
from yoloprune.darknet.mask import Mask
from yoloprune.darknet.model import Graph, Model
from yoloprune.darknet.network import build
from yoloprune.darknet.weights import Weights
from yoloprune.errors import InputError
from yoloprune.options import UnitOptions
from yoloprune.prune.channel_units import ChannelUnits
from yoloprune.prune.cost import Price
from yoloprune.prune.granularity import Allocation, Granularity, Group, Orders, Selection
from yoloprune.prune.layer_problem import LayerProblem
from yoloprune.prune.moments import LARGEST, MEMORY, Consumer, Moments, all_consumers, collect, matrix
from yoloprune.prune.patterns import Block, NofM, Pattern, Pooling, Single, choose
from yoloprune.prune.recalibrate import recalibrate, restate
from yoloprune.prune.sparse_fit import SparseFit, magnitude_fit, sparse_fit
from yoloprune.prune.sparsify import Sparsification, fitted_arrays, matrix_of, places, sparsify, with_mirrored


@dataclass(frozen=True)
class WeightGroup:
    """The weights of a layer, in units of a pattern or of bits."""

    layer: int
    size: int
    weights: int
    """How many there are."""
    counts: tuple[int, ...] = ()

    @property
    def label(self) -> str:
        """The layer's index."""
        return str(self.layer)

    @property
    def producers(self) -> tuple[int, ...]:
        """The layer."""
        return (self.layer,)


@dataclass(frozen=True, eq=False)
class WeightUnits(Granularity):
    """What is left of the weights, and of the channels that earlier rounds pruned."""

    graph: Graph
    options: UnitOptions
    channels: ChannelUnits
    weights: Mapping[int, NDArray[np.bool_]]
    """For layers by index, which weights are left, in the shape of the layer's array."""

    criteria: ClassVar[tuple[str, ...]] = WEIGHT_CRITERIA
    saves: ClassVar[str] = NONZERO

    @classmethod
    def of(cls, graph: Graph, options: UnitOptions, mask: Mask | None = None, branches: Sequence[int] = ()) -> Self:
        channels = ChannelUnits.of(graph, mask=mask, branches=branches)
        consumers = all_consumers(graph, channels.channels)
        chosen = named_layers(options.only or (), [graph.layers[index] for index in consumers])
        weights = {}
        for index in chosen:
            shape = next(spec.shape for spec in graph.layers[index].tensors() if spec.name == "weight")
            kept = {} if mask is None else mask.layers[index]
            weights[index] = kept.get("weight", np.ones(shape, np.bool_))
        return cls(graph, options, channels, weights)

    @staticmethod
    def default_criterion(refits: bool) -> str:
        return "alps" if refits else "magnitude"

    @property
    @abstractmethod
    def pattern(self) -> Pattern:
        """What a unit is, and which may stay together. InputError for options that say none."""

    def pattern_of(self, layer: int) -> Pattern:
        """The pattern for a layer's kernel."""
        return self.pattern.of_kernel(places(self.weights[layer]))

    @cached_property
    def consumers(self) -> Mapping[int, Consumer]:
        """The layers that sum over channels and have weights of their own."""
        return all_consumers(self.graph, self.channels.channels)

    @cached_property
    def groups(self) -> Sequence[WeightGroup]:
        """Of layers in which a pattern can do anything: some have fewer columns than of every m stay."""
        groups = []
        for index, kept in self.weights.items():
            consumer = self.consumers[index]
            pattern = self.pattern_of(index)
            size = pattern.size(consumer.groups, len(kept) // consumer.groups, consumer.columns)
            if pattern.left(torch.ones_like(matrix_of(kept, consumer))) == size > 1:
                groups.append(WeightGroup(index, size, kept.size, tuple(pattern.counts())))
        return tuple(groups)

    @property
    def branches(self) -> tuple[int, ...]:
        return self.channels.branches

    @property
    def not_compensated(self) -> tuple[int, ...]:
        return tuple(index for index in self.weights if self.consumers[index].bytes > LARGEST)

    def left(self, group: Group) -> int:
        index = int(group.label)
        return self.pattern_of(index).left(matrix_of(self.weights[index], self.consumers[index]))

    def mask(self) -> Mask:
        kept = Mask(tuple(_named(self.weights.get(layer.index)) for layer in self.graph.layers))
        return self.channels.mask() & kept

    def statistics(self, model: Model, batches: Sequence[Tensor], device: str | torch.device) -> WeightStatistics:
        return WeightStatistics(self, model, batches, device)

    def costs(self, price: Price, orders: Orders) -> WeightCosts:
        """Weights that are left, of those in groups; a price by channels tells nothing of them."""
        return WeightCosts(self.groups, self.count())

    def changed(self, group: Group) -> list[int]:
        return list(group.producers)

    def rechosen(self, counts: Allocation, orders: Orders, weights: Weights) -> Self:
        chosen = {}
        for index, left in self._left(counts).items():
            consumer, kept = self.consumers[index], self.weights[index]
            sizes = torch.from_numpy(np.abs(weights.layers[index]["weight"])).view(matrix_of(kept, consumer).shape)
            there = choose(self.pattern_of(index), sizes, left, matrix_of(kept, consumer))
            chosen[index] = there.numpy().reshape(kept.shape)
        return self._with(chosen)

    def prune(
        self, model: Model, selection: Selection, batches: Sequence[Tensor], device: str | torch.device
    ) -> tuple[Self, Model]:
        """Front to back: choice and values together, or what stays as it is and batch norm's statistics anew."""
        left = self._left(selection.counts)
        if not left:
            return self, self.mask().apply(model)
        how = self._how(selection)
        seen = batches if how.needs_images else ()
        sparse, chosen = sparsify(model, left, self.weights, how, seen, device=device)
        return self._with(chosen), self._recalibrated(model, sparse, selection, batches, device)

    def prune_group(self, model: Model, selection: Selection, statistics: Any, device: str | torch.device) -> Model:
        changed = {}
        for index, left in self._left(selection.counts).items():
            found = cast(WeightStatistics, statistics).fit(index, left, self._how(selection))
            changed[index] = fitted_arrays(model.weights.layers[index], found)
        sparse = model.with_arrays(changed)
        if selection.compensation != RECALIBRATE:
            return sparse
        return self._recalibrated(model, sparse, selection, statistics.batches, device)

    def slim(self, model: Model) -> Model:
        return self.channels.slim(self.mask().apply(model))

    def slim_graph(self) -> Graph:
        return self.channels.slim_graph()

    def _how(self, selection: Selection) -> Sparsification:
        return Sparsification(self.pattern, selection.criterion, refit=selection.compensation == REFIT)

    def _left(self, counts: Allocation) -> dict[int, int]:
        """How many units stay of the layers that lose some."""
        sizes = {group.label: group for group in self.groups}
        left = {sizes[label].layer: sizes[label].size - count for label, count in counts.items()}
        return {index: count for index, count in left.items() if count < self.left(sizes[str(index)])}

    def _with(self, chosen: Mapping[int, NDArray[np.bool_]]) -> Self:
        return replace(self, weights={**self.weights, **chosen})

    def _recalibrated(
        self, model: Model, sparse: Model, selection: Selection, batches: Sequence[Tensor], device: str | torch.device
    ) -> Model:
        """With batch norm's statistics of the sparse network: behind a refit so that outputs stay."""
        if not batches or selection.compensation == NOTHING:
            return sparse
        about = (model, sparse, self.channels.channels, self.channels.keep, batches)
        return restate(*about, device=device) if selection.compensation == REFIT else recalibrate(*about, device=device)


class SingleWeights(WeightUnits):
    """A unit is a weight."""

    name = "weight"

    @property
    def pattern(self) -> Pattern:
        return Single()


class Blocks(WeightUnits):
    """A unit is a block of weights."""

    name = "block"

    @cached_property
    def pattern(self) -> Pattern:
        height, width = _pair("--block", self.options.block, "x", "1x2, filters by columns")
        if height * width < 2:
            raise InputError(f"--block: expected at least two weights, found {self.options.block}")
        return Block(height, width, cast(Pooling, self.options.block_pooling or "average"))


class Places(WeightUnits):
    """A unit is one of the m places of an n:m pattern."""

    name = "n:m"

    @cached_property
    def pattern(self) -> Pattern:
        n, m = _pair("--n-of-m", self.options.n_of_m, ":", "2:4")
        if n >= m:
            raise InputError(f"--n-of-m: expected fewer that stay than there are, like 2:4, found {n}:{m}")
        return NofM(n, m)


class WeightStatistics:
    """What calibration images tell of layers' inputs in the network before; computed when asked for."""

    def __init__(self, units: WeightUnits, model: Model, batches: Sequence[Tensor], device: str | torch.device) -> None:
        self.units, self.model, self.batches, self.device = units, model, batches, device
        self._latest: tuple[int, LayerProblem] | None = None

    @cached_property
    def moments(self) -> Mapping[int, Moments]:
        """Of the layers in groups, smallest first as far as MEMORY goes; empty without images."""
        wanted = [self._consumer(group.layer) for group in self.units.groups]
        return moments_of(self.model, wanted, with_mirrored(self.model.graph, self.batches), self.device)

    def fit(self, index: int, left: int, how: Sparsification) -> SparseFit:
        """A layer's weights of which `left` units stay; without moments, the largest as they are."""
        if not how.needs_images or index not in self.moments:
            return magnitude_fit(*self._weights(index), left, self.units.pattern_of(index))
        return sparse_fit(self._problem(index), left, self.units.pattern_of(index), how.criterion, refit=how.refit)

    def _problem(self, index: int) -> LayerProblem:
        """Kept while one layer is asked for: its eigenvectors cost more than a choice."""
        if self._latest is None or self._latest[0] != index:
            weight, alive = self._weights(index)
            self._latest = index, LayerProblem.of(weight, self.moments[index], alive)
        return self._latest[1]

    def _weights(self, index: int) -> tuple[Tensor, Tensor]:
        consumer = self._consumer(index)
        alive = matrix_of(self.units.weights[index], consumer)
        return matrix(self.model, consumer).to(self.device), alive.to(self.device)

    def _consumer(self, index: int) -> Consumer:
        return self.units.consumers[index]


def moments_of(
    model: Model, consumers: Iterable[Consumer], batches: Sequence[Tensor], device: str | torch.device
) -> Mapping[int, Moments]:
    """Of these layers, smallest first as far as MEMORY goes; empty without images [B,C,H,W]."""
    wanted, memory = [], MEMORY
    for each in sorted(consumers, key=lambda each: each.bytes):
        if each.bytes <= min(memory, LARGEST):
            wanted.append(each)
            memory -= each.bytes
    return collect(build(model, device), batches, wanted, sum(map(len, batches))) if batches else {}


class _Costly(Group, Protocol):
    """Units of weights."""

    @property
    def weights(self) -> int:
        """How many weights there are."""


class WeightCosts:
    """Weights that are left, of those in groups (an `AllocationCosts`)."""

    each_saves = True

    def __init__(self, groups: Iterable[_Costly], gone: Allocation) -> None:
        self._groups, self._gone = {group.label: group for group in groups}, gone
        self.whole = float(sum(group.weights for group in self._groups.values()))

    def total(self, allocation: Allocation) -> float:
        """Of all layers."""
        return sum(self._of(label, allocation.get(label, 0)) for label in self._groups)

    def around(self, label: str, allocation: Allocation, counts: Sequence[int]) -> NDArray[np.float64]:
        """Of the layer [n]."""
        return np.array([self._of(label, count) for count in counts])

    def _of(self, label: str, count: int) -> float:
        group = self._groups[label]
        return group.weights * (1 - max(count, self._gone[label]) / group.size)


def _named(kept: NDArray[np.bool_] | None) -> dict[str, NDArray[np.bool_]]:
    return {} if kept is None or kept.all() else {"weight": kept}


def _pair(option: str, text: str | None, between: str, expected: str) -> tuple[int, int]:
    found = re.fullmatch(rf"([1-9][0-9]{{0,3}})\s*{between}\s*([1-9][0-9]{{0,3}})", text or "")
    if found is None:
        raise InputError(f"{option}: expected {expected}, found {text!r}")
    return int(found[1]), int(found[2])


def named_layers(words: Sequence[str], layers: Sequence[Layer]) -> list[int]:
    """Indexes of the layers that any of the words is for: a kernel, a kind of section or an index; all without words.

    InputError for a word that is for none.
    """
    known: dict[str, set[int]] = {}
    for layer in layers:
        size = layer.described().get("size")
        for word in (layer.name, str(layer.index), f"{size}x{size}" if size else layer.name):
            known.setdefault(word, set()).add(layer.index)
    unknown = [word for word in words if word not in known]
    if unknown:
        some = ", ".join(word for word in known if not word.isdigit())
        raise InputError(f"--only: expected some of {some}, or indexes of such layers, found {unknown[0]!r}")
    chosen = set().union(*(known[word] for word in words)) if words else {layer.index for layer in layers}
    return sorted(chosen)
