"""A network and how it is pruned: one group alone, or all together; compensated where calibration images tell."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from yoloprune.choices import REFIT
from yoloprune.darknet.model import Model
from yoloprune.prune.granularity import Allocation, Granularity, Group, Orders, Selection
from yoloprune.prune.sensitivity import Curve


@dataclass(frozen=True)
class Pruner:
    """A model, the units that are left of it, and what makes up for more of them going."""

    model: Model
    units: Granularity
    images: Callable[[], Sequence[Tensor]] = field(default=list)
    """Calibration images as network input, batches [B,C,H,W]; called once, when needed. None: nothing compensates."""
    compensation: str = REFIT
    """What the images are used for beside ranking, one of COMPENSATIONS."""
    device: str | torch.device = "cpu"
    criterion: str = ""
    """What chooses units; left out, the best there is."""

    @cached_property
    def batches(self) -> Sequence[Tensor]:
        """The calibration images."""
        return self.images()

    @cached_property
    def statistics(self) -> Any:
        """Calibration statistics, as the granularity has them."""
        return self.units.statistics(self.model, self.batches, self.device)

    @property
    def prunable(self) -> list[Group]:
        """Groups of which at least two units are left, and more may go."""

        def may_go(group: Group) -> bool:
            left = self.units.left(group)
            return left > 1 and (not group.counts or max(group.counts) > group.size - left)

        return [group for group in self.units.groups if may_go(group)]

    def order(self, criterion: str, group: Group) -> tuple[int, ...]:
        """Positions in the group in the order they go; those gone already first. Empty where there is none."""
        return self.units.rank(group, criterion, self.statistics)

    def curve(self, group: Group, order: tuple[int, ...]) -> Curve:
        """One without points."""
        gone = group.size - self.units.left(group)
        return Curve(group.producers, group.size, order, gone, counts=tuple(group.counts))

    def first_curves(self, criterion: str) -> tuple[Curve, ...]:
        """Curves without points, each with the order in which its units go."""
        return tuple(self.curve(group, self.order(criterion, group)) for group in self.prunable)

    def changed(self, curve: Curve) -> list[int]:
        """The layers that pruning of this group changes."""
        return self.units.changed(next(group for group in self.units.groups if group.label == curve.label))

    def alone(self, curve: Curve, pruned: int) -> Model:
        """The model with so many units of a group gone, the first of its order where it has one."""
        selection = self._selection({curve.label: pruned}, {curve.label: curve.order})
        return self.units.prune_group(self.model, selection, self.statistics, self.device)

    def together(self, allocation: Allocation, orders: Orders) -> tuple[Granularity, Model]:
        """What is left of the units, and the model, with so many of several groups gone at once."""
        return self.units.prune(self.model, self._selection(allocation, orders), self.batches, self.device)

    def _selection(self, allocation: Allocation, orders: Orders) -> Selection:
        criterion = self.criterion or self.units.default_criterion(self.compensation == REFIT)
        return Selection(allocation, orders, criterion, self.compensation)
