"""Multi-scale sizes by their rules, and one set of weights at several sizes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.helpers import random_model, worst
from tests.train.nets import graph
from yoloprune.darknet.dialect import ALEXEYAB, PJREDDIE
from yoloprune.darknet.layers.base import Shape
from yoloprune.darknet.network import build
from yoloprune.errors import InputError
from yoloprune.train.multi_scale import MultiScale
from yoloprune.train.recipe import Recipe
from yoloprune.train.sizes import Sizes, resized

OWN = Shape(3, 192, 256)
NET = (
    "[net]\nwidth=64\nheight=32\nchannels=3\nresize_step=16\n[convolutional]\nfilters=4\nsize=3\nstride=2\npad=1\n"
    "batch_normalize=1\nactivation=leaky\n[maxpool]\nsize=2\nstride=1\n"
    "[convolutional]\nfilters=6\nactivation=linear\n"
    "[yolo]\nclasses=1\nnum=1\nanchors=8,9\nrandom={random}\n"
)


def test_alexeyabs_sizes() -> None:
    sizes = Sizes.from_graph(graph(NET.replace("{random}", "1")), 1000)
    assert sizes == Sizes(1.4, None, 16, 1000)
    rule = Sizes(1.4, None, 32, 1000)
    found = [rule.at(OWN, iteration, 5) for iteration in range(1, 1001)]
    largest = Shape(3, 288, 384)  # round(1.4 * 192 / 32 + 1) = round(9.4), round(12.2)
    assert rule.largest(OWN) == largest
    assert found[:10] == [largest] * 10
    assert found[-90:] == [largest] * 90
    for block in range(100):
        assert len(set(found[10 * block : 10 * block + 10])) == 1
    for size in set(found):
        assert size.h % 32 == size.w % 32 == 0
        value = [(side / 32 - 1) / (own / 32) for side, own in ((size.h, 192), (size.w, 256))]
        assert size == OWN or value[0] == pytest.approx(value[1], abs=0.17)  # both rounded
        assert 160 <= size.h <= 288
    assert len(set(found)) > 6
    assert found != [rule.at(OWN, iteration, 6) for iteration in range(1, 1001)]


def test_pjreddies_sizes() -> None:
    sizes = Sizes.from_graph(graph(NET.replace("{random}", "1"), PJREDDIE), 1000)
    found = [sizes.at(OWN, iteration, 1) for iteration in range(1, 1001)]
    assert {size.h for size in found} == {size.w for size in found} == set(range(320, 609, 32))
    assert found[-190:] == [Shape(3, 608, 608)] * 190
    assert sizes.largest(OWN) == Shape(3, 608, 608)


@pytest.mark.parametrize(
    "rule",
    [Sizes(1.4, None, 16, 300), Sizes(0.4, None, 16, 300), Sizes(2.5, None, 48, 300), Sizes(0.0, (320, 608), 32, 300)],
)
@pytest.mark.parametrize("settled", [False, True])
@pytest.mark.parametrize("own", [Shape(3, 160, 96), Shape(3, 640, 640), Shape(3, 352, 704)])
def test_none_is_larger_than_the_largest(rule: Sizes, settled: bool, own: Shape) -> None:
    rule = replace(rule, settled=settled)
    sizes = {rule.at(own, iteration, seed) for iteration in range(1, 301, 10) for seed in range(40)}
    largest = rule.largest(own)
    assert max(size.size for size in sizes) <= largest.size
    assert largest == own or max(size.h for size in sizes) > 0.9 * largest.h  # drawn, or nearly


def test_finetuning_begins_and_ends_with_the_networks_own_size() -> None:
    recipe = Recipe.for_finetuning(graph(NET.replace("{random}", "1")), 400)
    own = graph(NET.replace("{random}", "1")).net.input
    found = [recipe.sizes.at(own, iteration, 5) for iteration in range(1, 401)]
    assert set(found[:10]) == set(found[-30:]) == {own}
    assert len(set(found)) > 3
    assert recipe.sizes.largest(own).h > own.h


def test_without_random_there_is_one_size() -> None:
    assert Sizes.from_graph(graph(NET.replace("{random}", "0")), 1000).at(OWN, 77, 1) == OWN
    assert Sizes().largest(OWN) == OWN


def test_other_sizes_run_on_the_same_tensors() -> None:
    own = graph(NET.replace("{random}", "1"))
    model = random_model(own, 3)
    network = build(model)
    scales = MultiScale(network)
    x = torch.rand(2, 3, 48, 80, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        (found,) = scales(x, {3}).values()
        other = resized(own, Shape(3, 48, 80))
        (expected,) = build(random_model(other, 3))(x).values()
    assert worst(found.numpy(), expected.numpy()) == 0
    assert other.detection_heads[0].anchors == ((8 / 80, 9 / 48),)
    like = scales.at_size(48, 80)
    assert like.layers[0].weight is network.layers[0].weight
    assert like.layers[0].mean is network.layers[0].mean
    assert list(dict(scales.named_parameters())) == [f"network.{name}" for name, _ in network.named_parameters()]


def test_a_connected_layer_has_one_size() -> None:
    text = NET.replace("{random}", "1").replace("[maxpool]", "[connected]\noutput=8\n[maxpool]")
    with pytest.raises(InputError, match=r"layer 1 \[connected\]: random=1 changes"):
        resized(graph(text, ALEXEYAB), Shape(3, 48, 80))
    assert np.prod(resized(graph(text), Shape(3, 32, 64)).net.input) == 3 * 32 * 64
