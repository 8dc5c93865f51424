"""What an analysis would do, for `--dry-run`."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from yoloprune.choices import NOTHING
from yoloprune.detect.measure import network_for_measuring
from yoloprune.options import AnalysisOptions, Settings
from yoloprune.prune.granularities import units_of
from yoloprune.prune.pruner import Pruner
from yoloprune.prune.sensitivity import grid_counts
from yoloprune.steps.inputs import Inputs
from yoloprune.steps.method import resolved

_TYPICAL: Final = 4
"""Measurements of a group without a grid."""


@dataclass(frozen=True)
class Forecast:
    """What an analysis would do."""

    groups: int
    points: int
    """Measurements; without a grid about as many as are usual."""
    images: int
    """Pictures of each."""
    seconds: float
    """An estimate, from one measurement: refitting comes on top."""


def forecast(
    cfg: Path,
    weights: Path,
    data: Path | None,
    options: AnalysisOptions,
    *,
    settings: Settings = Settings(),  # noqa: B008 - a frozen value
    device: str = "cpu",
) -> Forecast:
    """What `ana` would measure from the start, and how long one measurement takes; nothing is written."""
    options = resolved(options)
    inputs = Inputs.opened(cfg, weights, data, settings, device)
    measure, network = inputs.measure, network_for_measuring(inputs.original, device)
    started = time.monotonic()
    measure.accuracy(network)
    once = time.monotonic() - started
    units = units_of(inputs.graph, options.units)
    pruner = Pruner(inputs.original, units, compensation=NOTHING)
    curves = [pruner.curve(group, ()) for group in pruner.prunable]
    grid = options.sparsities
    points = sum(len(grid_counts(curve, grid)) if grid else _TYPICAL for curve in curves)
    return Forecast(len(curves), points, len(measure.pictures), once * points)
