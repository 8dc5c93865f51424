"""A network with some residual branches gone beside the one with all: what is known of it, and which is the better cut.

Loss curves were measured with all branches there. A group that loses nothing but producers inside a branch keeps its
curve; a group that is cut apart or goes with the branch has none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from yoloprune.darknet.model import Graph
from yoloprune.errors import InputError
from yoloprune.prune.allocate import Allocation, Allocator, LagrangianAllocator, ThresholdAllocator, removed_share
from yoloprune.prune.branches import Branch
from yoloprune.prune.channels import Channels, KeepMask, trace
from yoloprune.prune.cost import Costs, Price
from yoloprune.prune.plan import Limits
from yoloprune.prune.sensitivity import Curve, Sensitivity


@dataclass(frozen=True)
class Candidate:
    """What is known of a network before its groups are cut."""

    channels: Channels
    keep: KeepMask
    """What is left after the rounds so far."""
    sensitivity: Sensitivity
    costs: Costs
    added: float = 0.0
    """What the branches that are gone add to the loss, each alone, with doubt, summed up."""

    def without(self, graph: Graph, price: Price, branches: Sequence[Branch], added: float = 0.0) -> Candidate:
        """The same with these branches gone too."""
        if not branches:
            return self
        channels = trace(graph, (*self.channels.branches, *branches))
        sensitivity = replace(self.sensitivity, curves=carried_curves(self.sensitivity, self.channels, channels))
        keep = self.channels.carried(self.keep, channels)
        return Candidate(channels, keep, sensitivity, Costs(graph, channels, price, keep), added)


def carried_curves(sensitivity: Sensitivity, old: Channels, new: Channels) -> tuple[Curve, ...]:
    """The curves of the groups that are still whole, in the new channels' terms."""
    moved = {
        int(before): int(after)
        for index in set(range(len(old.outputs))) - old.removed - new.removed
        for before, after in zip(old.outputs[index], new.outputs[index], strict=True)
    }
    groups = {frozenset(group.units.tolist()): group for group in new.groups}
    members = {group.label: group.units for group in old.groups}
    curves = []
    for curve in sensitivity.curves:
        units = [moved.get(int(unit), -1) for unit in members[curve.label][list(curve.order)]]
        group = groups.get(frozenset(units))
        if group is not None:
            place = {int(unit): position for position, unit in enumerate(group.units)}
            curves.append(replace(curve, producers=group.producers, order=tuple(place[unit] for unit in units)))
    return tuple(curves)


def nested(
    whole: Candidate, graph: Graph, price: Price, added: Mapping[Branch, float], doubt: float
) -> Iterator[Candidate]:
    """The network as it is, then with more and more branches gone: first those that add least to the loss for what
    they cost. Each adds what was measured, and the doubt that noise hides a loss.
    """
    costs = {
        branch: whole.costs.total(whole.keep) - (one := whole.without(graph, price, [branch])).costs.total(one.keep)
        for branch in added
    }
    order = sorted(added, key=lambda branch: (added[branch] + doubt) / max(costs[branch], 1e-30))
    for count in range(len(order) + 1):
        yield whole.without(graph, price, order[:count], sum(added[each] + doubt for each in order[:count]))


def allocator_of(candidate: Candidate, limits: Limits, rule: str) -> Allocator:
    """How a candidate's groups are cut: they trade, or with rule prefix go to one threshold."""
    known = (candidate.sensitivity, candidate.channels, limits, candidate.costs)
    return ThresholdAllocator(*known, rule) if rule == "prefix" else LagrangianAllocator(*known)


def best_for_ratio(
    candidates: Sequence[Candidate], limits: Limits, rule: str, ratio: float
) -> tuple[Candidate, Allocation]:
    """The candidate that reaches the ratio at the least loss, and its allocation."""
    if len(candidates) == 1:
        return candidates[0], allocator_of(candidates[0], limits, rule).for_ratio(ratio)
    found: list[tuple[float, Candidate, Allocation]] = []
    refused: list[InputError] = []
    for candidate in candidates:
        allocator = LagrangianAllocator(candidate.sensitivity, candidate.channels, limits, candidate.costs)
        try:
            allocation = allocator.for_ratio(ratio)
        except InputError as error:
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
        known = (candidate.sensitivity, candidate.channels)
        return removed_share(*known, candidate.costs, allocator.at(total - candidate.added))

    allocators = [(each, allocator_of(each, limits, rule)) for each in candidates if each.added <= total]
    return allocators[0] if len(allocators) == 1 else max(allocators, key=removed)
