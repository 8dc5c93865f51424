"""`train`: a network from scratch, or from the first layers of another."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

from yoloprune.darknet import weights as weights_file
from yoloprune.darknet.data import read_data
from yoloprune.darknet.dialect import dialect_named
from yoloprune.darknet.model import Model, load_graph
from yoloprune.darknet.pretrained import read_pretrained
from yoloprune.darknet.weights import Header
from yoloprune.detect.measure import load_measure
from yoloprune.errors import InputError
from yoloprune.progress import OnProgress, Progress, silent
from yoloprune.steps.job import check_readable, figures_of, find_data
from yoloprune.steps.training import announce, follower, measured_by, mixed_precision, train_images, warn_of_no_gain
from yoloprune.train.loop import CHART, CHECKPOINT, LOG, train
from yoloprune.train.processes import joined
from yoloprune.train.ranks import rank_of
from yoloprune.train.recipe import Recipe
from yoloprune.workspace import Figures

MEASUREMENTS = 20
"""Times that accuracy is measured in a run, the end included."""


@dataclass(frozen=True)
class TrainedNetwork:
    """What training made."""

    figures: Figures | None
    """Of the best weights; None after a dry run."""
    best: Path
    last: Path
    log: Path
    chart: Path
    iteration: int
    """After which update accuracy was best; 0: before the first."""
    iterations: int
    """Updates of the run."""
    layers: int
    """First layers that came from the pretrained file."""


def train_network(
    cfg: Path,
    data: Path | None = None,
    out: Path | None = None,
    *,
    pretrained: Path | None = None,
    pretrained_layers: int | None = None,
    iterations: int = 0,
    dialect: str = "alexeyab",
    letterbox: bool | None = None,
    metric: str | None = None,
    images: int | None = None,
    ema: float | None = None,
    early_stop: int = 0,
    bf16: bool = False,
    device: str = "cpu",
    seed: int = 0,
    workers: int = 2,
    force: bool = False,
    dry_run: bool = False,
    progress: OnProgress = silent,
) -> TrainedNetwork:
    """Train as [net] says, for `iterations` updates, 0: its max_batches, and write best and last weights to `out`.

    out: left out, the .data file's `backup`, as Darknet has it. pretrained: weights of any network whose first layers
    are this one's, to start from; pretrained_layers: so many of them, else as many as fit.
    An interrupted run goes on from its checkpoint in `out`; force starts anew and replaces what is there. ema: instead
    of the cfg's ema_alpha. early_stop: measurements without a better one after which training ends, 0: none.
    """
    graph = load_graph(cfg, dialect_named(dialect))
    known = read_data(find_data(cfg, data))
    out = out or known.backup
    best, last = out / f"{cfg.stem}-best.weights", out / f"{cfg.stem}-last.weights"
    if not force and (best.exists() or last.exists()):
        raise InputError("exists already; --force trains anew", file=best if best.exists() else last)
    recipe = Recipe.from_graph(graph, iterations=iterations, seed=seed, letterbox=letterbox)
    recipe = replace(
        recipe,
        ema_alpha=recipe.ema_alpha if ema is None else ema,
        patience=early_stop,
        bfloat16=mixed_precision(device, bf16),
        evaluate_every=math.ceil(recipe.iterations / MEASUREMENTS),
    )
    taken = 0
    if pretrained is None and pretrained_layers is not None:
        raise InputError("--pretrained-layers: expected --pretrained with it, found none")
    if pretrained is None:
        weights = weights_file.initial(graph.layers, seed)
    else:
        weights, taken = read_pretrained(pretrained, graph, seed, pretrained_layers)
        weights = replace(weights, header=Header())
        # A network that has been trained before may be no better for more of it; a new head finds nothing yet.
        recipe = replace(recipe, evaluate_start=taken == len(graph.layers))
    learnt = train_images(known, graph)
    measure = load_measure(graph, known, metric=metric, letterbox=letterbox, limit=images, device=device)
    check_readable([*learnt.images, *measure.pictures.paths], graph, progress)
    files = (best, last, out / LOG, out / CHART)
    if dry_run:
        return TrainedNetwork(None, *files, 0, recipe.iterations, taken)

    if force and not rank_of():
        for file in (best, last, out / CHECKPOINT):
            file.unlink(missing_ok=True)
    announce(progress, graph, recipe, device)
    start = f"the first {taken} of {len(graph.layers)} layers from {pretrained}" if pretrained else "from scratch"
    progress(
        Progress("train", 0, recipe.iterations, f"{recipe.iterations} iterations of {recipe.images} pictures, {start}")
    )
    model = Model(graph, weights)
    with joined(device) as place:
        trained = train(
            model,
            learnt,
            recipe,
            folder=out,
            seed=seed,
            evaluate=measure.accuracy,
            measured=measured_by(measure),
            resume=True,
            device=place,
            workers=workers,
            progress=follower(progress, "train"),
        )
    if rank_of():
        return TrainedNetwork(None, *files, 0, recipe.iterations, taken)
    assert trained.best_metric is not None  # measured at the end at the least
    weights_file.write(best, trained.best, graph.layers, force=True)
    weights_file.write(last, trained.last, graph.layers, force=True)
    warn_of_no_gain(trained, measure.steering, "try a lower learning_rate= in [net] or more --iterations")
    figures = figures_of(graph, model, measure.steering, trained.best_metric)
    return TrainedNetwork(figures, *files, trained.best_iteration, recipe.iterations, taken)
