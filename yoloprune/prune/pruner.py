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
from yoloprune.prune.granularity import Granularity, Group
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
        """Groups of which at least two units are left."""
        return [group for group in self.units.groups if self.units.kept(group).sum() > 1]

    def order(self, criterion: str, group: Group) -> tuple[int, ...]:
        """Positions in the group in the order they go; those gone already first."""
        return self.units.rank(group, criterion, self.statistics)

    def curve(self, group: Group, order: tuple[int, ...]) -> Curve:
        """One without points."""
        return Curve(group.producers, group.size, order, int((~self.units.kept(group)).sum()))

    def first_curves(self, criterion: str) -> tuple[Curve, ...]:
        """Curves without points, each with the order in which its units go."""
        return tuple(self.curve(group, self.order(criterion, group)) for group in self.prunable)

    def changed(self, curve: Curve) -> list[int]:
        """The layers that pruning of this group changes."""
        return self.units.changed(next(group for group in self.units.groups if group.label == curve.label))

    def alone(self, curve: Curve, pruned: int) -> Model:
        """The model without the first so many units of a group."""
        units = self.units.without({curve.label: curve.order[:pruned]})
        return units.prune_group(self.model, self.compensation, self.statistics, self.device)

    def together(self, units: Granularity) -> Model:
        """The model without what isn't left in `units`, of several groups at once."""
        return units.prune(self.model, self.compensation, self.batches, self.device)
