"""`finetune`: trains the pruned network with its mask enforced."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from yoloprune.detect.load import load_images
from yoloprune.errors import InputError
from yoloprune.options import FinetuneOptions
from yoloprune.progress import OnProgress, silent
from yoloprune.shown import Shown
from yoloprune.steps.job import Job, job_of, open_job
from yoloprune.steps.training import Training, warn_of_no_gain, with_options
from yoloprune.train.ranks import rank_of
from yoloprune.train.recipe import Recipe
from yoloprune.train.supervision import Supervision
from yoloprune.workspace import DEFAULT, Figures

MEASUREMENTS = 10
"""Times that accuracy is measured in a run, the end included."""


@dataclass(frozen=True, repr=False)
class Finetuned(Shown):
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

    def rows(self) -> Mapping[str, Mapping[str, object]]:
        """Figures of the networks."""
        return {"pruned": self.before.as_dict(), "finetuned": self.after.as_dict()}


def finetune(
    options: FinetuneOptions,
    *,
    workspace: Path = DEFAULT,
    device: str = "cpu",
    force: bool = False,
    dry_run: bool = False,
    progress: OnProgress = silent,
) -> Finetuned:
    """Train the last round's pruned weights on the train list, pruned channels held at their masked values.

    Where training raises accuracy at no time, the pruned weights stay the best, and an InputWarning says what to try.
    An interrupted run goes on from its checkpoint; force starts it anew. InputError for options that contradict each
    other, a round that is finetuned already, and as `train`.
    """
    if (options.epochs is None) == (options.iterations is None):
        raise InputError("expected one of --epochs and --iterations")
    job = _open_round(workspace, device, force=force)
    last = job.workspace.last
    training = _training(job, options, device)
    training.announce(device, f"taught {_taught_by(options)}", progress)
    unchanged = Finetuned(last.pruned, last.pruned, training.best, training.last, 0, written=False)
    if dry_run:
        return unchanged
    measure = job.inputs.measure
    training.check_pictures(measure, progress)
    if force and not rank_of():
        job.workspace.make_way(last.number)
    trained = training.run(measure, device, progress)
    if trained is None:
        return unchanged
    assert trained.best_metric is not None  # measured at the end at the least
    job.workspace.forget_behind(last.number)
    training.write(trained)
    after = job.figures(trained.best_metric, job.units)
    job.workspace.with_round(replace(last, finetuned=after, finetuning=options)).save()
    warn_of_no_gain(trained, after.metric, _remedy(training.recipe, options))
    return replace(unchanged, after=after, iteration=trained.best_iteration, written=True)


def check_epochs(epochs: float) -> None:
    """InputError unless there is something to train for."""
    if not 0 < epochs < math.inf:
        raise InputError(f"--epochs: expected more than 0, found {epochs:g}")


def _open_round(workspace: Path, device: str, *, force: bool) -> Job:
    """The job, its last round not finetuned yet, or with `force` as it was before that."""
    job = open_job(workspace, device)
    last = job.workspace.last
    if not last.finetuned:
        return job
    if not force:
        raise InputError(f"round {last.number} is finetuned already; --force trains it anew", file=workspace)
    return job_of(job.workspace.with_round(replace(last, finetuned=None, finetuning=None)), job.inputs)


def _training(job: Job, options: FinetuneOptions, device: str) -> Training:
    space, graph, last = job.workspace, job.model.graph, job.workspace.last
    if not set(options.freeze) < set(range(len(graph.layers))):
        raise InputError(f"--freeze: expected layers of 0..{len(graph.layers) - 1}, and not all of them")
    images = load_images(job.inputs.listed, "train", graph, labels=options.labels)
    supervision = Supervision(job.inputs.original if options.distill else None, options.labels)
    recipe = _recipe(job, options, len(images.images), device)
    folder, mask = space.training_folder(last.number), job.units.mask()
    best, final = space.finetuned_file(last.number), folder / "last.weights"
    start = last.pruned.accuracy
    return Training("finetune", job.model, images, recipe, folder, best, final, options, mask, supervision, start)


def _recipe(job: Job, options: FinetuneOptions, images: int, device: str) -> Recipe:
    """images: of an epoch."""
    rate, batch, letterbox = options.learning_rate, options.batch, job.workspace.settings.letterbox
    graph = job.model.graph
    recipe_for = partial(Recipe.for_finetuning, graph, learning_rate=rate, batch=batch, letterbox=letterbox)
    iterations = options.iterations
    if options.epochs is not None:
        check_epochs(options.epochs)
        iterations = math.ceil(options.epochs * images / recipe_for(1).images)
    assert iterations is not None  # one of the two is given
    recipe = with_options(recipe_for(iterations), options, device, MEASUREMENTS)
    return replace(recipe, frozen=frozenset(options.freeze))


def _taught_by(options: FinetuneOptions) -> str:
    if not options.distill:
        return "by labels"
    return "by labels and the unpruned network" if options.labels else "by the unpruned one"


def _remedy(recipe: Recipe, options: FinetuneOptions) -> str:
    """What to try where training didn't help."""
    more = "more iterations" if options.distill else "more iterations or --distill"
    lower = f"a lower --learning-rate ({recipe.schedule.learning_rate:g} this time)"
    return f"try finetune --force with {lower}, {more}, or prune --force with a smaller --threshold"
