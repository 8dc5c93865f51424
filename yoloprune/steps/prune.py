"""`prune`: from sensitivity curves and what may be lost to a plan and masked weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from yoloprune.choices import CHANNEL, RULES
from yoloprune.darknet import weights as weights_file
from yoloprune.errors import InputError, NothingGoesError
from yoloprune.options import AnalysisOptions, PruneOptions
from yoloprune.progress import OnProgress, Progress, silent
from yoloprune.prune.allocate import added_loss, noise_margin
from yoloprune.prune.branch_candidates import Candidate, carried_curves, nested
from yoloprune.prune.branches import Branch
from yoloprune.prune.certainty import cautions, joint_cautions
from yoloprune.prune.channel_units import ChannelUnits
from yoloprune.prune.cost import Price
from yoloprune.prune.granularities import units_of
from yoloprune.prune.granularity import Allocation, Granularity
from yoloprune.prune.plan import Plan
from yoloprune.prune.sensitivity import ROUNDING, Sensitivity
from yoloprune.shown import Shown
from yoloprune.steps.analysis import analyse_job
from yoloprune.steps.branches import branch_accuracies
from yoloprune.steps.goal import Goal
from yoloprune.steps.job import Job, job_of, units_after
from yoloprune.steps.joint import Joint, JointPruning, chosen
from yoloprune.steps.method import as_before, limits_of, with_limits
from yoloprune.steps.milliseconds import Times, timed
from yoloprune.steps.objective import check_objective, price_for
from yoloprune.steps.prescribed import check_prescribed, prescribed, without_points
from yoloprune.workspace import DEFAULT, Figures, Round, Workspace


@dataclass(frozen=True, repr=False)
class Pruned(Shown):
    """What pruning did."""

    original: Figures
    before: Figures
    after: Figures
    threshold: float | None
    """What each group alone was allowed to lose against the original; the most that one does by ratio or total loss.
    None where groups were not pruned by what they lose."""
    units: Granularity
    """What is left."""
    plan: Path
    weights: Path
    written: bool
    """False after a dry run."""
    cautions: tuple[str, ...] = ()
    """Why the loss asked for is little to go by, and what to do where small losses add up; a line each."""

    @property
    def branches(self) -> tuple[Branch, ...]:
        """Residual branches that are gone."""
        return self.units.channels.branches if isinstance(self.units, ChannelUnits) else ()

    @property
    def joint_loss(self) -> float:
        """Accuracy lost by all groups together, against the original."""
        return self.original.accuracy - self.after.accuracy

    def rows(self) -> Mapping[str, Mapping[str, object]]:
        """Figures of the networks."""
        return {"original": self.original.as_dict(), "before": self.before.as_dict(), "pruned": self.after.as_dict()}


def prune(
    options: PruneOptions,
    *,
    workspace: Path = DEFAULT,
    device: str = "cpu",
    force: bool = False,
    dry_run: bool = False,
    ms: bool = False,
    progress: OnProgress = silent,
) -> Pruned:
    """Choose each group's sparsity, prune all groups together, measure, and write `plan.json` and masked weights.

    The analysis is finished or made where it is missing. force: prune the last round anew. ms: time the networks, too,
    in every reader on this machine. InputError for options that
    don't go together or with the job, NothingGoesError where nothing can go.
    """
    goal = Goal.of(options)
    _check_rule(options, goal)
    check_objective(options.objective, options.reader, options.timings)
    known = Workspace.load(workspace)
    options = with_limits(options, known, progress)
    job = _before_the_round(known, device, force=force)
    method = as_before(job, options)
    job, options = job.in_units(method.units), replace(options, **vars(method.units))
    check_layers(job, options.exclude or ())
    goal = goal.scaled(job.original.accuracy) if options.relative else goal
    if goal.prescribed:
        check_prescribed(goal, method, options)
        sensitivity = without_points(job, method, device)
        whole = Candidate.of(job.units, sensitivity, price_for(job, options, progress))
        joint = JointPruning(job, whole, limits_of(options), method, device)
        allocation = prescribed(job, sensitivity, goal, options)
    else:
        sensitivity = _analysis(job, method, options, goal, device, progress)
        candidates = _candidates(job, sensitivity, goal, options, method, device, progress)
        joint, allocation = chosen(job, candidates, goal, options, method, device, progress)
    progress(Progress("prune", 0, 1, "compensating and measuring"))
    pruned = joint.at(allocation)
    if pruned.units.count() == job.units.count() and pruned.units.branches == job.units.branches:
        raise _nothing_goes(goal, 1 - joint.candidate.costs.total({}) / joint.candidate.costs.whole, options)
    threshold = goal.threshold
    if threshold is None and not goal.prescribed:
        threshold = _largest(joint.candidate.sensitivity, allocation)
    held = replace(options, criterion=method.criterion, calibrate=method.calibrate, compensation=method.compensation)
    after = job.figures(pruned.accuracy, pruned.model, pruned.units)
    done = Round(job.next_round, held, threshold, _before(job, sensitivity), after)
    files = (job.workspace.plan_file(done.number), job.workspace.pruned_file(done.number))
    if not dry_run:
        file = job.workspace.sensitivity_file(done.number)
        if goal.prescribed and not file.exists():
            sensitivity.save(file)  # orders, which a schedule goes by
        write_round(job, pruned, done)
    progress(Progress("prune", 1, 1))
    said = cautions(sensitivity, [goal.loss] if goal.loss else [])
    if goal.threshold is not None:
        said += joint_cautions(job.original.accuracy - pruned.accuracy, goal.threshold)
    result = Pruned(job.original, done.before, done.pruned, threshold, pruned.units, *files, not dry_run, said)
    return _timed(result, job, pruned, progress) if ms else result


def _timed(done: Pruned, job: Job, pruned: Joint, progress: OnProgress) -> Pruned:
    """With milliseconds of all three networks."""
    models = (job.inputs.original, job.units.slim(job.model), pruned.units.slim(pruned.model))
    original, before, after = timed((done.original, done.before, done.after), models, progress)
    if done.written:
        figures = {"original": original, f"round {job.next_round}": after}
        Times.keep(job.workspace.milliseconds_file, figures)
    return replace(done, original=original, before=before, after=after)


def _check_rule(options: PruneOptions, goal: Goal) -> None:
    if options.rule not in RULES:
        raise InputError(f"--rule: expected one of {', '.join(RULES)}, found {options.rule!r}")
    if options.drop_branches and options.rule == "prefix" and goal.threshold is None:
        raise InputError("--drop-branches with --ratio or --total-loss: expected --rule interpolated, found prefix")


def _nothing_goes(goal: Goal, gone: float, options: PruneOptions) -> NothingGoesError:
    """gone: the share of the original's cost that earlier rounds removed; a ratio over that ends elsewhere."""
    if goal.ratio is not None:
        return NothingGoesError(f"--ratio {goal.ratio:g}: {gone:.4f} of the cost is gone already; expected more")
    if goal.prescribed:
        return NothingGoesError(f"as much is gone already; expected more{limits_of(options).advice}")
    return NothingGoesError(f"nothing can go within that loss; a larger one lets more go{limits_of(options).advice}")


def _before_the_round(workspace: Workspace, device: str, *, force: bool) -> Job:
    """The job before its next round; with `force`, before the last one."""
    if workspace.rounds and (force or not workspace.last.finetuned):
        if not force:
            raise InputError(
                f"round {workspace.last.number} is pruned and not finetuned; --force prunes it anew",
                file=workspace.folder,
            )
        workspace = workspace.without_last()
    return job_of(workspace, device=device)


def check_layers(job: Job, exclude: Sequence[int]) -> None:
    """InputError for layers that lose nothing anyway."""
    makers = {producer for group in job.units.groups for producer in group.producers}
    for layer in exclude:
        if layer not in makers:
            listed = ", ".join(map(str, sorted(makers)))
            what = "makes no prunable channels" if job.units.name == CHANNEL else "has no prunable weights"
            raise InputError(f"--exclude: layer {layer} {what} (expected some of {listed})")


def _analysis(
    job: Job, method: AnalysisOptions, options: PruneOptions, goal: Goal, device: str, progress: OnProgress
) -> Sensitivity:
    """The round's own curves, measured as far as they are missing; or the newest of the rounds before."""
    for number in range(job.next_round - 1, 0, -1) if options.reuse_analysis else ():
        file = job.workspace.sensitivity_file(number)
        if file.exists():
            earlier, graph = Sensitivity.load(file), job.model.graph
            unit = job.units.options
            if earlier.options.units != unit:
                raise InputError("--reuse-analysis: expected curves of the same units, found others", file=file)
            before = units_after(job.workspace, graph, number - 1) if number > 1 else units_of(graph, unit)
            if before.options != unit:
                before = units_of(graph, unit, before.mask(), before.branches)
            earlier.check_groups(before, file)
            if isinstance(before, ChannelUnits) and isinstance(job.units, ChannelUnits):
                return replace(earlier, curves=carried_curves(earlier, before.channels, job.units.channels))
            return earlier
    also = [goal.threshold] if goal.threshold else []
    return analyse_job(job, method, also=also, device=device, progress=progress)[1]


def _candidates(
    job: Job,
    sensitivity: Sensitivity,
    goal: Goal,
    options: PruneOptions,
    method: AnalysisOptions,
    device: str,
    progress: OnProgress,
) -> list[Candidate]:
    """The network, with branches gone where they may go."""
    price = price_for(job, options, progress)
    whole = Candidate.of(job.units, sensitivity, price)
    if not options.drop_branches:
        return [whole]
    accuracies = branch_accuracies(job, sensitivity.setup, method, device, progress)
    excluded = set(options.exclude or ())
    offered = {each: accuracies[each] for each in accuracies if excluded.isdisjoint(each.inside)}
    return _with_branches_gone(whole, price, offered, goal.threshold)


def _with_branches_gone(
    whole: Candidate, price: Price, accuracies: Mapping[Branch, float], threshold: float | None
) -> list[Candidate]:
    """The network without the branches within the threshold; without one, with more and more of all gone."""
    known = whole.sensitivity
    if threshold is not None:
        lost = {branch: known.baseline - accuracy for branch, accuracy in accuracies.items()}
        return [whole.without(price, [each for each in lost if lost[each] <= threshold + ROUNDING])]
    added = {branch: max(known.start - accuracy, 0.0) for branch, accuracy in accuracies.items()}
    return list(nested(whole, price, added, noise_margin(known)))


def _before(job: Job, sensitivity: Sensitivity) -> Figures:
    """Of the weights that are pruned. The analysis measured them, unless it is the round before's (reuse_analysis)."""
    if sensitivity.setup.weights == job.weights_sha:
        return job.figures(sensitivity.start, job.model, job.units)
    rounds = job.workspace.rounds
    return rounds[-1].newest if rounds else job.original


def write_round(job: Job, pruned: Joint, done: Round) -> None:
    """A round in the workspace, in place of one of its number and all behind it."""
    workspace = job.workspace
    accuracies = {
        "original": job.original.accuracy, "before": done.before.accuracy, "after": done.pruned.accuracy
    }  # fmt: skip
    workspace.make_way(done.number)
    Plan.save(workspace.plan_file(done.number), workspace.cfg.sha256, pruned.units, done.options, accuracies)
    weights = pruned.model.weights.with_seen(0)
    weights_file.write(workspace.pruned_file(done.number), weights, job.model.graph.layers, force=True)
    job.inputs.measure.details(pruned.predictions).save(workspace.details_file(done.number))
    workspace.with_round(done).save()


def _largest(sensitivity: Sensitivity, allocation: Allocation) -> float:
    """The most that one of the groups loses against the original, as its curve has it."""
    added = (float(added_loss(sensitivity, curve, [allocation[curve.label]])[0]) for curve in sensitivity.curves)
    return sensitivity.baseline - sensitivity.start + max(added, default=0.0)
