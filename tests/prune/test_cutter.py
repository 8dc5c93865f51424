"""All cuts of a network from one place."""

from __future__ import annotations

import torch

from tests.helpers import graph_of, random_model
from tests.prune.test_compensate import CONSUMERS, net, pictures
from yoloprune.darknet.model import Model
from yoloprune.darknet.network import build
from yoloprune.prune.channels import trace
from yoloprune.prune.cutter import NOTHING, Cutter
from yoloprune.prune.slim import mask


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
