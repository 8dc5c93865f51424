"""What sensitivity curves promise: the share of the BFLOPs, or of the weights, that goes at a loss."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from yoloprune.choices import REFERENCE_LOSS
from yoloprune.prune.allocate import ThresholdAllocator, added_loss, drop_useless_pruning, removed_share
from yoloprune.prune.cost import flops
from yoloprune.prune.granularity import AllocationCosts
from yoloprune.prune.limits import Limits, prunable_count
from yoloprune.prune.sensitivity import Sensitivity
from yoloprune.steps.job import Job

_MOST_LOST: Final = 0.1
"""Loss at which `frontier` ends."""


def gains(costs: AllocationCosts, sensitivity: Sensitivity, loss: float = REFERENCE_LOSS) -> dict[str, float]:
    """For each group, the share of the original's cost that goes if it alone is pruned as far as `loss` lets it."""
    now, limits = costs.total({}), Limits()
    alone: dict[str, Mapping[str, int]] = {
        curve.label: {curve.label: limits.allowed(curve, prunable_count(sensitivity, curve, loss))}
        for curve in sensitivity.curves
    }
    return {label: (now - costs.total(allocation)) / costs.whole for label, allocation in alone.items()}


def frontier(costs: AllocationCosts, sensitivity: Sensitivity) -> list[tuple[float, float]]:
    """For losses that each group alone may have, the share of the original's cost that is gone then."""
    now = sensitivity.baseline - sensitivity.start
    losses = sorted({now, *(sensitivity.loss(point) for curve in sensitivity.curves for point in curve.points)})
    result = []
    for loss in [loss for loss in losses if now <= loss <= _MOST_LOST]:
        allocation = {curve.label: sensitivity.prunable_within(curve, loss) for curve in sensitivity.curves}
        result.append((loss, 1 - costs.total(allocation) / costs.whole))
    return result


@dataclass(frozen=True)
class TradeOff:
    """What a threshold is expected to do."""

    threshold: float
    removed: float
    """Share of the original's cost that is gone then."""
    joint_loss: float
    """Accuracy lost by all groups together, before any training."""
    interval: tuple[float, float]
    """Where that lies, likely."""


def trade_offs(
    costs: AllocationCosts, sensitivity: Sensitivity, limits: Limits, thresholds: Sequence[float]
) -> tuple[TradeOff, ...]:
    """What each threshold does within the limits.

    The joint loss is expected to be the sum of what each group adds by its curve. In docs/method.md's comparison it was
    half to twice of that; the interval has this deviation and, independent of it, the groups' own intervals.
    """
    allocator = ThresholdAllocator(sensitivity, limits, costs, "interpolated")
    before = sensitivity.baseline - sensitivity.start
    found = []
    for threshold in thresholds:
        allocation = drop_useless_pruning(sensitivity, limits, costs, allocator.at(threshold))
        going = [curve for curve in sensitivity.curves if allocation[curve.label] > curve.gone]
        added = sum(float(added_loss(sensitivity, curve, [allocation[curve.label]])[0]) for curve in going)
        noise = math.hypot(*(sensitivity.margin(curve, threshold) or 0.0 for curve in going))
        low, high = before + added - math.hypot(added / 2, noise), before + added + math.hypot(added, noise)
        found.append(TradeOff(threshold, removed_share(costs, allocation), before + added, (low, high)))
    return tuple(found)


def costs_of(job: Job, sensitivity: Sensitivity) -> AllocationCosts:
    """What allocations cost whose groups go in the order of their curves: BFLOPs, or weights."""
    return job.units.costs(flops(job.model.graph), sensitivity.orders)
