"""What is pruned: `plan.json`, and the mask beside it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Self

from yoloprune.artefacts import atomic_path, load_json, read_bytes, save_json, sha256, typed
from yoloprune.darknet import mask as mask_file
from yoloprune.darknet.model import Graph
from yoloprune.errors import InputError
from yoloprune.options import PruneOptions, UnitOptions
from yoloprune.prune.granularities import units_of
from yoloprune.prune.granularity import Granularity
from yoloprune.prune.grid_file import load_grids, save_grids

MASK: Final = "mask.bits"
GRIDS: Final = "grids.json"
"""Files beside `plan.json`."""


@dataclass(frozen=True)
class Plan:
    """What is pruned, from the first round on, in the original network's channel numbers."""

    cfg: str
    """SHA-256 of the original .cfg."""
    unit: UnitOptions
    """What a unit is."""
    pruned: Mapping[str, int]
    """For each group by label, how many units are pruned."""
    mask: str
    """SHA-256 of `mask.bits`, which says which."""
    options: PruneOptions
    """By which the last round was pruned, for the reader."""
    accuracy: Mapping[str, float]
    """Measured: `original`, `before` this round's pruning and `after` it."""
    grids: str = ""
    """SHA-256 of `grids.json`, which says what values weights take; empty where it isn't there."""
    branches: tuple[int, ...] = ()
    """Residual branches that are gone, each by the layer that adds it."""

    @classmethod
    def save(
        cls, path: Path, cfg: str, units: Granularity, options: PruneOptions, accuracy: Mapping[str, float]
    ) -> Self:
        """Write `plan.json`, and the mask before it."""
        bits = mask_file.dump(units.mask(), units.graph.layers)
        with atomic_path(_beside(path, MASK)) as temporary:
            temporary.write_bytes(bits)
        digest = hashlib.sha256(bits).hexdigest()
        grids = _beside(path, GRIDS)
        if units.grids:
            save_grids(grids, units.grids)
        known = sha256(grids) if units.grids else ""
        plan = cls(cfg, units.options, units.count(), digest, options, dict(accuracy), known, units.branches)
        save_json(path, "plan", asdict(plan))
        return plan

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read `plan.json`. InputError if it is not what `save` writes."""
        return typed(cls, load_json(path, "plan"), path)

    def units(self, graph: Graph, path: Path) -> Granularity:
        """What is left of a graph's units by the mask beside the plan's file. InputError unless all three fit."""
        file = _beside(path, MASK)
        bits = read_bytes(file)
        if hashlib.sha256(bits).hexdigest() != self.mask:
            raise InputError(f"expected the mask of {path.name} (sha256 {self.mask[:12]}), found another", file=file)
        mask = mask_file.parse(bits, graph.layers, str(file))
        grids_file = _beside(path, GRIDS)
        if self.grids and sha256(grids_file) != self.grids:
            raise InputError(f"expected the grids of {path.name}, found others", file=grids_file)
        grids = load_grids(grids_file, graph) if self.grids else {}
        try:
            units = units_of(graph, self.unit, mask, self.branches, grids)
        except InputError as error:
            raise InputError(str(error), file=path) from error
        if units.count() != self.pruned:
            raise InputError("pruned: expected the counts of this cfg's groups by the mask, found others", file=path)
        return units


def _beside(path: Path, name: str) -> Path:
    """`mask.bits` beside `plan.json`, `trained-mask.bits` beside `trained-plan.json`."""
    return path.with_name(path.name.replace("plan.json", name))
