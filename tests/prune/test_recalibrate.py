"""Batch norm measured anew is batch norm in training over all pictures at once, for what stays."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.helpers import graph_of, random_model, worst
from tests.prune.graphs import random_cfg
from tests.prune.kept import together
from tests.prune.test_compensate import pictures
from yoloprune.choices import RECALIBRATE, REFIT
from yoloprune.darknet.dialect import ALEXEYAB, PJREDDIE, Dialect
from yoloprune.darknet.model import Model
from yoloprune.darknet.network import build
from yoloprune.darknet.weights import Weights
from yoloprune.prune import recalibrate as recalibrate_file
from yoloprune.prune.channel_units import ChannelUnits
from yoloprune.prune.channels import Channels, KeepMask, trace
from yoloprune.prune.compensate import compensate
from yoloprune.prune.pruner import Pruner
from yoloprune.prune.recalibrate import LEAST_VARIANCE, restate
from yoloprune.prune.slim import mask

CONV = "[convolutional]\nbatch_normalize=1\nactivation=leaky\npad=1\nfilters="
TEXT = (
    "[net]\nwidth=17\nheight=13\nchannels=3\n"
    f"{CONV}8\nsize=3\n{CONV}8\nsize=3\ngroups=8\n{CONV}12\nsize=3\nstride=2\n{CONV}12\n[shortcut]\nfrom=-2\n"
    "activation=linear\n[convolutional]\nfilters=14\nactivation=linear\n"
    "[yolo]\nmask=0,1\nnum=2\nanchors=3,4,6,8\nclasses=2\n"
)


def first_group_cut(compensation: str, seed: int) -> tuple[Model, Model, Channels, KeepMask, list[torch.Tensor]]:
    """As `shrunken`, but only of the first group, by a pruner; what stays of its layers is as it was."""
    model = random_model(graph_of(TEXT), seed)
    channels = trace(model.graph)
    keep = channels.all_kept()
    keep[channels.groups[0].units[[1, 4, 6]]] = False
    batches = pictures(model, 12, seed + 1)
    cut = together(Pruner(model, ChannelUnits.of(model.graph), lambda: batches, compensation), keep)
    for layer in (0, 1):
        left = channels.kept_outputs(layer, keep)
        for name, array in cut.weights.layers[layer].items():
            assert np.array_equal(array[left], model.weights.layers[layer][name][left])
    return model, cut, channels, keep, batches


def test_statistics_are_those_of_all_pictures() -> None:
    model, cut, channels, keep, batches = first_group_cut(RECALIBRATE, 1)
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
        keep[group.units[: len(group.units) // 2]] = False
    batches = pictures(model, 8, seed)
    made = Pruner(model, ChannelUnits.of(model.graph), lambda: batches, RECALIBRATE)
    cut, masked = together(made, keep), mask(model, channels, keep)
    for layer, arrays in enumerate(masked.weights.layers):
        gone = ~channels.kept_outputs(layer, keep)
        for name, array in arrays.items():
            if name in ("mean", "variance"):
                assert np.array_equal(cut.weights.layers[layer][name][gone], array[gone])
            else:
                assert np.array_equal(cut.weights.layers[layer][name], array)


def shrunken(text: str, seed: int) -> tuple[Model, Model, Channels, KeepMask, list[torch.Tensor]]:
    """A model, its refitted cut to a third, what is left, pictures."""
    model = random_model(graph_of(text), seed)
    channels = trace(model.graph)
    keep = channels.all_kept()
    for group in channels.groups:
        keep[group.units[: 2 * len(group.units) // 3]] = False
    batches = pictures(model, 12, seed)
    return model, compensate(model, channels, keep, batches), channels, keep, batches


@pytest.mark.parametrize(
    ("text", "dialect", "seed"),
    [(TEXT, PJREDDIE, 0), (TEXT, ALEXEYAB, 0), *((random_cfg(seed), ALEXEYAB, seed) for seed in range(4))],
)
def test_a_restated_network_computes_the_same(text: str, dialect: Dialect, seed: int) -> None:
    model, cut, channels, keep, batches = shrunken(text, seed)
    model, cut = (Model(graph_of(text, dialect), each.weights) for each in (model, cut))
    again = restate(model, cut, channels, keep, batches)
    want = model.graph.head_inputs
    x = pictures(model, 4, seed + 100)[0].double()
    with torch.inference_mode():
        a, b = (build(each).double()(x, want) for each in (again, cut))
    assert max(worst(a[index].numpy(), b[index].numpy()) for index in want) < 1e-5  # arrays are float32
    masked = mask(again, channels, keep)
    for before, after in zip(again.weights.layers, masked.weights.layers, strict=True):
        assert all(np.array_equal(before[name], after[name]) for name in before)


def test_training_starts_from_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batch statistics of all pictures at once change nothing in a restated network, and much in one that is not."""
    monkeypatch.setattr(recalibrate_file, "LEAST_VARIANCE", 0.0)
    model, cut, channels, keep, batches = shrunken(TEXT, 1)
    again = restate(model, cut, channels, keep, batches)
    x = torch.cat(batches)
    changes = []
    for each in (again, cut):
        network = build(each)
        with torch.no_grad():
            measured = network(x, [5])[5].numpy()
            for module in list(network.layers)[2:5]:  # what changed
                module.train()
            changes.append(worst(network(x, [5])[5].numpy(), measured))
    assert changes[0] < 1e-3 < 0.1 < changes[1]


def test_restated_variances_keep_what_readers_add_to_them_small() -> None:
    model, cut, channels, keep, batches = shrunken(TEXT, 2)
    layers = [dict(arrays) for arrays in cut.weights.layers]
    layers[2]["weight"] = layers[2]["weight"] * np.float32(1e-4)  # next to constant now
    layers[3]["weight"] = layers[3]["weight"] * np.float32(1e-4)
    layers[3]["variance"] = np.full_like(layers[3]["variance"], 1e-3)
    cut = cut.with_weights(Weights(cut.weights.header, tuple(layers)))
    again = restate(model, cut, channels, keep, batches)
    for layer, least in ((2, LEAST_VARIANCE), (3, np.float32(1e-3))):
        kept = channels.kept_outputs(layer, keep)
        assert (again.weights.layers[layer]["variance"][kept] == np.float32(least)).all()


def test_what_a_cut_does_not_reach_keeps_its_values() -> None:
    model, cut, *_ = first_group_cut(REFIT, 3)
    assert not np.array_equal(cut.weights.layers[2]["variance"], model.weights.layers[2]["variance"])
