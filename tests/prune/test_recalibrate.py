"""Batch norm measured anew is batch norm in training over all pictures at once, for what stays."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.helpers import graph_of, random_model, worst
from tests.prune.graphs import random_cfg
from tests.prune.test_compensate import pictures
from yoloprune.choices import RECALIBRATE
from yoloprune.darknet.network import build
from yoloprune.prune.channels import trace
from yoloprune.prune.cutter import Cutter
from yoloprune.prune.slim import mask

CONV = "[convolutional]\nbatch_normalize=1\nactivation=leaky\npad=1\nfilters="
TEXT = (
    "[net]\nwidth=17\nheight=13\nchannels=3\n"
    f"{CONV}8\nsize=3\n{CONV}8\nsize=3\ngroups=8\n{CONV}12\nsize=3\nstride=2\n{CONV}12\n[shortcut]\nfrom=-2\n"
    "activation=linear\n[convolutional]\nfilters=14\nactivation=linear\n"
    "[yolo]\nmask=0,1\nnum=2\nanchors=3,4,6,8\nclasses=2\n"
)


def test_statistics_are_those_of_all_pictures() -> None:
    model = random_model(graph_of(TEXT), 1)
    channels = trace(model.graph)
    keep = channels.all_kept()
    keep[channels.groups[0].atoms[[1, 4, 6]]] = False
    batches = pictures(model, 12, 2)
    cut = Cutter(model, channels, channels.all_kept(), lambda: batches, RECALIBRATE).together(keep)
    for layer in (0, 1):  # what stays there is as it was
        left = channels.kept_outputs(layer, keep)
        for name, array in cut.weights.layers[layer].items():
            assert np.array_equal(array[left], model.weights.layers[layer][name][left])
    network = build(cut)
    for module in list(network.layers)[2:]:
        module.train()
    x = torch.cat(batches)
    with torch.no_grad():
        entering = build(cut)(x, [5])[5].numpy(), network(x, [5])[5].numpy()
    assert worst(*entering) < 1e-4  # float32 sums of a batch against float64 over all
    assert worst(entering[0], build(mask(model, channels, keep))(x, [5])[5].detach().numpy()) > 0.01


OTHERS = (
    f"[net]\nwidth=17\nheight=13\nchannels=3\n{CONV}8\nsize=3\n{CONV}8\n[shortcut]\nfrom=-2\nactivation=linear\n"
    f"weights_type=per_feature\nweights_normalization=softmax\n{CONV}8\n[shortcut]\nfrom=-2\nactivation=linear\n"
    f"weights_type=per_channel\nweights_normalization=relu\n{CONV}6\n[local]\nfilters=5\nsize=3\npad=1\n"
    f"activation=leaky\n{CONV}4\n[lstm]\noutput=6\n"
)
"""Arrays whose first axis is another than the filters."""


@pytest.mark.parametrize(("text", "seed"), [(OTHERS, 0), *((random_cfg(seed), seed) for seed in range(4))])
def test_only_statistics_change(text: str, seed: int) -> None:
    model = random_model(graph_of(text), seed)
    channels = trace(model.graph)
    keep = channels.all_kept()
    for group in channels.groups:
        keep[group.atoms[: len(group.atoms) // 2]] = False
    batches = pictures(model, 8, seed)
    made = Cutter(model, channels, channels.all_kept(), lambda: batches, RECALIBRATE)
    cut, masked = made.together(keep), mask(model, channels, keep)
    for layer, arrays in enumerate(masked.weights.layers):
        gone = ~channels.kept_outputs(layer, keep)
        for name, array in arrays.items():
            if name in ("mean", "variance"):
                assert np.array_equal(cut.weights.layers[layer][name][gone], array[gone])
            else:
                assert np.array_equal(cut.weights.layers[layer][name], array)
