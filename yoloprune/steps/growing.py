"""Masks that grow to a plan's sparsity while a network trains."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from yoloprune.darknet.mask import Mask
from yoloprune.darknet.network import Network
from yoloprune.darknet.weights import Header
from yoloprune.prune.granularity import Allocation, Granularity, Orders
from yoloprune.prune.schedules import SparsitySchedule


@dataclass(frozen=True, eq=False)
class GrowingMask:
    """A schedule of a round's pruning (train/masks.py: `MaskSchedule`)."""

    schedule: SparsitySchedule
    units: Granularity
    """What was left before the round."""
    counts: Allocation
    """How many units of each group are gone in the end."""
    orders: Orders
    """In which they go; where there is none, those of the least magnitude at each step."""

    @property
    def final(self) -> int:
        """The update after which the mask stays."""
        return self.schedule.final

    @property
    def regrow(self) -> bool:
        """Whether weights may come back."""
        return self.schedule.regrow

    @property
    def fingerprint(self) -> str:
        """Hash of all that decides the masks, beside the network."""
        orders = {label: tuple(order) for label, order in self.orders.items()}
        about = (self.schedule.digest(), sorted(self.counts.items()), sorted(orders.items()), self.units.options)
        return hashlib.sha256(repr(about).encode()).hexdigest()

    def due(self, iteration: int) -> bool:
        """Whether a mask is chosen after so many updates."""
        return self.schedule.due(iteration)

    def mask(self, iteration: int, network: Network) -> Mask:
        """What is kept after so many updates."""
        before, sizes = self.units.count(), {group.label: group.size for group in self.units.groups}
        counts = {
            label: max(self.schedule.count(iteration, count, sizes[label]), before[label])
            for label, count in self.counts.items()
        }
        return self.units.rechosen(counts, self.orders, network.get_weights(Header())).mask()
