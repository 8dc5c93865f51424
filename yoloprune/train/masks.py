"""What training may not change: values that are pruned, all the time or by a schedule, and grids of weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from yoloprune.darknet.grid import Grid
from yoloprune.darknet.mask import Mask
from yoloprune.darknet.network import Network


class MaskSchedule(Protocol):
    """When a mask is chosen, and which."""

    @property
    def final(self) -> int:
        """The update after which the mask stays as it is; the last one that is due."""

    @property
    def regrow(self) -> bool:
        """Whether values that are pruned may come back where a mask is chosen; else each lies within the one before."""

    @property
    def fingerprint(self) -> str:
        """Hash of all that decides which masks are chosen, but for the network."""

    def due(self, iteration: int) -> bool:
        """Whether a mask is chosen after update number `iteration`, from 1; 0: before the first."""

    def mask(self, iteration: int, network: Network) -> Mask:
        """The mask from there on, a function of the network's values alone, which it leaves as they are.

        The network is in eval mode. Where values may come back, pruned ones hold their masked value and the change of
        this one update.
        """


@dataclass(frozen=True, eq=False)
class Masks:
    """The masks of a run, and its grids."""

    always: Mask | None = None
    """Of what was pruned before, and never comes back."""
    schedule: MaskSchedule | None = None
    """Of what is pruned beside that, as the network trains."""
    grids: Mapping[int, Grid] = field(default_factory=dict)
    """By layer, what its weights are rounded to wherever the network computes, is measured, or is given back."""

    @property
    def counted_from(self) -> int:
        """The first update after which the network is one to keep, with the final mask; 0: also that of the start."""
        return max(self.schedule.final, 1) if self.schedule else 0


UNMASKED: Final = Masks()
