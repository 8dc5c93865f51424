"""All groups pruned together: the allocation that meets a goal, compensated and measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from yoloprune.darknet.model import Model
from yoloprune.detect.measure import network_for_measuring
from yoloprune.errors import NothingGoesError
from yoloprune.options import AnalysisOptions, PruneOptions
from yoloprune.progress import OnProgress, Progress
from yoloprune.prune.allocate import ThresholdAllocator, drop_useless_pruning, loss_for_total
from yoloprune.prune.branch_candidates import Candidate, best_for_ratio, best_for_total
from yoloprune.prune.granularity import Allocation, Granularity
from yoloprune.prune.limits import Limits
from yoloprune.steps.goal import Goal
from yoloprune.steps.job import Job
from yoloprune.steps.method import limits_of


@dataclass(frozen=True)
class Joint:
    """A network with all groups pruned together."""

    units: Granularity
    """What is left."""
    model: Model
    accuracy: float
    predictions: Any
    """Of the measured images."""


class JointPruning:
    """What a candidate's allocations come to, each compensated and measured once."""

    def __init__(self, job: Job, candidate: Candidate, limits: Limits, method: AnalysisOptions, device: str) -> None:
        self.candidate, self.limits = candidate, limits
        self._measure, self._device = job.inputs.measure, device
        self._pruner = replace(job, units=candidate.units).pruner(method, device)
        self._measured: dict[tuple[tuple[str, int], ...], Joint] = {}

    def at(self, allocation: Allocation) -> Joint:
        """The network of an allocation, less what saves nothing; as it is where nothing goes."""
        about = (self.candidate.sensitivity, self.limits, self.candidate.costs)
        useful = drop_useless_pruning(*about, allocation)
        key = tuple(useful.items())
        if key not in self._measured:
            units, model = self._pruner.together(useful, self.candidate.sensitivity.orders)
            predictions = self._measure.predictions(network_for_measuring(model, self._device))
            accuracy = self._measure.outcome(predictions).accuracy
            self._measured[key] = Joint(units, model, accuracy, predictions)
        return self._measured[key]


def chosen(
    job: Job,
    candidates: Sequence[Candidate],
    goal: Goal,
    options: PruneOptions,
    method: AnalysisOptions,
    device: str,
    progress: OnProgress,
) -> tuple[JointPruning, Allocation]:
    """The candidate that meets the goal best, ready to be pruned, and how many units of each of its groups go.

    options: with limits filled in. NothingGoesError where nothing is found within a total loss.
    """
    limits = limits_of(options)
    if goal.total_loss is not None:
        best, allocator = best_for_total(candidates, limits, options.rule, goal.total_loss)
        joint = JointPruning(job, best, limits, method, device)

        def joint_loss(trial: float) -> float:
            progress(Progress("prune", 0, 1, f"all together at {trial:.4f}"))
            return job.original.accuracy - joint.at(allocator.at(trial)).accuracy

        loss = loss_for_total(joint_loss, goal.total_loss, allocator.most())
        if loss is None:
            lost = f"loses at most {goal.total_loss:g} in all"
            raise NothingGoesError(f"no pruning was found that {lost}{limits.advice}")
        return joint, allocator.at(loss)
    if goal.ratio is not None:
        best, allocation = best_for_ratio(candidates, limits, options.rule, goal.ratio)
    else:
        assert goal.threshold is not None  # a goal is one of three
        (best,) = candidates
        allocation = ThresholdAllocator(best.sensitivity, limits, best.costs, options.rule).at(goal.threshold)
    return JointPruning(job, best, limits, method, device), allocation
