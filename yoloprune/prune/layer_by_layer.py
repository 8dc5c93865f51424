"""Which groups go one after the other, and how far each: for pruning layer by layer (Luo, Wu and Lin 2017, ThiNet)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from yoloprune.darknet.model import Graph
from yoloprune.prune.allocate import check_ratio, removed_share
from yoloprune.prune.channels import Channels, Group
from yoloprune.prune.granularity import Allocation, AllocationCosts
from yoloprune.prune.limits import Limits
from yoloprune.prune.prescribed import same_sparsity
from yoloprune.prune.sensitivity import Curve

_BISECTIONS = 30


def inner_groups(graph: Graph, channels: Channels) -> list[Group]:
    """Groups of which no channel passes through a shortcut, from front to back; of at least two channels.

    Of a residual block these are the inner convolutions: what enters the sum is as wide as the stream (section 3.3.2
    of the paper).
    """
    added = [units for layer in graph.layers if layer.adds for units in channels.inputs[layer.index]]
    passing = np.unique(np.concatenate(added)) if added else np.empty(0, np.int64)
    return [group for group in channels.groups if group.size > 1 and not np.isin(group.units, passing).any()]


def counts_at(groups: Sequence[Group], limits: Limits, sparsity: float) -> Allocation:
    """How many units of each group go at the same sparsity; only of those of which some do."""
    curves = [Curve(group.producers, group.size, (), 0) for group in groups]
    return {label: count for label, count in same_sparsity(curves, limits, sparsity).items() if count}


def counts_for_ratio(groups: Sequence[Group], limits: Limits, costs: AllocationCosts, ratio: float) -> Allocation:
    """The counts at the least sparsity, the same of every group, that removes a share `ratio` of the cost.

    NothingGoesError where all that may go is less.
    """
    low, high = 0.0, 1.0
    check_ratio(ratio, removed_share(costs, counts_at(groups, limits, high)), limits)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if removed_share(costs, counts_at(groups, limits, middle)) >= ratio:
            high = middle
        else:
            low = middle
    return counts_at(groups, limits, high)
