"""What can be pruned: every granularity by its name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from yoloprune.darknet.grid import Grid
from yoloprune.darknet.mask import Mask
from yoloprune.darknet.model import Graph
from yoloprune.errors import InputError
from yoloprune.options import UnitOptions
from yoloprune.prune.bit_units import BitUnits
from yoloprune.prune.channel_units import ChannelUnits
from yoloprune.prune.granularity import Granularity
from yoloprune.prune.weight_units import Blocks, Places, SingleWeights

GRANULARITIES: Final[dict[str, type[Granularity]]] = {
    kind.name: kind for kind in (ChannelUnits, SingleWeights, Blocks, Places, BitUnits)
}


def units_of(
    graph: Graph,
    options: UnitOptions,
    mask: Mask | None = None,
    branches: Sequence[int] = (),
    grids: Mapping[int, Grid] = MappingProxyType({}),
) -> Granularity:
    """The units of a graph that are left; arguments and errors as `Granularity.of` and `on`."""
    return granularity_named(options.granularity).of(graph, options, mask, branches).on(grids)


def granularity_named(name: str | None) -> type[Granularity]:
    """The granularity of that name, or an InputError that lists them."""
    if name not in GRANULARITIES:
        raise InputError(f"--granularity: expected one of {', '.join(GRANULARITIES)}, found {name!r}")
    return GRANULARITIES[name]
