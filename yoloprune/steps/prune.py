"""`prune`: from loss curves and what may be lost to a plan and masked weights."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from yoloprune.choices import RULES
from yoloprune.darknet import weights as weights_file
from yoloprune.darknet.model import Graph, Model
from yoloprune.detect.measure import Measure, network_for_measuring
from yoloprune.errors import InputError
from yoloprune.progress import OnProgress, Progress, silent
from yoloprune.prune.allocate import Allocation, ThresholdAllocator, added_loss, doubt, drop_useless_pruning
from yoloprune.prune.branches import Branch
from yoloprune.prune.candidates import Candidate, best_for_ratio, best_for_total, carried_curves, nested
from yoloprune.prune.certainty import cautions
from yoloprune.prune.channels import Channels, KeepMask, trace
from yoloprune.prune.cost import Costs, Price
from yoloprune.prune.plan import Limits, Plan, keep_mask, loss_for_total
from yoloprune.prune.pruner import Pruner
from yoloprune.prune.sensitivity import ROUNDING, Sensitivity
from yoloprune.steps.ana import analyse_job
from yoloprune.steps.branches import branch_accuracies, everything
from yoloprune.steps.goal import Goal
from yoloprune.steps.job import Job, job_of
from yoloprune.steps.limits import limits_for
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
    keep: KeepMask
    """What is left, in the original's channels."""
    plan: Path
    weights: Path
    written: bool
    """False after a dry run."""
    cautions: tuple[str, ...] = ()
    """Why the loss asked for is little to go by, a line each."""

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
    exclude: Collection[int] | None = None,
    multiple: int | None = None,
    min_keep: int | None = None,
    criterion: str | None = None,
    calibrate: int | None = None,
    compensation: str | None = None,
    reuse_analysis: bool = False,
    workspace: Path = DEFAULT,
    device: str = "cpu",
    force: bool = False,
    dry_run: bool = False,
    progress: OnProgress = silent,
) -> Pruned:
    """Choose each group's sparsity, cut all groups together, measure, and write `plan.json` and masked weights.

    Exactly one of threshold (accuracy that each group alone may lose against the original), ratio (share of the
    objective to remove) and total_loss (accuracy that all groups together may lose against the original, as measured;
    the largest cut that was found). relative: losses are fractions of the original's accuracy. objective: what a cut is
    to save: bflops, parameters or latency, the time in `reader` (darknet, opencv, ncnn; left out, the first that runs
    the network). drop_branches: whole residual branches may go too. exclude: layers whose channels all stay. multiple,
    min_keep: of the channels a group keeps. These three, left out, are as the last round has them. The analysis is
    finished or made where it is missing; reuse_analysis takes that of an earlier round. criterion, calibrate,
    compensation: as for ana; left out, as the analysis or the last round has them. force: cut the last round anew.
    """
    goal = Goal.of(threshold, ratio, total_loss, relative=relative)
    _check_rule(rule, goal, drop_branches=drop_branches)
    check_objective(objective, reader)
    known = Workspace.load(workspace)
    limits = limits_for(known, exclude, multiple, min_keep, progress)
    job = _open_for_cut(known, force=force)
    method = Method.as_before(job, criterion, calibrate, compensation)
    _check_layers(job, limits.exclude)
    original = job.workspace.original
    if original is None:
        raise InputError("lacks the original network's accuracy; run yoloprune ana", file=workspace)
    goal = goal.scaled(original.accuracy) if relative else goal
    also = [goal.threshold] if goal.threshold else []
    sensitivity = _analysis(job, method, reuse_analysis, also, device, progress)
    price = price_for(job, objective, reader, progress)
    whole = Candidate(job.channels, job.keep, sensitivity, Costs(job.model.graph, job.channels, price, job.keep))
    candidates = [whole]
    if drop_branches:
        accuracies = branch_accuracies(job, sensitivity.setup, method, device, progress)
        offered = {each: accuracies[each] for each in accuracies if limits.exclude.isdisjoint(each.inside)}
        candidates = _with_branches_gone(whole, job.model.graph, price, offered, goal.threshold)
    cuts, allocation = _chosen(job, candidates, goal, limits, rule, partial(method.pruner, device=device), progress)
    progress(Progress("prune", 0, 1, "refitting and measuring"))
    cut = cuts.at(allocation)
    if cut.keep.sum() == job.keep.sum() and cuts.job.channels.branches == job.channels.branches:
        raise _nothing_goes(goal, 1 - cuts.candidate.costs.total(job.keep) / cuts.candidate.costs.whole, limits)
    chosen_by = {
        "threshold": _largest(cuts.candidate.sensitivity, allocation) if goal.threshold is None else goal.threshold,
        "ratio": ratio,
        "total_loss": total_loss,
        "rule": rule,
        "objective": objective,
        "reader": reader,
        "drop_branches": drop_branches,
        **limits.as_dict(),
        **vars(method),
    }
    pruned = _written(cuts.job, cut, chosen_by, original, _before(job, original, sensitivity), dry_run=dry_run)
    progress(Progress("prune", 1, 1))
    return replace(pruned, cautions=cautions(sensitivity, [goal.loss] if goal.loss else []))


def _check_rule(rule: str, goal: Goal, *, drop_branches: bool) -> None:
    if rule not in RULES:
        raise InputError(f"--rule: expected one of {', '.join(RULES)}, found {rule!r}")
    if drop_branches and rule == "prefix" and goal.threshold is None:
        raise InputError("--drop-branches with --ratio or --total-loss: expected --rule interpolated, found prefix")


def _nothing_goes(goal: Goal, gone: float, limits: Limits) -> NothingGoesError:
    """gone: the share of the original's cost that earlier rounds removed; a ratio over that ends elsewhere."""
    if goal.ratio is not None:
        return NothingGoesError(f"--ratio {goal.ratio:g}: {gone:.4f} of the cost is gone already; expected more")
    return NothingGoesError(f"nothing can go within that loss; a larger one lets more go{limits.advice}")


def _chosen(
    job: Job,
    candidates: Sequence[Candidate],
    goal: Goal,
    limits: Limits,
    rule: str,
    pruner: Callable[[Job], Pruner],
    progress: OnProgress,
) -> tuple[_Cuts, Allocation]:
    """The candidate that meets the goal best, ready to be cut, and how many units of each of its groups go."""
    allocation: Allocation
    if goal.threshold is not None:
        (best,) = candidates
        allocation = ThresholdAllocator(best.sensitivity, best.channels, limits, best.costs, rule).at(goal.threshold)
    elif goal.ratio is not None:
        best, allocation = best_for_ratio(candidates, limits, rule, goal.ratio)
    else:
        assert goal.total_loss is not None
        best, allocator = best_for_total(candidates, limits, rule, goal.total_loss)
    best_job = replace(job, channels=best.channels, keep=best.keep)
    cuts = _Cuts(best_job, best, limits, pruner(best_job))
    if goal.total_loss is not None:
        original = job.workspace.original
        assert original is not None  # as prune has asked

        def joint_loss(trial: float) -> float:
            progress(Progress("prune", 0, 1, f"all together at {trial:.4f}"))
            return original.accuracy - cuts.at(allocator.at(trial)).accuracy

        loss = loss_for_total(joint_loss, goal.total_loss, allocator.most())
        if loss is None:
            lost = f"loses at most {goal.total_loss:g} in all"
            raise NothingGoesError(f"no cut was found that {lost}{limits.advice}")
        allocation = allocator.at(loss)
    return cuts, allocation


def _written(
    job: Job, cut: _Cut, chosen_by: Mapping[str, Any], original: Figures, before: Figures, *, dry_run: bool
) -> Pruned:
    """The round in the workspace, unless it is a dry run; what was done."""
    after = job.figures(cut.accuracy, cut.keep)
    number = job.next_round
    files = (job.workspace.plan_file(number), job.workspace.pruned_file(number))
    if not dry_run:
        accuracies = {"original": original.accuracy, "before": before.accuracy, "after": after.accuracy}
        job.workspace.make_way(number)
        Plan.of(job.workspace.cfg.sha256, job.channels, cut.keep, chosen_by, accuracies).save(files[0])
        weights_file.write(files[1], cut.model.weights.with_seen(0), cut.model.graph.layers, force=True)
        job.workspace.with_round(Round(number, chosen_by, before, after)).save()
    return Pruned(original, before, after, chosen_by["threshold"], job.channels, cut.keep, *files, written=not dry_run)


def _open_for_cut(workspace: Workspace, *, force: bool) -> Job:
    """The job before its next cut; with `force`, before the last one."""
    if workspace.rounds and (force or not workspace.last.finetuned):
        if not force:
            number = workspace.last.number
            raise InputError(f"round {number} is pruned and not finetuned; --force cuts it anew", file=workspace.folder)
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


def _analysis(
    job: Job, method: Method, reuse: bool, also: Sequence[float], device: str, progress: OnProgress
) -> Sensitivity:
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
    return analyse_job(job, method, also=also, device=device, progress=progress)


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

    keep: KeepMask
    model: Model
    accuracy: float


class _Cuts:
    """Joint cuts, each refitted and measured once."""

    def __init__(self, job: Job, candidate: Candidate, limits: Limits, pruner: Pruner) -> None:
        self.job, self.candidate, self.limits = job, candidate, limits
        self.pruner = replace(pruner, keep=everything(job), pictures=lambda: pruner.batches)
        self._measured: dict[bytes, _Cut] = {}

    def at(self, allocation: Allocation) -> _Cut:
        """The cut of a allocation, less what saves nothing; the network as it is where nothing goes."""
        sensitivity, channels = self.candidate.sensitivity, self.job.channels
        useful = drop_useless_pruning(sensitivity, channels, self.limits, self.candidate.costs, allocation)
        keep = keep_mask(sensitivity, channels, useful) & self.job.keep
        known = self._measured.get(keep.tobytes())
        if known is None:
            model = self.pruner.together(keep)
            known = _Cut(keep, model, self._measure.accuracy(network_for_measuring(model, self.pruner.device)))
            self._measured[keep.tobytes()] = known
        return known

    @cached_property
    def _measure(self) -> Measure:
        return self.job.measure(str(self.pruner.device))


def _largest(sensitivity: Sensitivity, allocation: Allocation) -> float:
    """The most that one of the groups loses against the original, as its curve has it."""
    added = (float(added_loss(sensitivity, curve, [allocation[curve.label]])[0]) for curve in sensitivity.curves)
    return sensitivity.baseline - sensitivity.start + max(added, default=0.0)
