"""`finetune`: trains the pruned network with the mask held."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

from yoloprune.darknet import weights as weights_file
from yoloprune.darknet.data import load_split
from yoloprune.errors import InputError
from yoloprune.prune.slim import free
from yoloprune.steps.job import Step, Watch, job_of, open_job, unwatched
from yoloprune.train.loop import CHECKPOINT, train
from yoloprune.train.progress import Progress
from yoloprune.train.recipe import Recipe
from yoloprune.train.unsupported import unsupported
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
    written: bool
    """False after a dry run."""


def finetune(
    *,
    epochs: float | None = None,
    iterations: int | None = None,
    learning_rate: float | None = None,
    batch: int | None = None,
    workspace: Path = DEFAULT,
    device: str = "cpu",
    seed: int = 0,
    workers: int = 2,
    force: bool = False,
    dry_run: bool = False,
    watch: Watch = unwatched,
) -> Finetuned:
    """Train the last round's pruned weights on the train list, dropped channels held at their masks.

    Exactly one of epochs (passes over the train list) and iterations (updates). learning_rate and batch as
    `Recipe.for_finetuning` says. An interrupted run goes on from its checkpoint; force starts it anew.
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
    images = load_split(job.data, "train", graph.dialect, classes=graph.classes)
    letterbox = job.workspace.settings.letterbox

    def recipe_for(updates: int) -> Recipe:
        return Recipe.for_finetuning(graph, updates, learning_rate=learning_rate, batch=batch, letterbox=letterbox)

    if iterations is None:
        assert epochs is not None
        iterations = max(1, math.ceil(epochs * len(images.images) / recipe_for(1).images))
    recipe = replace(recipe_for(iterations), evaluate_every=math.ceil(iterations / MEASUREMENTS))
    best = job.workspace.finetuned_file(last.number)
    folder = job.workspace.training_folder(last.number)
    final = folder / "last.weights"
    if dry_run:
        return Finetuned(last.pruned, last.pruned, best, final, written=False)

    measure = job.measure(device)
    if force:
        (folder / CHECKPOINT).unlink(missing_ok=True)
    left_out = unsupported(graph)
    if left_out:
        watch(Step("left out", 0, 1, "; ".join(left_out)))
    watch(Step("finetune", 0, recipe.iterations, f"{recipe.iterations} iterations of {recipe.images} pictures"))

    def progress(now: Progress) -> None:
        record = now.record
        accuracy = "" if now.best is None else f", best {now.best:.4f}"
        text = f"loss {record.loss:.3f}, avg {record.average:.3f}, rate {record.rate:.2g}{accuracy}"
        watch(Step("finetune", record.iteration, now.iterations, f"{text}, {now.images_per_second:.0f} images/s"))

    trained = train(
        job.model,
        images,
        recipe,
        folder=folder,
        seed=seed,
        masks=free(graph, job.channels, job.keep),
        evaluate=measure.accuracy,
        resume=True,
        device=device,
        workers=workers,
        progress=progress,
    )
    assert trained.best_metric is not None  # measured at the end at the least
    weights_file.write(best, trained.best, graph.layers, force=True)
    weights_file.write(final, trained.last, graph.layers, force=True)
    after = job.figures(trained.best_metric, job.keep)
    job.workspace.with_round(replace(last, finetuned=after)).save()
    return Finetuned(last.pruned, after, best, final, written=True)
