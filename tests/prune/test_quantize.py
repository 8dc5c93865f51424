"""Whole networks on grids: values, what stays, and what calibration images are worth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.drawn import bench
from tests.helpers import graph_of, random_model
from tests.prune.test_sparsify import all_of, head_error, images, left_of
from yoloprune.darknet.dialect import ALEXEYAB
from yoloprune.darknet.layers.affine import Affine
from yoloprune.darknet.model import Model, load
from yoloprune.darknet.network import build
from yoloprune.prune import quantize as quantizing
from yoloprune.prune.grids import GRIDS
from yoloprune.prune.patterns import Single
from yoloprune.prune.quantize import Quantization, quantizable_layers, quantize
from yoloprune.prune.sparsify import Sparsification, sparsify


@pytest.fixture
def model(one_thread: None, tmp_path: Path) -> Model:
    made = bench(tmp_path / "set")
    return load(made.cfg, made.weights, ALEXEYAB)


@pytest.mark.parametrize("kind", GRIDS)
@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("bits", [2, 5, 8])
def test_weights_are_exactly_values_of_their_grids(model: Model, bits: int, batched: bool, kind: str) -> None:
    done, grids = quantize(model, Quantization(bits, kind), images(model, 0) if batched else [])
    assert list(grids) == [0, 1, 2, 4, 6]  # the second is depthwise
    for index, (old, new) in enumerate(zip(model.weights.layers, done.weights.layers, strict=True)):
        if index not in grids:
            assert new is old
            continue
        codes = grids[index].nearest(new["weight"])
        assert grids[index].bits == bits
        assert grids[index].values(codes).tobytes() == new["weight"].tobytes()
        assert all(array.dtype == np.float32 for array in new.values())
        moved = {"mean"} if "mean" in old else {"bias"}
        kept = set(old) - {"weight"} - (moved if batched else set())
        assert all(np.array_equal(old[name], new[name]) for name in kept)


@pytest.mark.parametrize(("bits", "most"), [(8, 2e-4), (6, 4e-3), (4, 0.08)])
@pytest.mark.parametrize("kind", GRIDS)
def test_the_fewer_bits_the_more_is_lost_and_feedback_loses_less(
    model: Model, kind: str, bits: int, most: float
) -> None:
    """A uniform grid of b bits has an error of about 4^-b / 3 of a layer's largest weight squared."""
    batches, unseen = images(model, 0), images(model, 1)
    fed, _ = quantize(model, Quantization(bits, kind), batches)
    plain, _ = quantize(model, Quantization(bits, kind, feedback=False), batches)
    again, _ = quantize(model, Quantization(bits, kind))
    assert all(np.array_equal(plain.weights.layers[i]["weight"], again.weights.layers[i]["weight"]) for i in (0, 1, 2))
    assert head_error(model, fed, unseen) < most
    if bits < 8:  # the small layers have hardly more weights than an 8-bit codebook has entries
        assert head_error(model, fed, unseen) < 0.7 * head_error(model, plain, unseen)


@pytest.mark.parametrize("kind", GRIDS)
@pytest.mark.parametrize("batched", [True, False])
def test_zeros_stay(model: Model, batched: bool, kind: str) -> None:
    batches = images(model, 0) if batched else []
    sparse, kept = sparsify(model, left_of(model, Single(), 0.4), all_of(model), Sparsification(Single()), batches)
    done, _ = quantize(sparse, Quantization(4, kind), batches)
    for index, there in kept.items():
        assert not done.weights.layers[index]["weight"][~there].any()
        assert done.weights.layers[index]["weight"].any()


def test_nearest_is_within_half_a_step(model: Model) -> None:
    """Uniform and without images: but for weights over the largest value, which take that."""
    done, grids = quantize(model, Quantization(5))
    for index, grid in grids.items():
        old, new = (each.weights.layers[index]["weight"] for each in (model, done))
        assert grid.scales is not None
        steps = grid.scales.reshape(-1, *[1] * (old.ndim - 1))
        clipped = np.clip(old, -15 * steps, 15 * steps)
        assert (np.abs(clipped - new) <= steps * (0.5 + 1e-5)).all()


def test_bits_by_layer(model: Model) -> None:
    done, grids = quantize(model, Quantization({2: 3, 6: 8}), images(model, 0))
    assert {index: grid.bits for index, grid in grids.items()} == {2: 3, 6: 8}
    assert len(np.unique(grids[2].nearest(done.weights.layers[2]["weight"]))) <= 7
    for index in (0, 1, 4):
        assert done.weights.layers[index] is model.weights.layers[index]


def test_the_constant_keeps_each_output_s_mean(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the first layer, whose input is the same, when every place counts."""
    monkeypatch.setattr(quantizing, "PER_COLUMN", 1 << 20)
    batches = images(model, 0)
    done, _ = quantize(model, Quantization({0: 3}), batches)
    assert not np.array_equal(done.weights.layers[0]["mean"], model.weights.layers[0]["mean"])
    means = []
    for each in (model, done):
        module = build(each).layers[0]
        assert isinstance(module, Affine)
        with torch.inference_mode():
            raw = module.linear(batches[0], module.weight, None) - module.mean.view(-1, 1, 1)
        means.append(raw.mean((0, 2, 3)).numpy())
    np.testing.assert_allclose(means[1], means[0], atol=2e-4)


def test_layers_whose_moments_are_too_large_take_nearest(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, _ = quantize(model, Quantization(4))
    monkeypatch.setattr(quantizing, "LARGEST", 0)
    large, _ = quantize(model, Quantization(4), images(model, 0))
    for old, new in zip(plain.weights.layers, large.weights.layers, strict=True):
        assert all(np.array_equal(old[name], new[name]) for name in old)


def test_layers_that_share_arrays_are_rounded_once() -> None:
    convolution = "[convolutional]\nfilters=3\nsize=3\npad=1\nactivation=leaky\n"
    text = "[net]\nwidth=9\nheight=7\nchannels=3\n" + convolution * 2 + convolution + "share_index=0\n"
    shared = random_model(graph_of(text), 0)
    batches = [torch.rand(3, 3, 7, 9, generator=torch.Generator().manual_seed(0))]
    assert list(quantizable_layers(shared.graph)) == [0, 1]
    done, grids = quantize(shared, Quantization(4), batches)
    plain, _ = quantize(shared, Quantization(4))
    assert list(grids) == [0, 1]
    assert all(
        np.array_equal(plain.weights.layers[0][name], done.weights.layers[0][name]) for name in ("weight", "bias")
    )
    assert not np.array_equal(plain.weights.layers[1]["bias"], done.weights.layers[1]["bias"])


def test_activations_that_overflow_tell_nothing(model: Model) -> None:
    batches = [torch.full_like(images(model, 0)[0], 3e38)]
    done, _ = quantize(model, Quantization(4), batches)
    plain, _ = quantize(model, Quantization(4))
    assert np.array_equal(done.weights.layers[4]["weight"], plain.weights.layers[4]["weight"])


def test_inputs_that_are_all_zero(model: Model) -> None:
    batches = [torch.zeros_like(images(model, 0)[0])]
    done, grids = quantize(model, Quantization(4), batches)
    for index, grid in grids.items():
        weight = done.weights.layers[index]["weight"]
        assert np.isfinite(weight).all()
        assert np.array_equal(grid.values(grid.nearest(weight)), weight)
