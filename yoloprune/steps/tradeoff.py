"""What sensitivity curves promise: the share of the BFLOPs, or of the weights, that goes at a loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from yoloprune.choices import REFERENCE_LOSS
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


def costs_of(job: Job, sensitivity: Sensitivity) -> AllocationCosts:
    """What allocations cost whose groups go in the order of their curves: BFLOPs, or weights."""
    return job.units.costs(flops(job.model.graph), sensitivity.orders)
