"""Bits of weights as units: few values for each layer's weights, in a network of unchanged shape.

A group is a layer whose weights can be put on a grid. Its units are the 32 bits of a weight, of which all stay, or 8 to
2: how many bits each layer bears, and how layers trade them, is asked as of channels and weights. Zeros stay zeros.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, Final, Self, cast

import numpy as np
import torch
from torch import Tensor

from yoloprune.choices import BITS, GRIDS, REFIT
from yoloprune.darknet.grid import LEAST_BITS, MOST_BITS, Grid
from yoloprune.darknet.mask import Mask
from yoloprune.darknet.model import Graph, Model
from yoloprune.darknet.weights import Weights
from yoloprune.errors import InputError
from yoloprune.options import UnitOptions
from yoloprune.prune.cost import Price
from yoloprune.prune.granularity import Allocation, Granularity, Group, Orders, Selection
from yoloprune.prune.layer_problem import LayerProblem
from yoloprune.prune.moments import LARGEST, Consumer, Moments, matrix
from yoloprune.prune.quantize import Quantization, quantizable_layers, quantize, quantized_layer
from yoloprune.prune.weight_units import SingleWeights, WeightCosts, WeightGroup, moments_of, named_layers

_WHOLE: Final = 32
"""Bits of a float."""
_COUNTS: Final = tuple(_WHOLE - bits for bits in range(MOST_BITS, LEAST_BITS - 1, -1))
"""How many of them can go."""


@dataclass(frozen=True, eq=False)
class BitUnits(Granularity):
    """The bits that are left, of the weights and channels that earlier rounds left."""

    graph: Graph
    options: UnitOptions
    weights: SingleWeights
    layers: tuple[int, ...]
    """Those that can have fewer bits."""
    held: Mapping[int, Grid] = field(default_factory=dict)

    name: ClassVar[str] = BITS
    criteria: ClassVar[tuple[str, ...]] = GRIDS
    saves: ClassVar[str] = BITS

    @classmethod
    def of(cls, graph: Graph, options: UnitOptions, mask: Mask | None = None, branches: Sequence[int] = ()) -> Self:
        weights = SingleWeights.of(graph, UnitOptions("weight"), mask, branches)
        possible = [graph.layers[index] for index in quantizable_layers(graph)]
        return cls(graph, options, weights, tuple(named_layers(options.only or (), possible)))

    def on(self, grids: Mapping[int, Grid]) -> Self:
        return replace(self, held=dict(grids))

    @property
    def grids(self) -> Mapping[int, Grid]:
        return self.held

    @staticmethod
    def default_criterion(refits: bool) -> str:
        return GRIDS[0]

    @cached_property
    def consumers(self) -> Mapping[int, Consumer]:
        """The layers that can have fewer bits."""
        known = quantizable_layers(self.graph)
        return {index: known[index] for index in self.layers}

    @cached_property
    def groups(self) -> Sequence[WeightGroup]:
        """Of layers of which weights are left: zeros cost no bits."""
        mask = self.mask()

        def there(index: int) -> int:
            shape = next(spec.shape for spec in self.graph.layers[index].tensors() if spec.name == "weight")
            kept = mask.layers[index].get("weight")
            return int(np.prod(shape)) if kept is None else int(kept.sum())

        return tuple(WeightGroup(index, _WHOLE, count, _COUNTS) for index in self.layers if (count := there(index)))

    @property
    def branches(self) -> tuple[int, ...]:
        return self.weights.branches

    @property
    def not_compensated(self) -> tuple[int, ...]:
        return tuple(index for index, consumer in self.consumers.items() if consumer.bytes > LARGEST)

    def left(self, group: Group) -> int:
        grid = self.grids.get(int(group.label))
        return _WHOLE if grid is None else grid.bits

    def mask(self) -> Mask:
        return self.weights.mask()

    def statistics(self, model: Model, batches: Sequence[Tensor], device: str | torch.device) -> BitStatistics:
        return BitStatistics(self, model, batches, device)

    def costs(self, price: Price, orders: Orders) -> WeightCosts:
        """Weights, each as the share of its bits that is left; a price by channels tells nothing of them."""
        return WeightCosts(self.groups, self.count())

    def changed(self, group: Group) -> list[int]:
        return list(group.producers)

    def prune(
        self, model: Model, selection: Selection, batches: Sequence[Tensor], device: str | torch.device
    ) -> tuple[Self, Model]:
        """Front to back, each layer for inputs as those before it give them."""
        bits = self._bits(selection.counts)
        how = Quantization(bits, selection.criterion, feedback=selection.compensation == REFIT)
        done, grids = quantize(model, how, batches, device=device)
        return self.on({**self.grids, **grids}), self.mask().apply(done)

    def prune_group(self, model: Model, selection: Selection, statistics: Any, device: str | torch.device) -> Model:
        known, changed = cast(BitStatistics, statistics), {}
        for index, bits in self._bits(selection.counts).items():
            weight = matrix(model, self.consumers[index]).to(device)
            problem = known.problem(index, weight) if selection.compensation == REFIT else None
            changed[index] = quantized_layer(model.weights.layers[index], weight, problem, bits, selection.criterion)[1]
        return model.with_arrays(changed)

    def rechosen(self, counts: Allocation, orders: Orders, weights: Weights) -> Self:
        raise InputError("--schedule: expected a round of channels or weights, found one of bits")

    def slim(self, model: Model) -> Model:
        return self.weights.slim(model)

    def slim_graph(self) -> Graph:
        return self.weights.slim_graph()

    def _bits(self, counts: Allocation) -> dict[int, int]:
        """Of the layers that get fewer."""
        wanted = {group: _WHOLE - counts.get(group.label, 0) for group in self.groups}
        return {group.layer: bits for group, bits in wanted.items() if bits < self.left(group)}


class BitStatistics:
    """What calibration images tell of layers' inputs in the network before; computed when asked for."""

    def __init__(self, units: BitUnits, model: Model, batches: Sequence[Tensor], device: str | torch.device) -> None:
        self._units, self._model, self._batches, self._device = units, model, batches, device
        self._latest: tuple[int, LayerProblem] | None = None

    @cached_property
    def _moments(self) -> Mapping[int, Moments]:
        wanted = [self._units.consumers[group.layer] for group in self._units.groups]
        return moments_of(self._model, wanted, self._batches, self._device)

    def problem(self, index: int, weight: Tensor) -> LayerProblem | None:
        """A layer's, kept while it is asked for; None without moments. weight: [groups, n, D]."""
        if index not in self._moments:
            return None
        if self._latest is None or self._latest[0] != index:
            self._latest = index, LayerProblem.of(weight, self._moments[index], weight != 0)
        return self._latest[1]
