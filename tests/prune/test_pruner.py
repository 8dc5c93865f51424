"""All cuts of a network from one place."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.helpers import graph_of, random_model, worst
from tests.prune.graphs import random_cfg
from tests.prune.kept import alone, together
from tests.prune.test_compensate import CONSUMERS, net, pictures
from yoloprune.choices import NOTHING
from yoloprune.darknet.model import Model
from yoloprune.darknet.network import build
from yoloprune.prune.channel_units import ChannelUnits
from yoloprune.prune.channels import trace
from yoloprune.prune.pruner import Pruner
from yoloprune.prune.slim import mask


def test_pictures_may_serve_the_criterion_alone() -> None:
    model = random_model(graph_of(net(CONSUMERS["3x3 padded"])), 3)
    channels = trace(model.graph)
    keep = channels.all_kept()
    keep[channels.groups[0].units[:3]] = False
    batches = pictures(model, 8, 4)
    pruner = Pruner(model, ChannelUnits.of(model.graph), lambda: batches, NOTHING)
    x = batches[0]
    expected = outputs(mask(model, channels, keep), x)
    for cut in (alone(pruner, keep), together(pruner, keep)):
        assert torch.equal(outputs(cut, x), expected)
    assert sorted(pruner.order("elimination", channels.groups[0])) == list(range(8))


@pytest.mark.parametrize("seed", range(12))
def test_what_does_not_depend_on_the_readers_stays_the_same(seed: int) -> None:
    """In kept channels, in networks of every kind of layer; and something behind the readers changes."""
    model = random_model(graph_of(random_cfg(seed)), seed)
    layers = model.graph.layers
    channels = trace(model.graph)
    pruner = Pruner(model, ChannelUnits.of(model.graph))
    x = torch.from_numpy(np.random.default_rng(seed).random((2, *model.graph.net.input), np.float32)).double()
    every = [layer.index for layer in layers]
    with torch.inference_mode():
        before = build(model).double()(x, every)
        for curve in pruner.first_curves("l1"):
            keep = pruner.units.without({curve.label: curve.order[: curve.size // 2]}).keep
            after = build(pruner.alone(curve, curve.size // 2)).double()(x, every)
            readers, touched = pruner.changed(curve), set[int]()
            for layer in layers:
                if layer.index in readers or touched.intersection(layer.sources):
                    touched.add(layer.index)
                elif (kept := channels.kept_outputs(layer.index, keep)).any():
                    one, other = (each[layer.index][:, kept].numpy() for each in (after, before))
                    assert worst(one, other) < 1e-9, layer
            assert any(not torch.equal(after[index], before[index]) for index in touched)


def outputs(model: Model, x: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return build(model)(x, [2])[2]
