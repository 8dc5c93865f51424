"""What a unit of pruning is: the one interface that analysis, allocation, rounds and files know.

A granularity divides what can be pruned of a network into units, and units into groups. All that asks how much of each
group goes, at what loss and for what saving, knows groups and counts; which values those are, only the granularity.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from yoloprune.darknet.grid import Grid
from yoloprune.darknet.mask import Mask
from yoloprune.darknet.model import Graph, Model
from yoloprune.darknet.weights import Weights
from yoloprune.options import UnitOptions
from yoloprune.prune.cost import Price

Allocation = Mapping[str, int]
"""For each group by label, how many of its units are pruned."""
Orders = Mapping[str, Sequence[int]]
"""For each group by label, positions of its units in the order they go; empty where which go depends on how many."""


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

    @property
    def counts(self) -> Sequence[int]:
        """How many units may be pruned, growing, where not any number may; else empty."""


@dataclass(frozen=True)
class Selection:
    """Which units go, and what makes up for them."""

    counts: Allocation
    """Of groups that aren't named, no more go."""
    orders: Orders
    criterion: str
    compensation: str
    """One of COMPENSATIONS."""


class AllocationCosts(Protocol):
    """What a network costs when so many units of each group are pruned."""

    whole: float
    """Of the network as the cfg has it."""
    each_saves: bool
    """Whether every unit that goes saves something."""

    def total(self, allocation: Allocation) -> float:
        """Of all layers; groups that aren't named are as they are."""

    def around(self, label: str, allocation: Allocation, counts: Sequence[int]) -> NDArray[np.float64]:
        """Of the layers whose cost depends on a group, for each of `counts` of it [n]; others as in `allocation`."""


class Granularity(ABC):
    """The units of a network, and which of them are left; a frozen value."""

    name: ClassVar[str]
    """What `--granularity` and files call it."""
    criteria: ClassVar[tuple[str, ...]]
    """What `--criterion` can be."""
    saves: ClassVar[str]
    """What pruning saves unless the user names something else: one of OBJECTIVES."""
    ordered: ClassVar[bool] = False
    """Whether a group's units go in one order, whatever their number."""
    graph: Graph
    options: UnitOptions

    @classmethod
    @abstractmethod
    def of(cls, graph: Graph, options: UnitOptions, mask: Mask | None = None, branches: Sequence[int] = ()) -> Self:
        """The units of a graph: those that `mask` keeps, default all, without residual branches that are gone.

        options: of this granularity. branches: each by the layer that adds it. InputError for what doesn't fit the
        graph.
        """

    @staticmethod
    @abstractmethod
    def default_criterion(refits: bool) -> str:
        """The best there is, where what stays is refitted or isn't."""

    @property
    @abstractmethod
    def groups(self) -> Sequence[Group]:
        """All groups, in an order that stays."""

    @abstractmethod
    def left(self, group: Group) -> int:
        """How many units of a group are left."""

    def fits(self, group: Group, order: Sequence[int]) -> bool:
        """Whether a group's units, as they are left, can go in this order. Here there is none."""
        return not order

    @abstractmethod
    def mask(self) -> Mask:
        """Which values are kept."""

    @abstractmethod
    def statistics(self, model: Model, batches: Sequence[Tensor], device: str | torch.device) -> Any:
        """Calibration statistics: what ranking and compensation need to know of the model, computed when asked for.

        batches: calibration images as network input [B,C,H,W]; may be empty.
        """

    def rank(self, group: Group, criterion: str, statistics: Any) -> tuple[int, ...]:
        """Positions in the group in the order they go, those that are gone already first; here there is none."""
        return ()

    @abstractmethod
    def costs(self, price: Price, orders: Orders) -> AllocationCosts:
        """What allocations cost in which groups go in these orders.

        price: of a layer by its channels, where that tells.
        """

    @abstractmethod
    def changed(self, group: Group) -> list[int]:
        """Layers that pruning of a group changes: what doesn't depend on them stays the same."""

    @abstractmethod
    def prune(
        self, model: Model, selection: Selection, batches: Sequence[Tensor], device: str | torch.device
    ) -> tuple[Self, Model]:
        """What is left of the units, and the model with the others masked and compensated for together.

        batches: calibration images as network input [B,C,H,W]; without any, nothing compensates.
        """

    @abstractmethod
    def prune_group(self, model: Model, selection: Selection, statistics: Any, device: str | torch.device) -> Model:
        """The model with units of one group masked and compensated for, from statistics alone."""

    @abstractmethod
    def rechosen(self, counts: Allocation, orders: Orders, weights: Weights) -> Self:
        """The units of which so many are gone: in these orders, or where there is none, the smallest by magnitude."""

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
    def grids(self) -> Mapping[int, Grid]:
        """What layers' weights are values of, by their index. Here: of any."""
        return {}

    def on(self, grids: Mapping[int, Grid]) -> Self:
        """The same with layers' weights on these grids. Here there are none."""
        return self

    @property
    def branches(self) -> tuple[int, ...]:
        """Residual branches that are gone, each by the layer that adds it."""
        return ()

    def count(self) -> Allocation:
        """How many units of each group are pruned."""
        return {group.label: group.size - self.left(group) for group in self.groups}
