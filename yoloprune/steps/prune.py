"""`prune`: from loss curves and what may be lost to a plan and masked weights."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from yoloprune.darknet import weights as weights_file
from yoloprune.darknet.model import Model
from yoloprune.detect.measure import Measure, network_for_measuring
from yoloprune.errors import InputError
from yoloprune.prune.channels import Channels, KeepAtoms
from yoloprune.prune.cutter import REFIT, Cutter
from yoloprune.prune.plan import RULES, Limits, Plan, choose, keep_atoms, threshold_for_ratio, threshold_for_total
from yoloprune.prune.sensitivity import Sensitivity
from yoloprune.prune.slim import slim_graph
from yoloprune.steps.ana import CALIBRATE, analyse_job, criterion_for, cutter_of
from yoloprune.steps.job import Job, Step, Watch, job_of, unwatched
from yoloprune.workspace import DEFAULT, Figures, Round, Workspace


class NothingGoesError(InputError):
    """No group bears to lose a channel within what is allowed."""


@dataclass(frozen=True)
class Pruned:
    """What a cut did."""

    original: Figures
    before: Figures
    after: Figures
    threshold: float
    """What each group alone was allowed to lose against the original."""
    channels: Channels
    keep: KeepAtoms
    """What is left, in the original's channels."""
    plan: Path
    weights: Path
    written: bool
    """False after a dry run."""

    @property
    def joint_loss(self) -> float:
        """Accuracy lost by all groups together, against the original."""
        return self.original.accuracy - self.after.accuracy


def prune(
    threshold: float | None = None,
    *,
    ratio: float | None = None,
    total_loss: float | None = None,
    relative: bool = False,
    rule: str = "interpolated",
    exclude: Collection[int] = (),
    multiple: int = 1,
    min_keep: int = 1,
    criterion: str | None = None,
    calibrate: int = CALIBRATE,
    compensation: str = REFIT,
    reuse_analysis: bool = False,
    workspace: Path = DEFAULT,
    device: str = "cpu",
    force: bool = False,
    dry_run: bool = False,
    watch: Watch = unwatched,
) -> Pruned:
    """Choose each group's sparsity, cut all groups together, measure, and write `plan.json` and masked weights.

    Exactly one of threshold (accuracy that each group alone may lose against the original), ratio (share of the
    original's BFLOPs to remove) and total_loss (accuracy that all groups together may lose against the original, as
    measured; the largest cut that was found). relative: losses are fractions of the original's accuracy. exclude:
    layers whose channels all stay. multiple, min_keep: of the channels a group keeps. The analysis is finished or made
    where it is missing; reuse_analysis takes the round before's. criterion, calibrate, compensation: as for ana. force:
    cut the last round anew.
    """
    if [threshold, ratio, total_loss].count(None) != 2:
        raise InputError("expected one of --threshold, --ratio and --total-loss")
    if rule not in RULES:
        raise InputError(f"--rule: expected one of {', '.join(RULES)}, found {rule!r}")
    if multiple < 1 or min_keep < 1:
        raise InputError("--multiple and --min-keep: expected at least 1")
    if ratio is not None and not 0 < ratio < 1:
        raise InputError(f"--ratio: expected a share between 0 and 1, found {ratio:g}")
    criterion = criterion or criterion_for(calibrate, compensation)
    job = _open_for_cut(workspace, force=force)
    _check_layers(job, exclude)
    limits = Limits(frozenset(exclude), multiple, min_keep)
    also = () if threshold is None or relative else (threshold,)
    sensitivity = _analysis(job, criterion, calibrate, compensation, reuse_analysis, also, device, watch)
    job, original = _with_original(job)
    scale = original.accuracy if relative else 1.0
    if threshold is not None and relative:
        also = (threshold * scale,)
        sensitivity = _analysis(job, criterion, calibrate, compensation, reuse_analysis, also, device, watch)
    cuts = _Cuts(job, sensitivity, limits, rule, cutter_of(job, calibrate, compensation, device))
    if ratio is not None:
        threshold = threshold_for_ratio(
            sensitivity, limits, ratio, lambda dropped: _removed(job, sensitivity, dropped, original), rule
        )
    elif total_loss is not None:

        def joint_loss(trial: float) -> float:
            watch(Step("prune", 0, 1, f"all together at {trial:.4f} each"))
            return original.accuracy - cuts.at(trial).accuracy

        threshold = threshold_for_total(joint_loss, total_loss * scale, cuts.most())
        if threshold is None:
            raise NothingGoesError(f"no cut was found that loses at most {total_loss:g} in all")
    else:
        assert threshold is not None
        threshold *= scale
    watch(Step("prune", 0, 1, "refitting and measuring"))
    done = cuts.at(threshold)
    keep, cut = done.keep, done.model
    if keep.sum() == job.keep.sum():
        raise NothingGoesError(f"nothing can go at a loss of {threshold:g} a group; a larger --threshold cuts more")
    after = job.figures(done.accuracy, keep)
    number = job.next_round
    before = _before(job, original, sensitivity)
    chosen_by: dict[str, Any] = {
        "threshold": threshold,
        "ratio": ratio,
        "total_loss": total_loss,
        "rule": rule,
        "multiple": multiple,
        "min_keep": min_keep,
    }
    chosen_by |= {
        "exclude": sorted(exclude),
        "criterion": criterion,
        "calibrate": calibrate,
        "compensation": compensation,
    }
    plan = Plan.of(job.workspace.cfg.sha256, job.channels, keep, chosen_by, _accuracies(original, before, after))
    files = (job.workspace.plan_file(number), job.workspace.pruned_file(number))
    if not dry_run:
        shutil.rmtree(job.workspace.training_folder(number), ignore_errors=True)  # of an earlier cut, with force
        plan.save(files[0])
        weights_file.write(files[1], cut.weights.with_seen(0), cut.graph.layers, force=True)
        job.workspace.with_round(Round(number, chosen_by, before, after)).save()
    watch(Step("prune", 1, 1))
    return Pruned(original, before, after, threshold, job.channels, keep, *files, written=not dry_run)


def _open_for_cut(folder: Path, *, force: bool) -> Job:
    """The job before its next cut; with `force`, before the last one."""
    workspace = Workspace.load(folder)
    if workspace.rounds and (force or not workspace.last.finetuned):
        if not force:
            number = workspace.last.number
            raise InputError(f"round {number} is pruned and not finetuned; --force cuts it anew", file=folder)
        workspace = workspace.without_last()
    return job_of(workspace)


def _before(job: Job, original: Figures, sensitivity: Sensitivity) -> Figures:
    """Of the weights that are cut. The analysis measured them, unless it is the round before's (reuse_analysis)."""
    if sensitivity.setup.weights == job.weights_sha:
        return job.figures(sensitivity.start, job.keep)
    return (job.workspace.last.finetuned or job.workspace.last.pruned) if job.workspace.rounds else original


def _with_original(job: Job) -> tuple[Job, Figures]:
    """The analysis has measured the original, if it was not known before."""
    original = Workspace.load(job.workspace.folder).original
    if original is None:
        raise InputError("lacks the original network's accuracy; run yoloprune ana", file=job.workspace.folder)
    return replace(job, workspace=job.workspace.with_original(original)), original


def _check_layers(job: Job, exclude: Collection[int]) -> None:
    makers = {producer for group in job.channels.groups for producer in group.producers}
    for layer in sorted(exclude):
        if layer not in makers:
            listed = ", ".join(map(str, sorted(makers)))
            raise InputError(f"--exclude: layer {layer} makes no prunable channels (expected some of {listed})")


def _analysis(
    job: Job,
    criterion: str,
    calibrate: int,
    compensation: str,
    reuse: bool,
    also: Sequence[float],
    device: str,
    watch: Watch,
) -> Sensitivity:
    """The round's own curves, measured as far as they are missing; or those of the round before."""
    number = job.next_round
    if reuse and number > 1:
        return Sensitivity.load(job.workspace.sensitivity_file(number - 1))
    return analyse_job(
        job,
        criterion=criterion,
        calibrate=calibrate,
        compensation=compensation,
        also=also,
        device=device,
        watch=watch,
    )


@dataclass(frozen=True)
class _Cut:
    """All groups cut together."""

    keep: KeepAtoms
    model: Model
    accuracy: float


class _Cuts:
    """Joint cuts by threshold, each refitted and measured once."""

    def __init__(self, job: Job, sensitivity: Sensitivity, limits: Limits, rule: str, cutter: Cutter) -> None:
        self.job, self.sensitivity, self.limits, self.rule, self.cutter = job, sensitivity, limits, rule, cutter
        self._measured: dict[bytes, _Cut] = {}

    def at(self, threshold: float) -> _Cut:
        """The cut of the threshold's choice; the network as it is where nothing goes."""
        choice = choose(self.sensitivity, threshold, self.limits, self.rule)
        keep = keep_atoms(self.sensitivity, self.job.channels, choice) & self.job.keep
        known = self._measured.get(keep.tobytes())
        if known is None:
            model = self.cutter.together(keep)
            known = _Cut(keep, model, self._measure.accuracy(network_for_measuring(model, self.cutter.device)))
            self._measured[keep.tobytes()] = known
        return known

    def most(self) -> float:
        """A threshold beyond which no more goes."""
        curves = self.sensitivity.curves
        return max([0.0, *(self.sensitivity.loss(point) for curve in curves for point in curve.points)])

    @cached_property
    def _measure(self) -> Measure:
        return self.job.measure(str(self.cutter.device))


def _removed(job: Job, sensitivity: Sensitivity, dropped: Mapping[str, int], original: Figures) -> float:
    keep = keep_atoms(sensitivity, job.channels, dropped) & job.keep
    return 1 - slim_graph(job.model.graph, job.channels, keep).bflops / original.bflops


def _accuracies(original: Figures, before: Figures, after: Figures) -> dict[str, float]:
    return {"original": original.accuracy, "before": before.accuracy, "after": after.accuracy}
