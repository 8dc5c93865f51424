"""`run --layer-by-layer`: a round for each group of channels, from front to back, each trained before the next.

Luo, Wu and Lin 2017 (ThiNet), section 3.2: choose a layer's channels by what its consumer misses least, prune them,
scale those that stay, train for an epoch or two, go on with the next layer; at the end train for longer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from torch import Tensor

from yoloprune.artefacts import load_json, save_json
from yoloprune.choices import REFIT, SCALE
from yoloprune.darknet.data import ClassSplit
from yoloprune.detect.load import load_images
from yoloprune.detect.measure import network_for_measuring
from yoloprune.errors import InputError, NothingGoesError
from yoloprune.options import AnalysisOptions, PruneOptions, Settings
from yoloprune.progress import OnProgress, Progress, silent
from yoloprune.prune.channel_units import ChannelUnits
from yoloprune.prune.granularity import Allocation, Selection
from yoloprune.prune.layer_by_layer import counts_at, counts_for_ratio, inner_groups
from yoloprune.run_options import LayeredOptions, RunOptions
from yoloprune.steps.finetune import finetune
from yoloprune.steps.goal import layered_ratio
from yoloprune.steps.job import Job, job_of, start_job
from yoloprune.steps.joint import Joint
from yoloprune.steps.method import limits_of, resolved, with_limits
from yoloprune.steps.objective import price_for
from yoloprune.steps.prune import check_layers, write_round
from yoloprune.workspace import Round, Workspace

FILE: Final = "layer-by-layer.json"
"""In the workspace: which groups go, how far, and how; another run with other options doesn't go on with its rounds."""


def method_of(options: RunOptions) -> AnalysisOptions:
    """How groups are pruned: `thinet` scales channels unless weights are to be refitted. InputError as `resolved`."""
    asked = options.analysis
    if asked.criterion == "thinet" and asked.compensation == REFIT and not options.layered.refit:
        asked = replace(asked, compensation=SCALE)
    return resolved(asked)


def counts_of(job: Job, options: RunOptions, progress: OnProgress) -> Allocation:
    """How many units of each group go in the end, from front to back; only of those of which some do.

    options: limits filled in. NothingGoesError where nothing goes, or not as much as is asked for.
    """
    graph, pruning = job.inputs.graph, options.prune
    units = ChannelUnits.of(graph)
    groups, limits = inner_groups(graph, units.channels), limits_of(pruning)
    ratio = layered_ratio(options)
    if options.layered.keep is not None:
        counts = counts_at(groups, limits, 1 - options.layered.keep)
    else:
        assert ratio is not None  # one of the two is given
        # What a network costs depends on how many go, and only where a grouped route parts a group on which.
        costs = units.costs(
            price_for(job, pruning, progress),
            {group.label: range(group.size) for group in units.groups},
        )
        counts = counts_for_ratio(groups, limits, costs, ratio)
    if not counts:
        raise NothingGoesError(f"no group is so large that some of it goes{limits.advice}")
    return counts


@dataclass(frozen=True)
class Ahead:
    """A group that would be pruned."""

    group: str
    channels: int
    kept: int


def layers_ahead(
    cfg: Path, weights: Path, data: Path | None, options: RunOptions, folder: Path, settings: Settings, device: str
) -> list[Ahead]:
    """What a run would prune, for `--dry-run`."""
    job = start_job(cfg, weights, data, folder, settings, device=device, force=False)
    counts = counts_of(job, replace(options, prune=with_limits(options.prune, job.workspace, silent)), silent)
    sizes = {group.label: group.size for group in ChannelUnits.of(job.inputs.graph).groups}
    return [Ahead(label, sizes[label], sizes[label] - count) for label, count in counts.items()]


def prune_layer_by_layer(job: Job, options: RunOptions, folder: Path, device: str, progress: OnProgress) -> None:
    """All rounds that aren't done yet, each of one group. An interrupted run goes on where it was.

    options: as `goal.check_layered` has found them right. InputError where rounds are there that another run made, or
    this one with other options.
    """
    method = method_of(options)
    held = {key: getattr(method, key) for key in ("criterion", "calibrate", "compensation", *vars(method.units))}
    pruning = with_limits(replace(options.prune, **held), job.workspace, progress)
    check_layers(job, pruning.exclude or ())
    counts = counts_of(job, replace(options, prune=pruning), progress)
    _claim(job.workspace, {"layered": asdict(options.layered), "counts": counts, "method": held, "seed": method.seed})
    batches = calibration(job, method, options.layered)
    for number, label in enumerate(counts, start=1):
        progress(Progress("group", number, len(counts), f"layer {label}"))
        known = Workspace.load(folder)
        if number > len(known.rounds):
            here = job_of(known, job.inputs, device)
            _prune(here, label, counts[label], method, pruning, options.layered, batches, device)
            known = Workspace.load(folder)
        if number == len(known.rounds) and not known.last.finetuned:
            last = number == len(counts)
            training = options.training
            if not last:
                training = replace(training, epochs=options.layered.group_epochs, iterations=None)
            finetune(training, workspace=folder, device=device, progress=progress)


def _claim(workspace: Workspace, about: Mapping[str, Any]) -> None:
    """Write what the run does, or see that the rounds that are there were made so."""
    file = workspace.folder / FILE
    if not workspace.rounds:
        save_json(file, "layer-by-layer", about)
        return
    another = "-w names another workspace"
    if not file.exists():
        raise InputError(f"holds rounds of another run; {another}", file=workspace.folder)
    known = load_json(file, "layer-by-layer", another)
    differing = [key for key in about if known.get(key) != _as_stored(about[key])]
    if differing:
        listed = ", ".join(f"{key} {known.get(key)} (found {_as_stored(about[key])})" for key in differing)
        raise InputError(f"was begun with {listed}; {another}", file=file)


def _as_stored(value: Any) -> Any:
    """As JSON gives it back."""
    if isinstance(value, Mapping):
        return {key: _as_stored(each) for key, each in value.items()}
    return list(value) if isinstance(value, tuple) else value


def calibration(job: Job, method: AnalysisOptions, layered: LayeredOptions) -> Sequence[Tensor]:
    """The first pictures of the train list, of a classifier the first of each class, as network input [B,C,H,W]."""
    graph = job.inputs.graph
    if graph.detection_heads or not method.calibrate:
        return job.inputs.calibration_batches(method.calibrate)
    split = load_images(job.inputs.listed, "train", graph)
    assert isinstance(split, ClassSplit)  # as it has no detection heads
    seen: Counter[int] = Counter()
    chosen = []
    for image, number in zip(split.images, split.classes, strict=True):
        if number >= 0 and seen[number] < layered.class_images:
            seen[number] += 1
            chosen.append(image)
    return job.inputs.batches(chosen)


def _prune(
    job: Job,
    label: str,
    count: int,
    method: AnalysisOptions,
    pruning: PruneOptions,
    layered: LayeredOptions,
    batches: Sequence[Tensor],
    device: str,
) -> None:
    """A group pruned to `count` units gone, measured, and written as the next round."""
    units = job.units
    assert isinstance(units, ChannelUnits)  # as checked
    group, criterion = units.channels.group(label), str(method.criterion)
    looked_at = frozenset(units.changed(group))
    seen = replace(
        units.statistics(job.model, batches, device), layers=looked_at, places=layered.places, seed=method.seed
    )
    order = units.rank(group, criterion, seen)
    selection = Selection({label: count}, {label: order}, criterion, method.compensation)
    left = units.rechosen(selection.counts, selection.orders, job.model.weights)
    if method.compensation == SCALE:
        model = units.prune_group(job.model, selection, seen, device)
    else:
        model = units.prune(job.model, selection, batches, device)[1]
    predictions = job.inputs.measure.predictions(network_for_measuring(model, device))
    accuracy = job.inputs.measure.outcome(predictions).accuracy
    before = job.workspace.last.finetuned if job.workspace.rounds else job.original
    assert before is not None  # a round is trained before the next
    after = job.figures(accuracy, model, left)
    goal = replace(pruning, sparsity=count / group.size)
    write_round(job, Joint(left, model, accuracy, predictions), Round(job.next_round, goal, None, before, after))
