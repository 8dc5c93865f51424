"""ThiNet's sample, choice and factors against NumPy on the outputs themselves."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch

from tests.helpers import graph_of, random_model, worst
from tests.prune.kept import alone, together
from tests.prune.test_compensate import CONSUMERS, net, pictures
from yoloprune.choices import SCALE
from yoloprune.darknet.model import Model
from yoloprune.darknet.network import build
from yoloprune.prune.channel_units import ChannelUnits
from yoloprune.prune.criteria import CRITERIA, CalibrationStatistics
from yoloprune.prune.moments import Consumer, collect, consumers
from yoloprune.prune.pruner import Pruner
from yoloprune.prune.scale import scaled
from yoloprune.prune.thinet import Contributions, sampled

GONE = [1, 4, 6]
"""Positions that go in the group of layer 0, of 8 channels; in CONSUMERS["grouped"] both halves of a unit."""


def added(model: Model, batches: list[torch.Tensor], layer: int = 1) -> np.ndarray:
    """What each channel that a conv group reads adds to each output [groups, C, outputs], by explicit products."""
    network = build(model)
    module = network.layers[layer]
    weight = model.weights.layers[layer]["weight"].astype(np.float64)
    groups = model.graph.layers[layer].groups_summed
    with torch.inference_mode():
        seen = [module.columns(network(batch, [0])[0]).double().numpy() for batch in batches]
    columns = np.concatenate(seen, 2)
    by_channel = weight.reshape(groups, len(weight) // groups, -1, int(np.prod(weight.shape[2:])))
    if weight.ndim == 2:  # connected: a channel has as many weights as places
        by_channel = weight.reshape(1, len(weight), 8, -1)
    parts = columns.reshape(groups, by_channel.shape[2], by_channel.shape[3], -1)
    return np.einsum("gocp,gcpm->gcom", by_channel, parts).reshape(groups, by_channel.shape[2], -1)


def consumer_of(model: Model) -> Consumer:
    units = ChannelUnits.of(model.graph)
    return consumers(model.graph, units.channels)[1]


@pytest.mark.parametrize("name", CONSUMERS)
def test_factors_are_the_least_squares_of_the_outputs(name: str) -> None:
    model = random_model(graph_of(net(CONSUMERS[name])), 1)
    batches = [batch[:1] for batch in pictures(model, 8, 2)]  # so few that moments are of all places
    consumer = consumer_of(model)
    moments = collect(build(model), batches, [consumer], 2)[1]
    found = Contributions.of_moments(model, consumer, moments)
    keep = np.ones(ChannelUnits.of(model.graph).channels.units, np.bool_)
    group = ChannelUnits.of(model.graph).groups[0]
    keep[group.units[[gone for gone in GONE if gone < group.size]]] = False
    factors = found.factors(keep[found.units]).numpy()
    for x, kept, each in zip(added(model, batches), keep[found.units], factors, strict=True):
        expected = np.linalg.lstsq(x[kept].T, x.sum(0), rcond=None)[0]
        assert worst(each[kept], expected) < 1e-4
        assert not each[~kept].any()


def test_with_targets_the_factors_bring_those_back() -> None:
    """Inputs are half of what they were: the factors are those for whole ones times two."""
    model = random_model(graph_of(net(CONSUMERS["3x3 padded"])), 3)
    batches, consumer = pictures(model, 8, 4), consumer_of(model)
    moments = collect(build(model), batches, [consumer], 8)[1]
    weight = torch.from_numpy(model.weights.layers[1]["weight"].reshape(1, 6, -1).astype(np.float64))
    half = moments.grams / 4
    half[..., -1, :] *= 2
    half[..., :, -1] *= 2
    targets = (moments.grams / 2)[..., :-1] @ weight.mT
    changed = type(moments)(half, targets)
    keep = np.ones(ChannelUnits.of(model.graph).channels.units, np.bool_)
    keep[ChannelUnits.of(model.graph).groups[0].units[GONE]] = False
    plain, twice = (scaled(model, consumer, each, keep) for each in (moments, changed))
    assert worst(twice.weight.numpy(), 2 * plain.weight.numpy()) < 1e-8
    assert not twice.constant.any()


def alike(model: Model, filters: int) -> Model:
    """All filters of layer 1 the same: whichever is drawn, the outputs are those of the first."""
    arrays = dict(model.weights.layers[1])
    arrays["weight"] = np.repeat(arrays["weight"][:1], filters, 0)
    return model.with_arrays({1: arrays})


@pytest.mark.parametrize("size", [1, 3])
def test_a_sample_of_all_outputs_is_all_there_is(size: int) -> None:
    model = random_model(graph_of(net(CONSUMERS["1x1" if size == 1 else "3x3 padded"])), 5)
    batches = pictures(model, 8, 6)
    found = sampled(build(model), batches, [consumer_of(model)], places=10**6, seed=1)[1]
    x = added(model, batches)[0]
    assert worst(found.gram[0].numpy(), x @ x.T) < 1e-5
    assert worst(found.wanted[0].numpy(), x @ x.sum(0)) < 1e-5


def test_a_connected_layer_gives_several_filters_of_its_one_place() -> None:
    """All 9 filters alike: 4 outputs of each image are 4 times the first."""
    model = alike(random_model(graph_of(net(CONSUMERS["connected"])), 5), 9)
    batches = pictures(model, 8, 6)
    found = sampled(build(model), batches, [consumer_of(model)], places=4, seed=1)[1]
    x = added(model, batches)[0].reshape(8, 9, -1)[:, 0]
    assert worst(found.gram[0].numpy(), 4 * x @ x.T) < 1e-5


def test_so_many_places_of_each_image_are_drawn_and_filters_evenly() -> None:
    """Each channel adds 1 to an output of filter 0 and 2 to one of filter 1: sums count the samples of each."""
    first = "[convolutional]\nfilters=8\nsize=1\nactivation=linear\n"
    text = f"[net]\nwidth=17\nheight=13\nchannels=5\n{first}[convolutional]\nfilters=2\nsize=1\nactivation=linear\n"
    model = random_model(graph_of(text + "[convolutional]\nfilters=7\nsize=1\n[yolo]\nclasses=2\nnum=1\n"), 7)
    ones = {"weight": np.zeros((8, 5, 1, 1), np.float32), "bias": np.ones(8, np.float32)}
    twos = {"weight": np.repeat(np.float32([[[[1]]], [[[2]]]]), 8, 1), "bias": model.weights.layers[1]["bias"]}
    model = model.with_arrays({0: ones, 1: twos})
    batches = pictures(model, 40, 8)
    totals = []
    for seed in (1, 1, 2):
        gram = sampled(build(model), batches, [consumer_of(model)], places=10, seed=seed)[1].gram[0].numpy()
        assert np.ptp(gram) == 0
        second = (gram[0, 0] - 400) / 3  # of 400 samples n1 + n2, the sum is n1 + 4 n2
        assert second == int(second)
        assert 140 < second < 260  # six standard deviations
        totals.append(second)
    assert totals[0] == totals[1] != totals[2]


def test_the_sampled_choice_is_the_best_of_all_that_grow_by_one() -> None:
    model = random_model(graph_of(net(CONSUMERS["3x3 padded"])), 9)
    batches = pictures(model, 8, 10)
    units = ChannelUnits.of(model.graph)
    seen = CalibrationStatistics(model, units.channels, units.keep, batches, places=10**6)
    order = CRITERIA["thinet"](seen, units.channels.groups[0])
    x = added(model, batches)[0]
    for count in range(1, 8):
        before = set(order[: count - 1])
        best = min(
            (each for each in combinations(range(8), count) if before <= set(each)),
            key=lambda each: float((x[list(each)].sum(0) ** 2).sum()),
        )
        assert set(order[:count]) == set(best)


@pytest.mark.parametrize("how", [together, alone])
def test_scaling_changes_nothing_but_factors_of_the_consumer(how: object) -> None:
    model = random_model(graph_of(net(CONSUMERS["3x3 padded"])), 11)
    batches = pictures(model, 8, 12)
    made = Pruner(model, ChannelUnits.of(model.graph), lambda: batches, SCALE)
    assert isinstance(made.units, ChannelUnits)
    keep = made.units.keep.copy()
    keep[made.units.channels.groups[0].units[GONE]] = False
    after = how(made, keep)  # type: ignore[operator]
    x, kept = added(model, batches)[0], ~np.isin(np.arange(8), GONE)
    expected = np.zeros(8)
    expected[kept] = np.linalg.lstsq(x[kept].T, x.sum(0), rcond=None)[0]
    old, new = (each.weights.layers[1] for each in (model, after))
    assert worst(new["weight"], old["weight"] * expected[None, :, None, None]) < 1e-4
    assert all(np.array_equal(old[name], new[name]) for name in old if name != "weight")
    assert all(np.array_equal(array, after.weights.layers[2][name]) for name, array in model.weights.layers[2].items())
