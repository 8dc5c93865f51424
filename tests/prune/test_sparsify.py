"""Zeros in whole networks, and how a share of weights is divided among layers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.drawn import Bench, bench
from yoloprune.darknet import weights as weights_file
from yoloprune.darknet.dialect import ALEXEYAB
from yoloprune.darknet.model import Model, load
from yoloprune.darknet.network import build
from yoloprune.prune import sparsify as sparsifying
from yoloprune.prune.patterns import NofM, Pattern, Single
from yoloprune.prune.sparsify import ALLOCATIONS, sparse_layers, sparsify, weights_of
from yoloprune.readers import READERS


@pytest.fixture
def made(one_thread: None, tmp_path: Path) -> Bench:
    return bench(tmp_path / "set")


@pytest.fixture
def model(made: Bench) -> Model:
    return load(made.cfg, made.weights, ALEXEYAB)


def images(model: Model, seed: int) -> list[torch.Tensor]:
    """Smooth ones: neighbours are alike, as in pictures."""
    net = model.graph.net.input
    coarse = torch.rand(6, net.c, 5, 4, generator=torch.Generator().manual_seed(seed))
    return [torch.nn.functional.interpolate(coarse, (net.h, net.w), mode="bilinear")]


def head_error(model: Model, other: Model, batches: list[torch.Tensor]) -> float:
    """Squared change of the head inputs over their variance."""
    at = model.graph.head_inputs
    with torch.inference_mode():
        a, b = (build(each)(batches[0], at) for each in (model, other))
    return sum(float((a[index] - b[index]).square().mean() / a[index].var()) for index in at)


@pytest.mark.parametrize("pattern", [Single(), NofM(2, 4)])
def test_as_many_stay_as_asked_for_and_images_choose_better(model: Model, pattern: Pattern) -> None:
    kept = ALLOCATIONS["uniform"](weights_of(model), 0.5)
    sparse, plain = sparsify(model, kept, pattern, images(model, 0)), sparsify(model, kept, pattern)
    for index, (old, new) in enumerate(zip(model.weights.layers, sparse.weights.layers, strict=True)):
        if index not in kept:
            assert new is old
            continue
        there = np.count_nonzero(new["weight"])
        if isinstance(pattern, Single):
            assert there == kept[index]
        else:
            rows = new["weight"].reshape(len(new["weight"]), -1)
            parts = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 4))).reshape(len(rows), -1, 4)
            assert (np.count_nonzero(parts, axis=2) <= 2).all()
        assert all(np.array_equal(old[name], new[name]) for name in set(old) - {"weight", "mean", "bias"})
    unseen = images(model, 1)
    assert head_error(model, sparse, unseen) < 0.8 * head_error(model, plain, unseen)


def test_the_largest_stay_as_they_are_without_images_or_memory(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = ALLOCATIONS["uniform"](weights_of(model), 0.3)
    plain = sparsify(model, kept, Single())
    for index, array in weights_of(model).items():
        there = plain.weights.layers[index]["weight"]
        assert np.array_equal(there[there != 0], array[there != 0])
        assert np.abs(array[there == 0]).max() <= np.abs(there[there != 0]).min()
    monkeypatch.setattr(sparsifying, "LARGEST", 0)
    large = sparsify(model, kept, Single(), images(model, 0))
    assert all(np.array_equal(plain.weights.layers[i]["weight"], large.weights.layers[i]["weight"]) for i in kept)


def test_nothing_goes_where_all_may_stay(model: Model) -> None:
    whole = {index: array.size for index, array in weights_of(model).items()}
    again = sparsify(model, whole, Single(), images(model, 0))
    assert head_error(model, again, images(model, 1)) < 1e-6  # solved in float64, written in float32


def test_stock_darknet_computes_the_same_of_the_zeros(made: Bench, model: Model, tmp_path: Path) -> None:
    reader = READERS["darknet"]
    if reason := reader.available():
        pytest.skip(reason)
    sparse = sparsify(model, ALLOCATIONS["lamp"](weights_of(model), 0.4), Single(), images(model, 0))
    file = tmp_path / "sparse.weights"
    weights_file.write(file, sparse.weights, model.graph.layers)
    (x,) = images(model, 2)
    theirs = reader.head_inputs(made.cfg, file, x[:1].numpy(), model.graph.outputs)
    with torch.inference_mode():
        ours = build(sparse)(x[:1], model.graph.head_inputs)
    assert len(theirs) == len(ours) > 0
    for head, source in zip(model.graph.outputs, model.graph.head_inputs, strict=True):
        np.testing.assert_allclose(theirs[head].ravel(), ours[source].numpy().ravel(), rtol=1e-4, atol=1e-5)


def test_only_layers_that_sum_over_channels(model: Model) -> None:
    for index, consumer in sparse_layers(model.graph).items():
        layer = model.graph.layers[index]
        assert layer.sums_channels
        assert consumer.columns * len(model.weights.layers[index]["weight"]) == weights_of(model)[index].size


def test_shares_divided_by_hand() -> None:
    weights = {0: np.array([[1.0, -3.0]]), 2: np.array([[4.0, 2.0, 0.5, -0.1]])}
    assert ALLOCATIONS["uniform"](weights, 0.5) == {0: 1, 2: 2}
    assert ALLOCATIONS["global"](weights, 0.5) == {0: 1, 2: 2}  # 4, 3, 2
    # Squares over sums: 0.1, 1 and 0.0005, 0.0152, 0.2, 1.
    assert ALLOCATIONS["lamp"](weights, 0.5) == {0: 1, 2: 2}
    assert ALLOCATIONS["lamp"](weights, 4 / 6) == {0: 2, 2: 2}
    # In proportion to (1+2)/2 and (1+4)/4: 1.5 s * 2 + 1.25 s * 4 = 3, so s = 0.375.
    assert ALLOCATIONS["erk"](weights, 0.5) == {0: 1, 2: 2}
    assert ALLOCATIONS["erk"](weights, 0.95) == {0: 2, 2: 4}  # 1.1 of the first is all of it, the rest goes on


@pytest.mark.parametrize("name", ALLOCATIONS)
@pytest.mark.parametrize("share", [0.05, 0.5, 0.9, 1.0])
def test_shares_add_up(name: str, share: float) -> None:
    generator = np.random.default_rng(5)
    weights = {index: generator.normal(size=(8, size, 3, 3)) * 0.1**index for index, size in enumerate((3, 16, 40))}
    kept = ALLOCATIONS[name](weights, share)
    whole = sum(array.size for array in weights.values())
    assert abs(sum(kept.values()) - share * whole) <= len(weights) / 2
    assert all(0 <= kept[index] <= array.size for index, array in weights.items())
