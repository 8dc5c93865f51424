"""All cuts of one network: which channels go first, one group alone, all together; refitted where pictures tell."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from yoloprune.choices import NOTHING, REFIT
from yoloprune.darknet.model import Model
from yoloprune.darknet.network import build
from yoloprune.prune.channels import Channels, Group, KeepMask
from yoloprune.prune.compensate import compensate, compensate_alone
from yoloprune.prune.criteria import CRITERIA, CalibrationStatistics
from yoloprune.prune.moments import Consumer, Moments, affordable, collect, consumers, summed
from yoloprune.prune.recalibrate import recalibrate, restate
from yoloprune.prune.sensitivity import Curve
from yoloprune.prune.slim import mask


@dataclass(frozen=True)
class Pruner:
    """A network, what is left of it, and how it is cut."""

    model: Model
    channels: Channels
    keep: KeepMask
    """Units that are still there."""
    pictures: Callable[[], Sequence[Tensor]] = field(default=list)
    """Calibration pictures as network input, batches [B,C,H,W]; called once, when they are needed. None: plain cuts."""
    compensation: str = REFIT
    """What the pictures are used for beside the criteria, one of COMPENSATIONS."""
    device: str | torch.device = "cpu"

    @cached_property
    def batches(self) -> Sequence[Tensor]:
        """The calibration pictures."""
        return self.pictures()

    @cached_property
    def consumers(self) -> Mapping[int, Consumer]:
        """What reads channels that can go, in the form that memory allows."""
        return {**self._all_consumers, **self._affordable}

    @property
    def not_refitted(self) -> tuple[int, ...]:
        """Consumers that are too large in any form: criteria know nothing of them, and they are cut plainly."""
        return tuple(layer for layer in self._all_consumers if layer not in self._affordable)

    @cached_property
    def _all_consumers(self) -> Mapping[int, Consumer]:
        return consumers(self.model.graph, self.channels)

    @cached_property
    def _affordable(self) -> Mapping[int, Consumer]:
        return affordable(self._all_consumers.values())

    @cached_property
    def statistics(self) -> CalibrationStatistics:
        """What the pictures tell the criteria."""
        about = (self.model, self.channels, self.keep, self.consumers)
        return CalibrationStatistics(*about, self._moments, batches=self.batches, device=self.device)

    def _moments(self) -> Mapping[int, Moments]:
        if not self.batches:
            return {}
        images = sum(map(len, self.batches))
        return collect(build(self.model, self.device), self.batches, self._affordable.values(), images)

    def order(self, criterion: str, group: Group) -> tuple[int, ...]:
        """Positions in the group in the order they go; those gone already first."""
        return CRITERIA[criterion](self.statistics, group)

    def first_curves(self, criterion: str) -> tuple[Curve, ...]:
        """Curves without points, each with the order in which its units go."""
        return tuple(self.curve(group, self.order(criterion, group)) for group in self.cuttable)

    @property
    def cuttable(self) -> list[Group]:
        """Groups of which at least two units are left."""
        return [group for group in self.channels.groups if self.keep[group.units].sum() > 1]

    def curve(self, group: Group, order: tuple[int, ...]) -> Curve:
        """One without points."""
        return Curve(group.producers, len(group.units), order, int((~self.keep[group.units]).sum()))

    def readers(self, curve: Curve) -> list[int]:
        """The layers that a cut of this group changes: what doesn't depend on them stays the same, in kept channels."""
        units = next(group.units for group in self.channels.groups if group.producers == curve.producers)
        read = summed(self.model.graph, self.channels)
        return [index for index, each in read.items() if np.isin(each, units).any()] or list(curve.producers)

    def alone(self, keep: KeepMask) -> Model:
        """The cut of one group; refitted without a look at the pictures."""
        if self.compensation == REFIT and self.batches:
            return compensate_alone(self.model, self.channels, keep, self.consumers, self.statistics.moments)
        return self.together(keep)

    def together(self, keep: KeepMask) -> Model:
        """The cut of several groups at once, front to back."""
        if not self.batches or keep.sum() == self.keep.sum() or self.compensation == NOTHING:
            return mask(self.model, self.channels, keep)
        about = (self.model, self.channels, keep, self.batches)
        if self.compensation != REFIT:
            return recalibrate(*about, device=self.device)
        pruned = compensate(*about, device=self.device)
        return restate(self.model, pruned, self.channels, keep, self.batches, device=self.device)
