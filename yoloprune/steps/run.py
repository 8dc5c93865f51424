"""`run`: all four steps, round after round with a growing threshold or sparsity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from yoloprune.artefacts import ready
from yoloprune.compat import profile_named
from yoloprune.detect.load import load_images
from yoloprune.errors import InputError, NothingGoesError
from yoloprune.options import ExportOptions, PruneOptions, Settings, UnitOptions
from yoloprune.progress import OnProgress, Progress, silent
from yoloprune.prune.certainty import joint_cautions
from yoloprune.prune.sensitivity import ROUNDING
from yoloprune.run_options import RunOptions
from yoloprune.shown import Shown
from yoloprune.steps.export import export, targets
from yoloprune.steps.finetune import check_length, finetune
from yoloprune.steps.goal import Goal, goals_of_rounds
from yoloprune.steps.inputs import check_readable
from yoloprune.steps.job import Job, start_job
from yoloprune.steps.layer_by_layer import method_of, prune_layer_by_layer
from yoloprune.steps.method import resolved, with_limits
from yoloprune.steps.objective import check_objective
from yoloprune.steps.prune import prune
from yoloprune.steps.quantized import check_bits
from yoloprune.steps.shared import SharedSteps
from yoloprune.steps.smallest import smallest
from yoloprune.steps.undo import undo
from yoloprune.train.ranks import world_size
from yoloprune.workspace import DEFAULT, Figures, Workspace

_LIMITS: Final = ("exclude", "multiple", "min_keep")
_SAME: Final = ("objective", "reader", "timings", "relative", "drop_branches", "divide", *_LIMITS)
_METHOD: Final = ("criterion", "calibrate", "compensation", *vars(UnitOptions()))
"""Options that all rounds have alike."""


@dataclass(frozen=True, repr=False)
class RunResult(Shown):
    """The network before and after all rounds, and the files written."""

    before: Figures
    after: Figures
    files: Mapping[str, Path]
    workspace: Workspace
    """With its rounds: fewer than asked for where at some thresholds nothing more could go."""
    cautions: tuple[str, ...] = ()
    """What `Pruned` has, and why there are fewer rounds where there are."""

    def rows(self) -> Mapping[str, Mapping[str, object]]:
        """Figures of the networks."""
        return {"original": self.before.as_dict(), "slim": self.after.as_dict()}


def run(
    cfg: Path,
    weights: Path,
    data: Path | None,
    out: Path,
    options: RunOptions,
    *,
    settings: Settings = Settings(),  # noqa: B008 - a frozen value
    workspace: Path = DEFAULT,
    device: str = "cpu",
    force: bool = False,
    progress: OnProgress = silent,
) -> RunResult:
    """ana, then `rounds` times prune and finetune, then export to `out`.

    Round k of K prunes at threshold * k / K, each group against the original network, or likewise by total loss, ratio
    or sparsity; or each as it is listed. It is left out where nothing more can go at that. Where a round loses more
    than `final_loss` after its training, it is taken back, and the run ends with the round before. With `target_map`,
    rounds go on until no smaller network is found that keeps that accuracy (smallest.py). An interrupted run goes on
    where it was.
    """
    goals = check(options)
    job = start_job(cfg, weights, data, workspace, settings, device=device, force=force)
    targets(job, out, force=force)  # refused now, not after hours
    ready(out)
    graph = job.model.graph
    check_readable(
        load_images(job.inputs.listed, "train", graph).images, graph, progress
    )  # now, not after the analysis
    job = job.measured_originally()
    if options.layered.layer_by_layer:
        prune_layer_by_layer(job, options, workspace, device, progress)
        refused, cautions = None, list[str]()
    else:
        pruning = _alike(job, options, progress)
        refused, cautions = _rounds(options, goals, pruning, workspace, device, progress)
    if refused and not Workspace.load(workspace).rounds:
        raise refused
    exported = export(out, ExportOptions(reader=options.export_for), workspace=workspace, force=force)
    files = {"cfg": exported.cfg, "weights": exported.weights}
    if exported.names is not None:
        files["names"] = exported.names
    ended = Workspace.load(workspace)
    for each in ended.rounds:  # those of an earlier run too
        if each.options.threshold is not None and each.threshold is not None:
            cautions += joint_cautions(exported.before.accuracy - each.pruned.accuracy, each.threshold)
    if refused:
        cautions.insert(0, f"{len(ended.rounds)} of {len(goals)} rounds: {refused}")
    return RunResult(exported.before, exported.after, files, ended, tuple(dict.fromkeys(cautions)))


def _rounds(
    options: RunOptions,
    goals: Sequence[Goal],
    pruning: PruneOptions,
    workspace: Path,
    device: str,
    progress: OnProgress,
) -> tuple[NothingGoesError | None, list[str]]:
    """All rounds that can be done: why there are fewer than goals, if there are, and what prune warns of."""
    refused: NothingGoesError | None = None
    cautions: list[str] = []
    several = options.where.count > 1
    shared = SharedSteps(options, workspace, device, quiet=progress is silent) if several else None

    def one(number: int, goal: Goal, of: int) -> None:
        """A round, or what is missing of it."""
        progress(Progress("round", number, of, _heading(number, goal, of)))
        wanted = replace(pruning, **vars(goal))
        if not _reached(Workspace.load(workspace), number, wanted):
            if shared:
                shared.ana(goal)
            cautions.extend(prune(wanted, workspace=workspace, device=device, progress=progress).cautions)
        if not Workspace.load(workspace).last.finetuned:
            if shared:
                shared.finetune()
            else:
                finetune(options.training, workspace=workspace, device=device, progress=progress)

    if options.target_map is not None:
        smallest(workspace, options.target_map, lambda number, ratio: one(number, Goal(ratio=ratio), 0))
    for number, goal in enumerate(goals, start=1):
        try:
            one(number, goal, len(goals))
        except NothingGoesError as error:
            refused = error  # at a later goal it may
            continue
        if lost := _lost_too_much(Workspace.load(workspace), options.final_loss):
            undo(workspace)
            return NothingGoesError(lost), cautions
    return refused, cautions


def _heading(number: int, goal: Goal, of: int) -> str:
    """What a round is about; of 0: nobody knows yet how many there will be."""
    counted = f"round {number} of {of}" if of else f"round {number}"
    return f"{counted}: {goal.name.replace('_', ' ')} {getattr(goal, goal.name):.4g}"


def check(options: RunOptions) -> list[Goal]:
    """The goal of each round. InputError for what can't be done, before anything is."""
    goals = goals_of_rounds(options)
    check_length(options.training)
    check_bits(options.training.bits, options.training.bits_grid)
    if options.export_for is not None:
        profile_named(options.export_for)
    check_objective(options.prune.objective, options.prune.reader, options.prune.timings)
    method_of(options) if options.layered.layer_by_layer else resolved(options.analysis)
    if world_size() > 1:
        raise InputError("run: expected one process, found several of torchrun; --processes shares its work among some")
    return goals


def _lost_too_much(workspace: Workspace, most: float | None) -> str:
    """Why the last round is no use, if it loses more than `most` after its training; else nothing."""
    if most is None or workspace.original is None or not workspace.rounds or workspace.last.finetuned is None:
        return ""
    lost = workspace.original.accuracy - workspace.last.finetuned.accuracy
    if lost <= most + ROUNDING:
        return ""
    return f"round {workspace.last.number} still loses {lost:.4f} after its training, over {most:g}: it is taken back"


def _alike(job: Job, options: RunOptions, progress: OnProgress) -> PruneOptions:
    """How every round is pruned. InputError if a round that is there was pruned otherwise."""
    method = resolved(options.analysis)
    pruning = replace(options.prune, **{key: getattr(method, key) for key in _METHOD})
    pruning = with_limits(pruning, job.workspace, progress)
    for done in job.workspace.rounds:
        for key in (*_SAME, *_METHOD):
            found, expected = getattr(done.options, key), getattr(pruning, key)
            if found != expected:
                reason = f"round {done.number} was pruned with {key} {found}, expected {expected}"
                raise InputError(f"{reason}; -w names another workspace", file=job.workspace.folder)
    return pruning


def _reached(workspace: Workspace, number: int, options: PruneOptions) -> bool:
    """Whether a round is there, or one that was allowed as much: where nothing could go, there is none."""
    if not workspace.rounds:
        return False
    if number <= len(workspace.rounds):
        return True
    name = Goal.of(options).name
    return bool(getattr(options, name) <= (getattr(workspace.last.options, name) or 0.0) + ROUNDING)
