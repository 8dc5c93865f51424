"""All cuts of a network from one place."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.helpers import graph_of, random_model
from tests.prune.graphs import random_cfg
from tests.prune.test_compensate import CONSUMERS, net, pictures
from yoloprune.darknet.model import Model
from yoloprune.darknet.network import build
from yoloprune.prune.channels import trace
from yoloprune.prune.cutter import NOTHING, RECALIBRATE, Cutter
from yoloprune.prune.slim import mask


@pytest.mark.parametrize("seed", range(3))
def test_channels_chosen_anew_are_as_many(seed: int) -> None:
    model = random_model(graph_of(random_cfg(seed)), seed)
    channels = trace(model.graph)
    rng = np.random.default_rng(seed)
    there, keep = channels.all_kept(), channels.all_kept()
    for group in channels.groups:
        dropped = rng.permutation(group.atoms)[: rng.integers(0, len(group.atoms))]
        keep[dropped] = False
        there[dropped[: len(dropped) // 3]] = False
    batches = pictures(model, 8, seed)
    cutter = Cutter(mask(model, channels, there), channels, there, lambda: batches)
    found = cutter.rechosen(keep, "elimination")
    assert not found[~there].any()
    for group in channels.groups:
        assert found[group.atoms].sum() == keep[group.atoms].sum()
    assert np.array_equal(cutter.rechosen(keep, "l1"), keep)
    for compensation in (NOTHING, RECALIBRATE):
        plain = Cutter(model, channels, there, lambda: batches, compensation)
        assert np.array_equal(plain.rechosen(keep, "elimination"), keep)


def test_the_last_channel_that_holds_something_stays() -> None:
    """Channels 0..3 come in two copies. Alone, each may go; that both copies may not, only shows once one has gone."""
    model = random_model(graph_of(net(CONSUMERS["1x1"]).replace("linear", "leaky", 1)), 1)
    first = {name: array.copy() for name, array in model.weights.layers[0].items()}
    for array in first.values():
        array[4:] = array[:4]
    model = model.with_weights(type(model.weights)(model.weights.header, (first, *model.weights.layers[1:])))
    channels = trace(model.graph)
    keep = channels.all_kept()
    keep[channels.groups[0].atoms[[0, 4, 1, 5]]] = False
    batches = pictures(model, 8, 2)
    cutter = Cutter(model, channels, channels.all_kept(), lambda: batches)
    left = np.flatnonzero(cutter.rechosen(keep, "elimination")[channels.groups[0].atoms])
    assert sorted(left % 4) == [0, 1, 2, 3]


def test_pictures_may_serve_the_criterion_alone() -> None:
    model = random_model(graph_of(net(CONSUMERS["3x3 padded"])), 3)
    channels = trace(model.graph)
    keep = channels.all_kept()
    keep[channels.groups[0].atoms[:3]] = False
    batches = pictures(model, 8, 4)
    cutter = Cutter(model, channels, channels.all_kept(), lambda: batches, NOTHING)
    x = batches[0]
    expected = outputs(mask(model, channels, keep), x)
    for cut in (cutter.alone(keep), cutter.together(keep)):
        assert torch.equal(outputs(cut, x), expected)
    assert sorted(cutter.order("elimination", channels.groups[0])) == list(range(8))


def outputs(model: Model, x: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return build(model)(x, [2])[2]
