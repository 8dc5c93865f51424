"""`prune`: from loss curves and what may be lost to a plan and masked weights."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from yoloprune.darknet import weights as weights_file
from yoloprune.darknet.model import Graph, Model
from yoloprune.detect.measure import Measure, network_for_measuring
from yoloprune.errors import InputError
from yoloprune.prune.branches import Branch
from yoloprune.prune.candidates import Candidate, best_for_ratio, best_for_total, carried_curves, nested
from yoloprune.prune.channels import Channels, KeepAtoms, trace
from yoloprune.prune.cost import Costs, Price
from yoloprune.prune.cutter import Cutter
from yoloprune.prune.plan import RULES, Limits, Plan, keep_atoms, loss_for_total
from yoloprune.prune.sensitivity import ROUNDING, Sensitivity
from yoloprune.prune.trade import Choice, Thresholds, added_loss, doubt, economical
from yoloprune.steps.ana import analyse_job
from yoloprune.steps.branches import branch_accuracies, everything
from yoloprune.steps.job import Job, Step, Watch, job_of, unwatched
from yoloprune.steps.method import Method
from yoloprune.steps.objective import check_objective, price_for
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
    """What each group alone was allowed to lose against the original; the most that one does by ratio or total loss."""
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
    objective: str = "bflops",
    reader: str | None = None,
    drop_branches: bool = False,
    exclude: Collection[int] = (),
    multiple: int = 1,
    min_keep: int = 1,
    criterion: str | None = None,
    calibrate: int | None = None,
    compensation: str | None = None,
    reuse_analysis: bool = False,
    workspace: Path = DEFAULT,
    device: str = "cpu",
    force: bool = False,
    dry_run: bool = False,
    watch: Watch = unwatched,
) -> Pruned:
    """Choose each group's sparsity, cut all groups together, measure, and write `plan.json` and masked weights.

    Exactly one of threshold (accuracy that each group alone may lose against the original), ratio (share of the
    objective to remove) and total_loss (accuracy that all groups together may lose against the original, as measured;
    the largest cut that was found). relative: losses are fractions of the original's accuracy. objective: what a cut is
    to save: bflops, parameters or latency, the time in `reader` (darknet or opencv; left out, the first that runs the
    network). drop_branches: whole residual branches may go too. exclude: layers whose channels all stay. multiple,
    min_keep: of the channels a group keeps. The analysis is finished or made where it is missing; reuse_analysis takes
    that of an earlier round. criterion, calibrate, compensation: as for ana; left out, as the analysis or the last
    round has them. force: cut the last round anew.
    """
    if [threshold, ratio, total_loss].count(None) != 2:
        raise InputError("expected one of --threshold, --ratio and --total-loss")
    if relative and ratio is not None:
        raise InputError("--relative is for --threshold and --total-loss, found --ratio")
    if rule not in RULES:
        raise InputError(f"--rule: expected one of {', '.join(RULES)}, found {rule!r}")
    if multiple < 1 or min_keep < 1:
        raise InputError("--multiple and --min-keep: expected at least 1")
    if ratio is not None and not 0 < ratio < 1:
        raise InputError(f"--ratio: expected a share between 0 and 1, found {ratio:g}")
    if total_loss is not None and total_loss < 0:
        raise InputError(f"--total-loss: expected at least 0, found {total_loss:g}")
    if drop_branches and rule == "prefix" and threshold is None:
        raise InputError("--drop-branches with --ratio or --total-loss: expected --rule interpolated, found prefix")
    check_objective(objective, reader)
    for name, value in (("--threshold", threshold), ("--total-loss", total_loss)):
        if value is not None and not math.isfinite(value):
            raise InputError(f"{name}: expected a loss, found {value}")
    job = _open_for_cut(workspace, force=force)
    method = Method.as_before(job, criterion, calibrate, compensation)
    _check_layers(job, exclude)
    limits = Limits(frozenset(exclude), multiple, min_keep)
    original = job.workspace.original
    if original is None:
        raise InputError("lacks the original network's accuracy; run yoloprune ana", file=workspace)
    scale = original.accuracy if relative else 1.0
    threshold = None if threshold is None else threshold * scale
    also = () if threshold is None or threshold <= 0 else (threshold,)
    sensitivity = _analysis(job, method, reuse_analysis, also, device, watch)
    price = price_for(job, objective, reader, watch)
    whole = Candidate(job.channels, job.keep, sensitivity, Costs(job.model.graph, job.channels, price, job.keep))
    candidates = [whole]
    if drop_branches:
        accuracies = branch_accuracies(job, sensitivity.setup, method, device, watch)
        candidates = _with_branches_gone(whole, job.model.graph, price, accuracies, threshold)
    chosen: Choice
    if threshold is not None:
        (best,) = candidates
        chosen = Thresholds(best.sensitivity, best.channels, limits, best.costs, rule).at(threshold)
    elif ratio is not None:
        best, chosen = best_for_ratio(candidates, limits, rule, ratio)
    else:
        assert total_loss is not None
        best, way = best_for_total(candidates, limits, rule, total_loss * scale)
    best_job = replace(job, channels=best.channels, keep=best.keep)
    cuts = _Cuts(best_job, best, limits, method.cutter(best_job, device))
    if total_loss is not None:

        def joint_loss(trial: float) -> float:
            watch(Step("prune", 0, 1, f"all together at {trial:.4f}"))
            return original.accuracy - cuts.at(way.at(trial)).accuracy

        loss = loss_for_total(joint_loss, total_loss * scale, way.most())
        if loss is None:
            raise NothingGoesError(f"no cut was found that loses at most {total_loss:g} in all")
        chosen = way.at(loss)
    watch(Step("prune", 0, 1, "refitting and measuring"))
    done = cuts.at(chosen)
    keep, cut = done.keep, done.model
    if keep.sum() == job.keep.sum() and best.channels.branches == job.channels.branches:
        raise NothingGoesError("nothing can go within that loss; a larger one cuts more")
    if threshold is None:
        threshold = _largest(best.sensitivity, chosen)
    before = _before(job, original, sensitivity)
    job = cuts.job
    after = job.figures(done.accuracy, keep)
    number = job.next_round
    chosen_by: dict[str, Any] = {
        "threshold": threshold,
        "ratio": ratio,
        "total_loss": total_loss,
        "rule": rule,
        "objective": objective,
        "reader": reader,
        "drop_branches": drop_branches,
        "multiple": multiple,
        "min_keep": min_keep,
        "exclude": sorted(exclude),
        **vars(method),
    }
    plan = Plan.of(job.workspace.cfg.sha256, job.channels, keep, chosen_by, _accuracies(original, before, after))
    files = (job.workspace.plan_file(number), job.workspace.pruned_file(number))
    if not dry_run:
        job.workspace.make_way(number)
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


def _check_layers(job: Job, exclude: Collection[int]) -> None:
    makers = {producer for group in job.channels.groups for producer in group.producers}
    for layer in sorted(exclude):
        if layer not in makers:
            listed = ", ".join(map(str, sorted(makers)))
            raise InputError(f"--exclude: layer {layer} makes no prunable channels (expected some of {listed})")


def _analysis(job: Job, method: Method, reuse: bool, also: Sequence[float], device: str, watch: Watch) -> Sensitivity:
    """The round's own curves, measured as far as they are missing; or the newest of the rounds before."""
    rounds = range(job.next_round - 1, 0, -1) if reuse else ()
    for number in rounds:
        file = job.workspace.sensitivity_file(number)
        if file.exists():
            earlier = Sensitivity.load(file)
            plan = Plan.load(job.workspace.plan_file(number - 1)) if number > 1 else None
            before = plan.channels(job.model.graph) if plan else trace(job.model.graph)
            earlier.check_groups(before, plan.keep(before) if plan else before.all_kept(), file)
            return replace(earlier, curves=carried_curves(earlier, before, job.channels))
    return analyse_job(job, method, also=also, device=device, watch=watch)


def _with_branches_gone(
    whole: Candidate, graph: Graph, price: Price, accuracies: Mapping[Branch, float], threshold: float | None
) -> list[Candidate]:
    """The network without the branches that bear the threshold; without one, with more and more of all gone."""
    known = whole.sensitivity
    if threshold is not None:
        lost = {branch: known.baseline - accuracy for branch, accuracy in accuracies.items()}
        return [whole.without(graph, price, [each for each in lost if lost[each] <= threshold + ROUNDING])]
    added = {branch: max(known.start - accuracy, 0.0) for branch, accuracy in accuracies.items()}
    return list(nested(whole, graph, price, added, doubt(known)))


@dataclass(frozen=True)
class _Cut:
    """All groups cut together."""

    keep: KeepAtoms
    model: Model
    accuracy: float


class _Cuts:
    """Joint cuts, each refitted and measured once."""

    def __init__(self, job: Job, candidate: Candidate, limits: Limits, cutter: Cutter) -> None:
        self.job, self.candidate, self.limits = job, candidate, limits
        self.cutter = replace(cutter, keep=everything(job), pictures=lambda: cutter.batches)
        self._measured: dict[bytes, _Cut] = {}

    def at(self, choice: Choice) -> _Cut:
        """The cut of a choice, less what saves nothing; the network as it is where nothing goes."""
        sensitivity, channels = self.candidate.sensitivity, self.job.channels
        useful = economical(sensitivity, channels, self.limits, self.candidate.costs, choice)
        keep = keep_atoms(sensitivity, channels, useful) & self.job.keep
        known = self._measured.get(keep.tobytes())
        if known is None:
            model = self.cutter.together(keep)
            known = _Cut(keep, model, self._measure.accuracy(network_for_measuring(model, self.cutter.device)))
            self._measured[keep.tobytes()] = known
        return known

    @cached_property
    def _measure(self) -> Measure:
        return self.job.measure(str(self.cutter.device))


def _largest(sensitivity: Sensitivity, choice: Choice) -> float:
    """The most that one of the groups loses against the original, as its curve has it."""
    added = (float(added_loss(sensitivity, curve, [choice[curve.label]])[0]) for curve in sensitivity.curves)
    return sensitivity.baseline - sensitivity.start + max(added, default=0.0)


def _accuracies(original: Figures, before: Figures, after: Figures) -> dict[str, float]:
    return {"original": original.accuracy, "before": before.accuracy, "after": after.accuracy}
