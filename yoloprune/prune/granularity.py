"""What a unit of pruning is: the one interface that analysis, allocation, rounds and files know.

A granularity divides what can be pruned of a network into units, and units into groups. All that asks how much of each
group goes, at what loss and for what saving, knows groups and counts; which values those are, only the granularity.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from yoloprune.darknet.mask import Mask
from yoloprune.darknet.model import Graph, Model
from yoloprune.prune.cost import Price

Allocation = Mapping[str, int]
"""For each group by label, how many of its units are pruned."""


class Group(Protocol):
    """Units of which any number can go."""

    @property
    def label(self) -> str:
        """A name that is stable for a cfg."""

    @property
    def size(self) -> int:
        """Number of units."""

    @property
    def producers(self) -> tuple[int, ...]:
        """Layers that lose values of their own with a unit."""


class AllocationCosts(Protocol):
    """What a network costs when the first so many units of each group's order are pruned."""

    whole: float
    """Of the network as the cfg has it."""

    def total(self, allocation: Allocation) -> float:
        """Of all layers; groups that aren't named are as they are."""

    def around(self, label: str, allocation: Allocation, counts: Sequence[int]) -> NDArray[np.float64]:
        """Of the layers whose cost depends on a group, for each of `counts` of it [n]; others as in `allocation`."""


class Granularity(ABC):
    """The units of a network, and which of them are left; a frozen value."""

    name: ClassVar[str]
    """What `--granularity` and files call it."""
    graph: Graph

    @classmethod
    @abstractmethod
    def of(cls, graph: Graph, mask: Mask | None = None, branches: Sequence[int] = ()) -> Self:
        """The units of a graph: those that `mask` keeps, default all, without residual branches that are gone.

        branches: each by the layer that adds it. InputError for what doesn't fit the graph.
        """

    @property
    @abstractmethod
    def groups(self) -> Sequence[Group]:
        """All groups, in an order that stays."""

    @abstractmethod
    def kept(self, group: Group) -> NDArray[np.bool_]:
        """Which units of a group are left [size]."""

    @abstractmethod
    def without(self, pruned: Mapping[str, Sequence[int]]) -> Self:
        """With units pruned too: for groups by label, positions in the group."""

    @abstractmethod
    def mask(self) -> Mask:
        """Which values are kept."""

    @abstractmethod
    def statistics(self, model: Model, batches: Sequence[Tensor], device: str | torch.device) -> Any:
        """Calibration statistics: what ranking and compensation need to know of the model, computed when asked for.

        batches: calibration images as network input [B,C,H,W]; may be empty.
        """

    @abstractmethod
    def rank(self, group: Group, criterion: str, statistics: Any) -> tuple[int, ...]:
        """Positions in the group in the order they go; those that are gone already first."""

    @abstractmethod
    def costs(self, price: Price, orders: Mapping[str, Sequence[int]]) -> AllocationCosts:
        """What allocations cost in which groups go in these orders. price: of a layer by its channels."""

    @abstractmethod
    def changed(self, group: Group) -> list[int]:
        """Layers that pruning of a group changes: what doesn't depend on them stays the same."""

    def prune(self, model: Model, compensation: str, batches: Sequence[Tensor], device: str | torch.device) -> Model:
        """The model with the units that aren't left masked, and compensated for together. Here: only masked."""
        return self.mask().apply(model)

    def prune_group(self, model: Model, compensation: str, statistics: Any, device: str | torch.device) -> Model:
        """Likewise where one group was pruned, from statistics alone."""
        return self.mask().apply(model)

    def slim(self, model: Model) -> Model:
        """The model without what isn't left, where the granularity removes anything. Here: masked, as large."""
        return self.mask().apply(model)

    def slim_graph(self) -> Graph:
        """The graph of `slim`."""
        return self.graph

    @property
    def not_compensated(self) -> tuple[int, ...]:
        """Layers that are only masked, since what compensation needs to know of them doesn't fit in memory."""
        return ()

    @property
    def branches(self) -> tuple[int, ...]:
        """Residual branches that are gone, each by the layer that adds it."""
        return ()

    def count(self) -> Allocation:
        """How many units of each group are pruned."""
        return {group.label: int((~self.kept(group)).sum()) for group in self.groups}
