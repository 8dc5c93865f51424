"""Coupled channels as units: the granularity whose networks become slim."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from yoloprune.choices import CHANNEL, CHANNEL_CRITERIA, NOTHING, REFIT, SCALE
from yoloprune.darknet.mask import Mask
from yoloprune.darknet.model import Graph, Model
from yoloprune.darknet.weights import Weights
from yoloprune.errors import InputError
from yoloprune.options import UnitOptions
from yoloprune.prune import slim as slimming
from yoloprune.prune.branches import Branch, branches_named
from yoloprune.prune.channels import Channels, KeepMask, trace
from yoloprune.prune.compensate import compensate, compensate_alone
from yoloprune.prune.cost import Costs, Price
from yoloprune.prune.criteria import CRITERIA, CalibrationStatistics, default_criterion
from yoloprune.prune.granularity import Allocation, Granularity, Group, Orders, Selection
from yoloprune.prune.moments import affordable, consumers, summed
from yoloprune.prune.recalibrate import recalibrate, restate
from yoloprune.prune.scale import scale_alone, scaled


@dataclass(frozen=True, eq=False)
class ChannelUnits(Granularity):
    """Units are channels that can only go together (channels.py); a group's sparsity is pruned units over all."""

    graph: Graph
    channels: Channels
    keep: KeepMask
    """Units that are left."""
    options: UnitOptions = UnitOptions(CHANNEL)  # noqa: RUF009 - a frozen value

    name: ClassVar[str] = CHANNEL
    criteria: ClassVar[tuple[str, ...]] = CHANNEL_CRITERIA
    saves: ClassVar[str] = "bflops"
    ordered: ClassVar[bool] = True

    @classmethod
    def of(
        cls,
        graph: Graph,
        options: UnitOptions = UnitOptions(CHANNEL),  # noqa: B008 - a frozen value
        mask: Mask | None = None,
        branches: Sequence[int] = (),
    ) -> Self:
        """A unit is left if the bias of the filters that make it is kept."""
        channels = trace(graph, branches_named(graph, branches))
        keep = channels.all_kept()
        for index, kept in enumerate(() if mask is None else mask.layers):
            if "bias" in kept:
                keep[channels.outputs[index][~kept["bias"]]] = False
        for group in channels.groups:
            if not keep[group.units].any():
                raise InputError(f"nothing is left of group {group.label}")
        return cls(graph, channels, keep, options)

    @staticmethod
    def default_criterion(refits: bool) -> str:
        return default_criterion(refits)

    @property
    def groups(self) -> Sequence[Group]:
        return self.channels.groups

    @property
    def branches(self) -> tuple[int, ...]:
        return tuple(branch.sum for branch in self.channels.branches)

    @property
    def not_compensated(self) -> tuple[int, ...]:
        wanted = consumers(self.graph, self.channels)
        return tuple(set(wanted).difference(affordable(wanted.values())))

    def kept(self, group: Group) -> NDArray[np.bool_]:
        """Which units of a group are left [size]."""
        return self.keep[self._units(group.label)]

    def left(self, group: Group) -> int:
        return int(self.kept(group).sum())

    def fits(self, group: Group, order: Sequence[int]) -> bool:
        """Whether those that are gone come first."""
        gone = np.flatnonzero(~self.kept(group)).tolist()
        return len(order) == group.size and sorted(order[: len(gone)]) == gone

    def without(self, pruned: Mapping[str, Sequence[int]]) -> Self:
        """With units pruned too: for groups by label, positions in the group."""
        keep = self.keep.copy()
        for label, positions in pruned.items():
            keep[self._units(label)[list(positions)]] = False
        return replace(self, keep=keep)

    def without_branches(self, branches: Sequence[Branch]) -> Self:
        """With residual branches gone too; what is left of the others stays."""
        if not branches:
            return self
        channels = trace(self.graph, (*self.channels.branches, *branches))
        return replace(self, channels=channels, keep=self.channels.carried(self.keep, channels))

    def mask(self) -> Mask:
        return slimming.channel_mask(self.graph, self.channels, self.keep)

    def statistics(self, model: Model, batches: Sequence[Tensor], device: str | torch.device) -> CalibrationStatistics:
        return CalibrationStatistics(model, self.channels, self.keep, batches, device)

    def rank(self, group: Group, criterion: str, statistics: Any) -> tuple[int, ...]:
        return CRITERIA[criterion](statistics, self.channels.group(group.label))

    def costs(self, price: Price, orders: Orders) -> ChannelCosts:
        return ChannelCosts(self, price, orders)

    def changed(self, group: Group) -> list[int]:
        """The consumers of its channels, in which all else that changes is masked; without any, their producers."""
        units, read = self._units(group.label), summed(self.graph, self.channels)
        return [index for index, each in read.items() if np.isin(each, units).any()] or list(group.producers)

    def rechosen(self, counts: Allocation, orders: Orders, weights: Weights) -> Self:
        return self.without({label: orders[label][:count] for label, count in counts.items()})

    def prune(
        self, model: Model, selection: Selection, batches: Sequence[Tensor], device: str | torch.device
    ) -> tuple[Self, Model]:
        units = self.rechosen(selection.counts, selection.orders, model.weights)
        return units, units.compensated(model, selection.compensation, batches, device)

    def prune_group(self, model: Model, selection: Selection, statistics: Any, device: str | torch.device) -> Model:
        units = self.rechosen(selection.counts, selection.orders, model.weights)
        return units.compensated_alone(model, selection.compensation, statistics, device)

    def compensated(
        self, model: Model, compensation: str, batches: Sequence[Tensor], device: str | torch.device
    ) -> Model:
        """The model with the units that aren't left masked, and compensated for front to back: consumers refitted or
        scaled, or batch norm recalibrated.
        """
        if not batches or compensation == NOTHING or self.keep.all():
            return self.mask().apply(model)
        about = (self.channels, self.keep, batches)
        if compensation == SCALE:
            return compensate(model, *about, fit=scaled, device=device)
        if compensation != REFIT:
            return recalibrate(model, self.mask().apply(model), *about, device=device)
        return restate(model, compensate(model, *about, device=device), *about, device=device)

    def compensated_alone(self, model: Model, compensation: str, statistics: Any, device: str | torch.device) -> Model:
        """Likewise where units of one group went: refitted or scaled from the moments of the network before; anything
        else front to back.
        """
        if compensation == REFIT and statistics.batches:
            about = (model, self.channels, self.keep)
            return compensate_alone(*about, statistics.consumers, statistics.moments)
        if compensation == SCALE and statistics.batches:
            return scale_alone(model, self.channels, self.keep, statistics.contributions)
        return self.compensated(model, compensation, statistics.batches, device)

    def slim(self, model: Model) -> Model:
        return slimming.slim(model, self.channels, self.keep)

    def slim_graph(self) -> Graph:
        return slimming.slim_graph(self.graph, self.channels, self.keep)

    def _units(self, label: str) -> NDArray[np.int64]:
        return self.channels.group(label).units


class ChannelCosts:
    """What a network costs slimmed to what an allocation leaves (an `AllocationCosts`)."""

    each_saves = False

    def __init__(self, units: ChannelUnits, price: Price, orders: Orders) -> None:
        self._costs = Costs(units.graph, units.channels, price, units.keep)
        self.whole = self._costs.whole
        self._orders = {label: units.channels.group(label).units[list(order)] for label, order in orders.items()}
        self._keep = units.channels.all_kept()
        self._pruned = dict.fromkeys(orders, 0)

    def total(self, allocation: Allocation) -> float:
        """Of all layers."""
        return self._costs.total(self._kept(allocation))

    def around(self, label: str, allocation: Allocation, counts: Sequence[int]) -> NDArray[np.float64]:
        """Of the layers that a group's channels are made in, pass through or are read by [n]."""
        units = self._orders[label]
        keeps = np.tile(self._kept(allocation), (len(counts), 1))
        keeps[:, units] = True
        for row, count in zip(keeps, counts, strict=True):
            row[units[:count]] = False
        return self._costs.around(label, keeps)

    def _kept(self, allocation: Allocation) -> KeepMask:
        """The keep mask; of the last one only what differs changes."""
        for label, units in self._orders.items():
            count = allocation.get(label, 0)
            if count != self._pruned[label]:
                self._keep[units] = True
                self._keep[units[:count]] = False
                self._pruned[label] = count
        return self._keep
