"""Pruning as prescribed: the counts that a sparsity or a magnitude says, and curves on which nothing was measured."""

from __future__ import annotations

from yoloprune.choices import BITS, CHANNEL, DIVISIONS
from yoloprune.detect.measure import network_for_measuring
from yoloprune.errors import InputError
from yoloprune.options import AnalysisOptions, PruneOptions
from yoloprune.prune.channel_units import ChannelUnits
from yoloprune.prune.granularity import Allocation
from yoloprune.prune.prescribed import Magnitudes, divided_sparsity, globally_by_scale, same_sparsity
from yoloprune.prune.sensitivity import Sensitivity
from yoloprune.prune.weight_units import WeightUnits
from yoloprune.steps.analysis import resumable, setup_of
from yoloprune.steps.goal import Goal
from yoloprune.steps.job import Job
from yoloprune.steps.method import limits_of


def check_prescribed(goal: Goal, method: AnalysisOptions, options: PruneOptions) -> None:
    """InputError for what can't be prescribed of these units."""
    name = method.granularity
    if name == CHANNEL and goal.global_sparsity is not None and method.criterion != "bn-scale":
        raise InputError(f"--global-sparsity: expected of channels --criterion bn-scale, found {method.criterion}")
    divided = "" if options.divide == DIVISIONS[0] else f"--divide {options.divide}"
    if name == BITS and goal.global_sparsity is not None:
        divided = "--global-sparsity"
    if name in (CHANNEL, BITS) and divided:
        raise InputError(f"{divided}: expected --granularity weight, block or n:m, found {name}")
    if goal.magnitude is not None:
        if name != "weight":
            raise InputError(f"--magnitude: expected --granularity weight, found {name}")
        if method.criterion != "magnitude":
            raise InputError(f"--magnitude: expected --criterion magnitude, found {method.criterion}")
        Magnitudes.parse(goal.magnitude)
    if options.drop_branches:
        raise InputError("--drop-branches: expected --threshold, --ratio or --total-loss")


def without_points(job: Job, method: AnalysisOptions, device: str) -> Sensitivity:
    """Curves without points, which an analysis may add to; where units go in an order, the round's that are there."""
    file, setup = job.workspace.sensitivity_file(job.next_round), setup_of(job, method)
    if file.exists() and job.units.ordered:
        return resumable(file, setup, method, job)
    start = job.original.accuracy
    if job.workspace.rounds:
        start = job.inputs.measure.accuracy(network_for_measuring(job.model, device))
    curves = job.pruner(method, device).first_curves(str(method.criterion))
    return Sensitivity(setup, method, job.original.accuracy, start, curves)


def prescribed(job: Job, sensitivity: Sensitivity, goal: Goal, options: PruneOptions) -> Allocation:
    """How many units of each group go. options: with limits filled in."""
    limits, curves = limits_of(options), sensitivity.curves
    if goal.sparsity is not None and options.divide == DIVISIONS[0]:
        return same_sparsity(curves, limits, goal.sparsity)
    if isinstance(job.units, ChannelUnits):
        assert goal.global_sparsity is not None  # as checked
        return globally_by_scale(job.units, job.model, curves, limits, goal.global_sparsity)
    assert isinstance(job.units, WeightUnits)  # as checked
    if goal.magnitude is not None:
        return Magnitudes.parse(goal.magnitude).counts(job.units, job.model, curves, limits)
    sparsity, division = (goal.global_sparsity, "global") if goal.sparsity is None else (goal.sparsity, options.divide)
    assert sparsity is not None  # a goal is one of these
    return divided_sparsity(job.units, job.model, curves, limits, sparsity, division)
