"""`train`: a network from scratch, or from the first layers of another."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from yoloprune.darknet import weights as weights_file
from yoloprune.darknet.data import read_data
from yoloprune.darknet.dialect import dialect_named
from yoloprune.darknet.model import Graph, Model, load_graph
from yoloprune.darknet.pretrained import read_pretrained
from yoloprune.darknet.weights import Header, Weights
from yoloprune.detect.load import load_images, load_measure
from yoloprune.errors import InputError
from yoloprune.options import Settings, TrainOptions
from yoloprune.progress import OnProgress, silent
from yoloprune.steps.inputs import find_data
from yoloprune.steps.job import figures_of
from yoloprune.steps.training import Training, warn_of_no_gain, with_options
from yoloprune.train.ranks import rank_of
from yoloprune.train.recipe import Recipe
from yoloprune.train.run_folder import CHART, CHECKPOINT, LOG
from yoloprune.workspace import Figures

MEASUREMENTS = 20
"""Times that accuracy is measured in a run, the end included."""
_REMEDY = "try a lower learning_rate= in [net] or more --iterations"
_OPTIONS, _SETTINGS = TrainOptions(), Settings()


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
    options: TrainOptions = _OPTIONS,
    *,
    settings: Settings = _SETTINGS,
    device: str = "cpu",
    force: bool = False,
    dry_run: bool = False,
    progress: OnProgress = silent,
) -> TrainedNetwork:
    """Train as [net] says and write best and last weights, log and chart to `out`.

    out: left out, the .data file's `backup`, as Darknet has it. settings: how the network is read and measured. An
    interrupted run goes on from its checkpoint in `out`; force starts anew and replaces what is there. InputError for
    weights that are there without force, options that contradict each other, and as `loop.train`.
    """
    graph = load_graph(cfg, dialect_named(settings.dialect))
    known = read_data(find_data(cfg, data))
    out = out or known.backup
    best, last = out / f"{cfg.stem}-best.weights", out / f"{cfg.stem}-last.weights"
    if not force and (best.exists() or last.exists()):
        raise InputError("exists already; --force trains anew", file=best if best.exists() else last)
    recipe = Recipe.from_graph(graph, iterations=options.iterations, seed=options.seed, letterbox=settings.letterbox)
    recipe = with_options(recipe, options, device, MEASUREMENTS)
    weights, taken = _start(graph, options)
    # A network that has been trained before may be no better for more of it; a new head finds nothing yet.
    recipe = replace(recipe, evaluate_start=taken == len(graph.layers))
    model = Model(graph, weights)
    training = Training("train", model, load_images(known, "train", graph), recipe, out, best, last, options)
    metric, limit = settings.metric, settings.images
    measure = load_measure(graph, known, metric=metric, letterbox=settings.letterbox, limit=limit, device=device)
    training.check_pictures(measure, progress)
    unwritten = TrainedNetwork(None, best, last, out / LOG, out / CHART, 0, recipe.iterations, taken)
    if dry_run:
        return unwritten

    if force and not rank_of():
        for file in (best, last, out / CHECKPOINT):
            file.unlink(missing_ok=True)
    pretrained = f"the first {taken} of {len(graph.layers)} layers from {options.pretrained}"
    training.announce(device, pretrained if options.pretrained else "from scratch", progress)
    trained = training.run(measure, device, progress)
    if trained is None:
        return unwritten
    assert trained.best_metric is not None  # measured at the end at the least
    training.write(trained)
    warn_of_no_gain(trained, measure.steering, _REMEDY)
    figures = figures_of(model.with_weights(trained.best), measure.steering, trained.best_metric)
    return replace(unwritten, figures=figures, iteration=trained.best_iteration)


def _start(graph: Graph, options: TrainOptions) -> tuple[Weights, int]:
    """Weights to begin with, and how many of the first layers come from the pretrained file."""
    if options.pretrained is None:
        if options.pretrained_layers is not None:
            raise InputError("--pretrained-layers: expected --pretrained with it, found none")
        return weights_file.initial(graph.layers, options.seed), 0
    weights, taken = read_pretrained(options.pretrained, graph, options.seed, options.pretrained_layers)
    return replace(weights, header=Header()), taken
