"""Which groups go layer by layer, and how far for a ratio."""

from __future__ import annotations

import pytest

from tests.helpers import graph_of
from yoloprune.errors import InputError
from yoloprune.prune.channel_units import ChannelUnits
from yoloprune.prune.cost import flops
from yoloprune.prune.layer_by_layer import counts_at, counts_for_ratio, inner_groups
from yoloprune.prune.limits import Limits

CONV = "[convolutional]\nbatch_normalize=1\nactivation=leaky\npad=1\nfilters="
TEXT = (
    "[net]\nwidth=17\nheight=13\nchannels=3\n"
    f"{CONV}12\nsize=3\n{CONV}12\n{CONV}9\n{CONV}9\ngroups=9\nsize=3\n{CONV}12\n[shortcut]\nfrom=1\nactivation=linear\n"
    f"{CONV}10\nsize=3\n[convolutional]\nfilters=14\nactivation=linear\n"
    "[yolo]\nmask=0,1\nnum=2\nanchors=3,4,6,8\nclasses=2\n"
)
"""A residual block: layers 2 and 3 inside, 4 adds to 1; layers 0 and 6 outside."""


def test_what_a_shortcut_adds_stays_and_what_is_inside_goes() -> None:
    graph = graph_of(TEXT)
    units = ChannelUnits.of(graph)
    assert {group.label for group in units.groups} == {"0", "1+4", "2+3", "6"}
    assert [group.label for group in inner_groups(graph, units.channels)] == ["0", "2+3", "6"]


@pytest.mark.parametrize("multiple", [1, 4])
def test_the_ratio_is_reached_by_the_least_sparsity_of_all(multiple: int) -> None:
    graph = graph_of(TEXT)
    units = ChannelUnits.of(graph)
    groups, limits = inner_groups(graph, units.channels), Limits(frozenset({6}), multiple)
    costs = units.costs(flops(graph), {group.label: range(group.size) for group in units.groups})
    steps = [counts_at(groups, limits, sparsity / 1000) for sparsity in range(1001)]
    assert steps[0] == {}
    assert "6" not in steps[-1]
    for ratio in (0.05, 0.15, 0.22):
        found = counts_for_ratio(groups, limits, costs, ratio)
        enough = [each for each in steps if 1 - costs.total(each) / costs.whole >= ratio]
        assert found == enough[0]
        slim = units.without({label: range(count) for label, count in found.items()}).slim_graph()
        assert 1 - slim.bflops / graph.bflops >= ratio
    with pytest.raises(InputError, match="of the cost can go"):
        counts_for_ratio(groups, limits, costs, 0.99)
