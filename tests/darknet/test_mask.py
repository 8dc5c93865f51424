"""Masks: what they silence, and their file."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers import graph_of, random_model
from tests.prune.graphs import random_cfg
from tests.prune.test_slim import random_keep
from yoloprune.darknet.mask import Mask, dump, parse
from yoloprune.errors import InputError
from yoloprune.prune.channel_units import ChannelUnits
from yoloprune.prune.channels import trace

TEXT = "[net]\nwidth=8\nheight=8\nchannels=3\n[convolutional]\nbatch_normalize=1\nfilters=3\nsize=1\n"


def drawn(seed: int) -> tuple[ChannelUnits, np.random.Generator]:
    """A random graph, and some of its units."""
    graph, rng = graph_of(random_cfg(seed)), np.random.default_rng(seed)
    channels = trace(graph)
    return ChannelUnits(graph, channels, random_keep(channels, rng)), rng


@given(st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_a_mask_comes_back_from_its_bits(seed: int) -> None:
    units, rng = drawn(seed)
    layers = units.graph.layers
    kept = tuple({spec.name: rng.random(spec.shape) < 0.7 for spec in layer.tensors()} for layer in layers)
    again = parse(dump(Mask(kept), layers), layers)
    for before, after in zip(kept, again.layers, strict=True):
        for name, array in before.items():
            assert np.array_equal(after.get(name, np.ones_like(array)), array)
    assert dump(again, layers) == dump(Mask(kept), layers)


@given(st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_units_come_back_from_their_mask(seed: int) -> None:
    """Of graphs of every kind of layer: what a mask says is kept is what was kept."""
    units, _ = drawn(seed)
    bits = dump(units.mask(), units.graph.layers)
    again = ChannelUnits.of(units.graph, mask=parse(bits, units.graph.layers))
    assert np.array_equal(again.keep, units.keep)


def test_bits_by_hand() -> None:
    """Three biases, scales, means, variances and three by three weights, the first value in the highest bit."""
    graph = graph_of(TEXT)
    names = [spec.name for spec in graph.layers[0].tensors()]
    assert names == ["bias", "scale", "mean", "variance", "weight"]
    kept = {"bias": np.array([True, False, True])}
    assert dump(Mask((kept,)), graph.layers) == bytes([0b10111111, 0b11111111, 0b11111000])


def test_what_is_not_kept_is_silent_and_the_rest_the_very_arrays() -> None:
    model = random_model(graph_of(TEXT), 1)
    kept = {"variance": np.array([True, False, True]), "bias": np.array([False, True, True])}
    masked = Mask((kept,)).apply(model).weights.layers[0]
    before = model.weights.layers[0]
    assert masked["variance"].tolist() == [before["variance"][0], 1, before["variance"][2]]
    assert masked["bias"].tolist() == [0, before["bias"][1], before["bias"][2]]
    assert masked["weight"] is before["weight"]
    assert Mask(({},)).apply(model).weights.layers[0] is before


def test_two_masks_keep_what_both_do() -> None:
    one = {"bias": np.array([True, False, True])}
    other = {"bias": np.array([True, True, False]), "mean": np.array([False, True, True])}
    (both,) = (Mask((one,)) & Mask((other,))).layers
    assert both["bias"].tolist() == [True, False, False]
    assert both["mean"].tolist() == [False, True, True]


@pytest.mark.parametrize("length", [0, 2, 4])
def test_another_length_is_refused(length: int) -> None:
    with pytest.raises(InputError, match=f"expected 3 bytes for 21 values, found {length}"):
        parse(bytes(length), graph_of(TEXT).layers, "mask.bits")
