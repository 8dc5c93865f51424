"""What can be pruned: every granularity by its name."""

from __future__ import annotations

from typing import Final

from yoloprune.errors import InputError
from yoloprune.prune.channel_units import ChannelUnits
from yoloprune.prune.granularity import Granularity

GRANULARITIES: Final[dict[str, type[Granularity]]] = {kind.name: kind for kind in (ChannelUnits,)}


def granularity_named(name: str) -> type[Granularity]:
    """The granularity of that name, or an InputError that lists them."""
    if name not in GRANULARITIES:
        raise InputError(f"--granularity: expected one of {', '.join(GRANULARITIES)}, found {name!r}")
    return GRANULARITIES[name]
