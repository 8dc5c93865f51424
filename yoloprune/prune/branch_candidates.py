"""A network with some residual branches gone beside the one with all: what is known of it, and which is pruned best.

Sensitivity curves were measured with all branches there. A group that loses nothing but producers inside a branch keeps
its curve; a group that is divided or goes with the branch has none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from yoloprune.errors import NothingGoesError
from yoloprune.prune.allocate import Allocator, ThresholdAllocator, removed_share
from yoloprune.prune.branches import Branch
from yoloprune.prune.channel_units import ChannelUnits
from yoloprune.prune.channels import Channels
from yoloprune.prune.cost import Price
from yoloprune.prune.granularity import Allocation, AllocationCosts, Granularity
from yoloprune.prune.lagrangian import LagrangianAllocator
from yoloprune.prune.limits import Limits
from yoloprune.prune.sensitivity import Curve, Sensitivity


@dataclass(frozen=True)
class Candidate:
    """What is known of a network before its groups are pruned."""

    units: Granularity
    """What is left after the rounds so far."""
    sensitivity: Sensitivity
    costs: AllocationCosts
    added: float = 0.0
    """What the branches that are gone add to the loss, each alone, with the noise margin, summed up."""

    @classmethod
    def of(cls, units: Granularity, sensitivity: Sensitivity, price: Price, added: float = 0.0) -> Candidate:
        """With the costs by a price."""
        return cls(units, sensitivity, units.costs(price, sensitivity.orders), added)

    def without(self, price: Price, branches: Sequence[Branch], added: float = 0.0) -> Candidate:
        """The same with these branches gone too; units are channels then."""
        if not branches:
            return self
        assert isinstance(self.units, ChannelUnits)
        units = self.units.without_branches(branches)
        curves = carried_curves(self.sensitivity, self.units.channels, units.channels)
        return self.of(units, replace(self.sensitivity, curves=curves), price, added)


def carried_curves(sensitivity: Sensitivity, old: Channels, new: Channels) -> tuple[Curve, ...]:
    """The curves of the groups that are still whole, in the new channels' terms."""
    moved = {
        int(before): int(after)
        for index in set(range(len(old.outputs))) - old.removed - new.removed
        for before, after in zip(old.outputs[index], new.outputs[index], strict=True)
    }
    groups = {frozenset(group.units.tolist()): group for group in new.groups}
    curves = []
    for curve in sensitivity.curves:
        units = [moved.get(int(unit), -1) for unit in old.group(curve.label).units[list(curve.order)]]
        group = groups.get(frozenset(units))
        if group is not None:
            place = {int(unit): position for position, unit in enumerate(group.units)}
            curves.append(replace(curve, producers=group.producers, order=tuple(place[unit] for unit in units)))
    return tuple(curves)


def nested(whole: Candidate, price: Price, added: Mapping[Branch, float], margin: float) -> Iterator[Candidate]:
    """The network as it is, then with more and more branches gone: first those that add least to the loss for what
    they cost. Each adds what was measured, and the margin that noise hides a loss.
    """
    costs = {branch: whole.costs.total({}) - whole.without(price, [branch]).costs.total({}) for branch in added}
    order = sorted(added, key=lambda branch: (added[branch] + margin) / max(costs[branch], 1e-30))
    for count in range(len(order) + 1):
        yield whole.without(price, order[:count], sum(added[each] + margin for each in order[:count]))


def allocator_of(candidate: Candidate, limits: Limits, rule: str) -> Allocator:
    """How a candidate's groups are pruned: they trade, or with rule prefix go to one threshold."""
    known = (candidate.sensitivity, limits, candidate.costs)
    return ThresholdAllocator(*known, rule) if rule == "prefix" else LagrangianAllocator(*known)


def best_for_ratio(
    candidates: Sequence[Candidate], limits: Limits, rule: str, ratio: float
) -> tuple[Candidate, Allocation]:
    """The candidate that reaches the ratio at the least loss, and its allocation."""
    if len(candidates) == 1:
        return candidates[0], allocator_of(candidates[0], limits, rule).for_ratio(ratio)
    found: list[tuple[float, Candidate, Allocation]] = []
    refused: list[NothingGoesError] = []
    for candidate in candidates:
        allocator = LagrangianAllocator(candidate.sensitivity, limits, candidate.costs)
        try:
            allocation = allocator.for_ratio(ratio)
        except NothingGoesError as error:
            refused.append(error)
            continue
        found.append((candidate.added + allocator.loss(allocation), candidate, allocation))
    if not found:
        raise refused[-1]
    _, best, allocation = min(found, key=lambda each: each[0])
    return best, allocation


def best_for_total(
    candidates: Sequence[Candidate], limits: Limits, rule: str, total: float
) -> tuple[Candidate, Allocator]:
    """The candidate that saves most where the losses sum up to `total`, and its allocator."""

    def removed(of: tuple[Candidate, Allocator]) -> float:
        candidate, allocator = of
        return removed_share(candidate.costs, allocator.at(total - candidate.added))

    known = [(each, allocator_of(each, limits, rule)) for each in candidates if each.added <= total]
    return known[0] if len(known) == 1 else max(known, key=removed)
