"""`finetune`: trains the pruned network with its mask enforced."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from yoloprune.darknet.model import Graph
from yoloprune.darknet.network import Network
from yoloprune.detect.details import Details
from yoloprune.detect.load import load_images
from yoloprune.detect.measure import Measure
from yoloprune.errors import InputError
from yoloprune.options import FinetuneOptions
from yoloprune.progress import OnProgress, silent
from yoloprune.prune.granularities import units_of
from yoloprune.prune.granularity import Orders
from yoloprune.prune.plan import Plan
from yoloprune.prune.schedules import parse_schedule
from yoloprune.prune.sensitivity import Sensitivity
from yoloprune.shown import Shown
from yoloprune.steps.growing import GrowingMask
from yoloprune.steps.job import Job, job_of, open_job
from yoloprune.steps.quantized import check_bits, on_grids
from yoloprune.steps.training import Training, warn_of_no_gain, with_options
from yoloprune.train.loop import Trained
from yoloprune.train.masks import Masks
from yoloprune.train.ranks import rank_of
from yoloprune.train.recipe import Recipe
from yoloprune.train.supervision import Supervision
from yoloprune.workspace import DEFAULT, Figures, Workspace

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
    """Train the last round's pruned weights on the train list, pruned values held as they are.

    With a schedule: train the weights before the round, of which more and more is pruned, in the end as much of each
    group as the plan says. Of weights those go that are smallest then, and the mask at the end is the round's.
    With bits, or after a round of bits: train with weights that take the values of their grids, and are exactly these
    in the files, so accuracy is that of the packed network.
    Where training raises accuracy at no time, the pruned weights stay the best, and an InputWarning says what to try.
    An interrupted run goes on from its checkpoint; force starts it anew. InputError for options that contradict each
    other, a round that is finetuned already, and as `train`.
    """
    check_length(options)
    if options.schedule is None and (options.scheduled or not options.regrow):
        raise InputError("--begin, --end, --every, --power, --initial-sparsity and --no-regrow: expected --schedule")
    check_bits(options.bits, options.bits_grid)
    job = _open_round(workspace, device, force=force)
    _check_grids(job, options)
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
    training = on_grids(training, job.inputs, options, device, progress)
    details = _Details(measure)
    trained = training.run(measure, device, progress, details.evaluate)
    if trained is None:
        return unchanged
    assert trained.best_metric is not None  # measured at the end at the least
    job.workspace.forget_behind(last.number)
    if options.schedule is not None:
        job = _with_chosen_mask(job, trained)
    training.write(trained)
    details.save(trained, job.workspace)
    after = job.figures(trained.best_metric, job.model.with_weights(trained.best), job.units)
    job.workspace.with_round(replace(last, finetuned=after, finetuning=options)).save()
    if options.schedule is None:  # else it began with another network
        warn_of_no_gain(trained, after.metric, _remedy(training.recipe, options))
    return replace(unchanged, after=after, iteration=trained.best_iteration, written=True)


class _Details:
    """Measures networks in training, and keeps what a report shows of each."""

    def __init__(self, measure: Measure) -> None:
        self._measure = measure
        self._known: dict[float, Details] = {}

    def evaluate(self, network: Network) -> float:
        """Accuracy."""
        details = self._measure.details(self._measure.predictions(network))
        self._known[details.accuracy] = details  # of equals the later is the best of a run, too
        return details.accuracy

    def save(self, trained: Trained, workspace: Workspace) -> None:
        """Write those of the best; none where an earlier process measured it."""
        number = workspace.last.number
        file, before = workspace.details_file(number, trained=True), workspace.details_file(number)
        file.unlink(missing_ok=True)
        assert trained.best_metric is not None  # measured at the end at the least
        if trained.best_metric in self._known:
            self._known[trained.best_metric].save(file)
        elif trained.best_metric == workspace.last.pruned.accuracy and before.exists():
            Details.load(before).save(file)


def check_length(options: FinetuneOptions) -> None:
    """InputError unless one of epochs and iterations says how long to train."""
    if (options.epochs is None) == (options.iterations is None):
        raise InputError("expected one of --epochs and --iterations")
    if options.epochs is not None and not 0 < options.epochs < math.inf:
        raise InputError(f"--epochs: expected more than 0, found {options.epochs:g}")


def _check_grids(job: Job, options: FinetuneOptions) -> None:
    """InputError for options that don't go with a round of bits, whose grids training holds."""
    said = "--bits" if options.bits is not None else "--schedule" if options.schedule is not None else ""
    if job.units.grids and said:
        raise InputError(f"{said}: expected a round of channels or weights, found one of bits")


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
    recipe = recipe_of(graph, options, len(images.images), device, space.settings.letterbox)
    folder = space.training_folder(last.number)
    files = (folder, space.finetuned_file(last.number), folder / "last.weights")
    if options.schedule is None:
        held, start = Masks(job.units.mask(), grids=job.units.grids), last.pruned.accuracy
        return Training("finetune", job.model, images, recipe, *files, options, held, supervision, start)
    before = job_of(space.without_last(), job.inputs)
    growing = Masks(before.units.mask(), _schedule(job, before, options, recipe, len(images.images)))
    start = last.before.accuracy
    return Training("finetune", before.model, images, recipe, *files, options, growing, supervision, start)


def _schedule(job: Job, before: Job, options: FinetuneOptions, recipe: Recipe, images: int) -> GrowingMask:
    """images: of an epoch."""
    assert options.schedule is not None
    if job.units.branches != before.units.branches:
        raise InputError("--schedule: expected a round that keeps all residual branches, found one without some")
    schedule = parse_schedule(
        options.schedule, recipe.iterations, images / recipe.images, regrow=options.regrow, **options.scheduled
    )
    units = before.in_units(job.units.options).units
    orders: Orders = {}
    if units.ordered:
        orders = Sensitivity.load(job.workspace.sensitivity_file(job.workspace.last.number)).orders
    return GrowingMask(schedule, units, job.units.count(), orders)


def _with_chosen_mask(job: Job, trained: Trained) -> Job:
    """The job with the mask that a schedule ended with, in a plan of its own."""
    assert trained.mask is not None
    space, last = job.workspace, job.workspace.last
    units = units_of(job.model.graph, job.units.options, trained.mask, job.units.branches)
    accuracy = {"original": job.original.accuracy, "before": last.before.accuracy, "after": last.pruned.accuracy}
    Plan.save(space.trained_plan_file(last.number), space.cfg.sha256, units, last.options, accuracy)
    return replace(job, units=units)


def recipe_of(
    graph: Graph, options: FinetuneOptions, images: int, device: str, letterbox: bool | None = None
) -> Recipe:
    """How a network of this graph is trained. images: of an epoch."""
    rate, batch = options.learning_rate, options.batch
    recipe_for = partial(Recipe.for_finetuning, graph, learning_rate=rate, batch=batch, letterbox=letterbox)
    iterations = options.iterations
    if options.epochs is not None:
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
