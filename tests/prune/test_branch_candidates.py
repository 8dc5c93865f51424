"""Networks with some residual branches gone: what curves carry over, and which network is cut."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.helpers import graph_of
from tests.prune.test_plan import curve, of
from yoloprune.errors import InputError
from yoloprune.options import PruneOptions
from yoloprune.prune.branch_candidates import Candidate, best_for_ratio, best_for_total, carried_curves, nested
from yoloprune.prune.branches import Branch, branches
from yoloprune.prune.channel_units import ChannelUnits
from yoloprune.prune.channels import trace
from yoloprune.prune.cost import flops
from yoloprune.prune.limits import Limits
from yoloprune.prune.plan import Plan

CONV = "[convolutional]\nactivation=leaky\nfilters="
BLOCK = f"{CONV}16\nsize=3\npad=1\n{CONV}8\n[shortcut]\nfrom=-3\nactivation=linear\n"
GRAPH = graph_of(f"[net]\nwidth=8\nheight=8\nchannels=3\n{CONV}8\n{BLOCK}{BLOCK}{CONV}12\n{CONV}5\n")
FIRST, SECOND = branches(GRAPH)
PRICE = flops(GRAPH)
LINE = {2: 0.01, 4: 0.02, 6: 0.03, 7: 0.035}


def whole(loss: float = 1.0) -> Candidate:
    """Groups 0+2+5 (the stream), 1 and 4 (inside the branches) and 7; all lose in proportion to `loss`."""
    units = ChannelUnits.of(GRAPH)
    assert [group.label for group in units.groups] == ["0+2+5", "1", "4", "7"]
    curves = []
    for group in units.groups:
        losses = {count * group.size // 8: loss * lost for count, lost in LINE.items()}
        curves.append(curve(losses, units=group.size, producers=group.producers))
    return Candidate.of(units, of(*curves), PRICE)


def gone(candidate: Candidate) -> tuple[Branch, ...]:
    assert isinstance(candidate.units, ChannelUnits)
    return candidate.units.channels.branches


def test_curves_of_whole_groups_carry_over() -> None:
    before = whole()
    after = trace(GRAPH, [FIRST])
    curves = carried_curves(before.sensitivity, trace(GRAPH), after)
    assert [each.label for each in curves] == ["0+5", "4", "7"]
    for old, new in zip((before.sensitivity.curves[index] for index in (0, 2, 3)), curves, strict=True):
        assert (old.points, old.size, old.order) == (new.points, new.size, new.order)
    both = trace(GRAPH, [FIRST, SECOND])
    assert [each.label for each in carried_curves(before.sensitivity, trace(GRAPH), both)] == ["0", "7"]


def test_cheap_branches_go_first() -> None:
    found = list(nested(whole(), PRICE, {FIRST: 0.02, SECOND: 0.001}, margin=0.003))
    assert [gone(each) for each in found] == [(), (SECOND,), (SECOND, FIRST)]
    assert [each.added for each in found] == pytest.approx([0.0, 0.004, 0.027])


@pytest.mark.parametrize(
    ("added", "expected"), [({FIRST: 0.0, SECOND: 0.5}, (FIRST,)), ({FIRST: 0.5, SECOND: 0.5}, ())]
)
def test_ratio_takes_what_loses_least(added: dict[object, float], expected: tuple[object, ...]) -> None:
    candidates = list(nested(whole(), PRICE, added, margin=0.003))  # type: ignore[arg-type]
    best, allocation = best_for_ratio(candidates, Limits(), "interpolated", 0.3)
    assert gone(best) == expected
    assert isinstance(best.units, ChannelUnits)
    orders = best.sensitivity.orders
    slim = best.units.without({label: order[: allocation[label]] for label, order in orders.items()}).slim_graph()
    assert 1 - slim.bflops / GRAPH.bflops >= 0.3
    with pytest.raises(InputError, match="at most"):
        best_for_ratio(candidates, Limits(), "interpolated", 0.999)


def test_total_loss_takes_what_saves_most() -> None:
    candidates = list(nested(whole(), PRICE, {FIRST: 0.001, SECOND: 0.001}, margin=0.003))
    assert gone(best_for_total(candidates, Limits(), "interpolated", 0.05)[0]) == (FIRST, SECOND)
    assert gone(best_for_total(candidates, Limits(), "interpolated", 0.001)[0]) == ()


def test_a_plan_knows_its_branches(tmp_path: Path) -> None:
    units = ChannelUnits.of(GRAPH).without_branches([SECOND])
    units = units.without({units.groups[0].label: [0, 1, 2]})
    file = tmp_path / "plan.json"
    Plan.save(file, "sha", units, PruneOptions(), {})
    again = Plan.load(file).units(GRAPH, file)
    assert isinstance(again, ChannelUnits)
    assert again.channels.branches == (SECOND,)
    assert np.array_equal(again.keep, units.keep)
