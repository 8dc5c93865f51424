"""`run`: all four steps, round after round with a growing threshold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from yoloprune.artefacts import ready
from yoloprune.detect.load import load_images
from yoloprune.errors import InputError
from yoloprune.options import ExportOptions, PruneOptions, RunOptions, Settings
from yoloprune.progress import OnProgress, Progress, silent
from yoloprune.prune.certainty import joint_cautions
from yoloprune.prune.sensitivity import ROUNDING
from yoloprune.shown import Shown
from yoloprune.steps.export import export, targets
from yoloprune.steps.finetune import check_epochs, finetune
from yoloprune.steps.goal import check_loss
from yoloprune.steps.inputs import check_readable
from yoloprune.steps.job import Job, start_job
from yoloprune.steps.joint import NothingGoesError
from yoloprune.steps.method import resolved, with_limits
from yoloprune.steps.objective import check_objective
from yoloprune.steps.prune import prune
from yoloprune.train.ranks import world_size
from yoloprune.workspace import DEFAULT, Figures, Workspace

_SAME: Final = ("objective", "reader", "drop_branches", "exclude", "multiple", "min_keep")
_METHOD: Final = ("criterion", "calibrate", "compensation")
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
    """What `Pruned` has, and how many rounds there are where it is fewer."""

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

    Round k of K prunes at threshold * k / K, each group against the original network, and is left out where nothing
    more can go at that. An interrupted run goes on where it was.
    """
    thresholds = check(options)
    job = start_job(cfg, weights, data, workspace, settings, device=device, force=force)
    targets(job, out, force=force)  # refused now, not after hours
    ready(out)
    graph = job.model.graph
    check_readable(
        load_images(job.inputs.listed, "train", graph).images, graph, progress
    )  # now, not after the analysis
    pruning = _alike(job.measured_originally(), options, progress)
    refused: NothingGoesError | None = None
    cautions: dict[str, None] = {}
    for number, share in enumerate(thresholds, start=1):
        progress(Progress("round", number, options.rounds))
        wanted = replace(pruning, threshold=share)
        if not _reached(Workspace.load(workspace), number, wanted):
            try:
                done = prune(wanted, workspace=workspace, device=device, progress=progress)
            except NothingGoesError as error:
                refused = error  # a later round may lose more
                continue
            cautions |= dict.fromkeys(done.cautions)
        if not Workspace.load(workspace).last.finetuned:
            finetune(options.finetune, workspace=workspace, device=device, progress=progress)
    if refused and not Workspace.load(workspace).rounds:
        raise refused
    exported = export(out, ExportOptions(), workspace=workspace, force=force)
    files = {"cfg": exported.cfg, "weights": exported.weights}
    if exported.names is not None:
        files["names"] = exported.names
    ended = Workspace.load(workspace)
    if len(ended.rounds) < options.rounds:
        fewer = f"{len(ended.rounds)} of {options.rounds} rounds: at the other thresholds nothing more could go"
        cautions = {fewer: None} | cautions
    for each in ended.rounds:  # those of an earlier run too
        cautions |= dict.fromkeys(joint_cautions(exported.before.accuracy - each.pruned.accuracy, each.threshold))
    return RunResult(exported.before, exported.after, files, ended, tuple(cautions))


def check(options: RunOptions) -> list[float]:
    """The threshold of each round; it grows evenly. InputError for what can't be done, before anything is."""
    threshold, rounds = options.prune.threshold or 0.0, options.rounds
    check_loss("--threshold", threshold)
    if rounds < 1:
        raise InputError(f"--rounds: expected at least 1, found {rounds}")
    check_epochs(options.finetune.epochs or 0.0)
    check_objective(options.prune.objective, options.prune.reader)
    resolved(options.analysis)
    if world_size() > 1:
        raise InputError("run: expected one process, found several of torchrun, which is for ana, finetune and train")
    return [threshold * number / rounds for number in range(1, rounds + 1)]


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
    assert workspace.original is not None
    allowed = (options.threshold or 0.0) * (workspace.original.accuracy if options.relative else 1.0)
    return number <= len(workspace.rounds) or allowed <= workspace.last.threshold + ROUNDING
