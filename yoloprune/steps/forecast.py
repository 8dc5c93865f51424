"""What an analysis, and a training after it, would do, for `--dry-run`."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from yoloprune.choices import NOTHING
from yoloprune.detect.load import load_images
from yoloprune.detect.measure import network_for_measuring
from yoloprune.options import AnalysisOptions, FinetuneOptions, Settings
from yoloprune.prune.granularities import units_of
from yoloprune.prune.pruner import Pruner
from yoloprune.prune.sensitivity import grid_counts
from yoloprune.steps.finetune import MEASUREMENTS, recipe_of
from yoloprune.steps.inputs import Inputs
from yoloprune.steps.method import resolved
from yoloprune.train.loop import Resources, train
from yoloprune.train.supervision import Supervision

_TYPICAL: Final = 4
"""Measurements of a group without a grid."""


_TRIED: Final = 2
"""Mini-batches that tell how long training takes, after one that isn't counted."""


@dataclass(frozen=True)
class Forecast:
    """What an analysis would do, and the training of a round."""

    groups: int
    points: int
    """Measurements; without a grid about as many as are usual."""
    images: int
    """Pictures of each."""
    seconds: float
    """An estimate, from one measurement: refitting comes on top."""
    training_seconds: float | None = None
    """Of a round, accuracy measured on the way: an estimate, from a few mini-batches; None where none was asked for."""


def forecast(
    cfg: Path,
    weights: Path,
    data: Path | None,
    options: AnalysisOptions,
    *,
    settings: Settings = Settings(),  # noqa: B008 - a frozen value
    training: FinetuneOptions | None = None,
    device: str = "cpu",
) -> Forecast:
    """What `ana` would measure from the start, and how long one measurement takes; nothing is written.

    training: how a round would be trained, for how long that takes.
    """
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
    trained = None if training is None else _training_seconds(inputs, training, once, device)
    return Forecast(len(curves), points, len(measure.pictures), once * points, trained)


def _training_seconds(inputs: Inputs, options: FinetuneOptions, once: float, device: str) -> float:
    """Of the unpruned network, which takes as long as the masked one. once: seconds of a measurement of accuracy."""
    images = load_images(inputs.listed, "train", inputs.graph, labels=options.labels)
    recipe = recipe_of(inputs.graph, options, len(images.images), device, inputs.settings.letterbox)
    few = replace(recipe, iterations=1 + _TRIED, batch=recipe.mini_batch, subdivisions=1, evaluate_every=0)
    ends: list[float] = []
    supervision = Supervision(inputs.original if options.distill else None, options.labels)
    with tempfile.TemporaryDirectory(prefix="yoloprune-forecast-") as folder:
        train(
            inputs.original,
            images,
            few,
            folder=Path(folder),
            seed=options.seed,
            supervision=supervision,
            resources=Resources(device, options.workers),
            progress=lambda _: ends.append(time.monotonic()),
        )
    mini_batch = (ends[-1] - ends[0]) / _TRIED
    return mini_batch * recipe.subdivisions * recipe.iterations + once * MEASUREMENTS
