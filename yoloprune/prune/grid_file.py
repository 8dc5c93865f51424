"""`grids.json`: the grids that layers' weights are on, between the steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from yoloprune.artefacts import load_json, save_json, typed
from yoloprune.darknet.grid import Grid
from yoloprune.darknet.model import Graph
from yoloprune.errors import InputError
from yoloprune.prune.quantize import quantizable_layers


@dataclass(frozen=True)
class _Stored:
    """A grid; float32 are written as they are, so that they come back bit by bit."""

    bits: int
    scales: tuple[float, ...] | None
    codebook: tuple[float, ...] | None

    @classmethod
    def of(cls, grid: Grid) -> Self:
        lists = [None if each is None else tuple(each.tolist()) for each in (grid.scales, grid.codebook)]
        return cls(grid.bits, *lists)

    def grid(self) -> Grid:
        """ValueError for what is none."""
        arrays = [None if each is None else np.array(each, np.float32) for each in (self.scales, self.codebook)]
        return Grid(self.bits, *arrays)


@dataclass(frozen=True)
class _File:
    grids: Mapping[str, _Stored]
    """By the layer's index."""


def save_grids(path: Path, grids: Mapping[int, Grid]) -> None:
    """Write the file."""
    stored = {str(index): vars(_Stored.of(grid)) for index, grid in grids.items()}
    save_json(path, "grids", {"grids": stored})


def load_grids(path: Path, graph: Graph) -> dict[int, Grid]:
    """The grids of layers of a graph, by their index. InputError for what `save_grids` doesn't write."""
    found = typed(_File, load_json(path, "grids", "the step that made it does so anew with --force"), path)
    known = quantizable_layers(graph)
    grids = {}
    for label, stored in found.grids.items():
        where = f"grids.{label}"
        if not (label.isdigit() and int(label) in known):
            raise InputError(f"{where}: expected layers among {', '.join(map(str, known))}", file=path)
        try:
            grid = stored.grid()
        except ValueError as error:
            raise InputError(f"{where}: {error}", file=path) from error
        filters = _filters(graph, int(label))
        if grid.scales is not None and len(grid.scales) != filters:
            raise InputError(f"{where}.scales: expected {filters}, found {len(grid.scales)}", file=path)
        grids[int(label)] = grid
    return grids


def _filters(graph: Graph, index: int) -> int:
    return next(spec.shape[0] for spec in graph.layers[index].tensors() if spec.name == "weight")
