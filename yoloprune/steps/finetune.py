"""`finetune`: trains the pruned network with the mask held."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from yoloprune.darknet import weights as weights_file
from yoloprune.errors import InputError
from yoloprune.progress import OnProgress, Progress, silent
from yoloprune.prune.slim import free
from yoloprune.steps.job import check_readable, job_of, open_job
from yoloprune.steps.training import announce, follower, measured_by, mixed_precision, train_images, warn_of_no_gain
from yoloprune.train.loop import train
from yoloprune.train.processes import joined
from yoloprune.train.ranks import rank_of
from yoloprune.train.recipe import Recipe
from yoloprune.train.supervision import Supervision
from yoloprune.workspace import DEFAULT, Figures

MEASUREMENTS = 10
"""Times that accuracy is measured in a run, the end included."""


@dataclass(frozen=True)
class Finetuned:
    """What training did."""

    before: Figures
    after: Figures
    best: Path
    """Weights of the best accuracy, which later steps take."""
    last: Path
    """Weights after the last iteration."""
    iteration: int
    """After which accuracy was best; 0: before the first, so that `best` are the weights that it began with."""
    written: bool
    """False after a dry run."""


def finetune(
    *,
    epochs: float | None = None,
    iterations: int | None = None,
    learning_rate: float | None = None,
    batch: int | None = None,
    distill: bool = False,
    labels: bool = True,
    freeze: Collection[int] = (),
    ema: float | None = None,
    early_stop: int = 0,
    bf16: bool = False,
    workspace: Path = DEFAULT,
    device: str = "cpu",
    seed: int = 0,
    workers: int = 2,
    force: bool = False,
    dry_run: bool = False,
    progress: OnProgress = silent,
) -> Finetuned:
    """Train the last round's pruned weights on the train list, dropped channels held at their masks.

    Exactly one of epochs (passes over the train list) and iterations (updates). learning_rate and batch as
    `Recipe.for_finetuning` says. distill: the unpruned network teaches, beside the labels or without them. freeze:
    layers that stay as they are. ema: instead of the cfg's ema_alpha. early_stop: measurements without a better one
    after which training ends, 0: none. Where training raises accuracy at no time, the pruned weights stay the best, and
    an InputWarning says what to try. An interrupted run goes on from its checkpoint; force starts it anew.
    """
    if (epochs is None) == (iterations is None):
        raise InputError("expected one of --epochs and --iterations")
    job = open_job(workspace)
    last = job.workspace.last
    if last.finetuned and not force:
        raise InputError(f"round {last.number} is finetuned already; --force trains it anew", file=workspace)
    if last.finetuned:
        last = replace(last, finetuned=None)
        job = job_of(job.workspace.with_round(last))
    graph = job.model.graph
    if not set(freeze) < set(range(len(graph.layers))):
        raise InputError(f"--freeze: expected layers of 0..{len(graph.layers) - 1}, and not all of them")
    images = train_images(job.data, graph, labels=labels)
    teacher = job.original if distill else None
    supervision = Supervision(teacher, labels)
    letterbox = job.workspace.settings.letterbox

    def recipe_for(updates: int) -> Recipe:
        return Recipe.for_finetuning(graph, updates, learning_rate=learning_rate, batch=batch, letterbox=letterbox)

    if iterations is None:
        assert epochs is not None
        check_epochs(epochs)
        iterations = math.ceil(epochs * len(images.images) / recipe_for(1).images)
    recipe = recipe_for(iterations)
    recipe = replace(
        recipe,
        ema_alpha=recipe.ema_alpha if ema is None else ema,
        frozen=frozenset(freeze),
        patience=early_stop,
        bfloat16=mixed_precision(device, bf16),
        evaluate_every=math.ceil(iterations / MEASUREMENTS),
    )
    best = job.workspace.finetuned_file(last.number)
    folder = job.workspace.training_folder(last.number)
    final = folder / "last.weights"
    announce(progress, graph, recipe, device)
    taught = (
        "by labels" if teacher is None else "by labels and the unpruned network" if labels else "by the unpruned one"
    )
    text = f"{recipe.iterations} iterations of {recipe.images} pictures, taught {taught}"
    progress(Progress("finetune", 0, recipe.iterations, text))
    if dry_run:
        return Finetuned(last.pruned, last.pruned, best, final, 0, written=False)
    measure = job.measure(device)
    check_readable([*images.images, *measure.pictures.paths], graph, progress)
    if force and not rank_of():
        job.workspace.make_way(last.number)
    with joined(device) as place:
        trained = train(
            job.model,
            images,
            recipe,
            folder=folder,
            seed=seed,
            masks=free(graph, job.channels, job.keep),
            supervision=supervision,
            evaluate=measure.accuracy,
            measured=measured_by(measure),
            start=last.pruned.accuracy,
            resume=True,
            device=place,
            workers=workers,
            progress=follower(progress, "finetune"),
        )
    if rank_of():
        return Finetuned(last.pruned, last.pruned, best, final, 0, written=False)
    assert trained.best_metric is not None  # measured at the end at the least
    job.workspace.forget_behind(last.number)
    weights_file.write(best, trained.best, graph.layers, force=True)
    weights_file.write(final, trained.last, graph.layers, force=True)
    after = job.figures(trained.best_metric, job.keep)
    job.workspace.with_round(replace(last, finetuned=after)).save()
    warn_of_no_gain(trained, after.metric, _remedy(recipe, distill=distill))
    return Finetuned(last.pruned, after, best, final, trained.best_iteration, written=True)


def _remedy(recipe: Recipe, *, distill: bool) -> str:
    """What to try where training didn't help."""
    more = "more iterations" if distill else "more iterations or --distill"
    lower = f"a lower --learning-rate ({recipe.schedule.learning_rate:g} this time)"
    return f"try finetune --force with {lower}, {more}, or prune --force with a smaller cut (--threshold)"


def check_epochs(epochs: float) -> None:
    """InputError unless there is something to train for."""
    if not 0 < epochs < math.inf:
        raise InputError(f"--epochs: expected more than 0, found {epochs:g}")
