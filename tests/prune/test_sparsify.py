"""Zeros in whole networks, and how a share of weights is divided among layers."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.drawn import Bench, bench
from yoloprune.darknet import weights as weights_file
from yoloprune.darknet.dialect import ALEXEYAB
from yoloprune.darknet.model import Model, load
from yoloprune.darknet.network import build
from yoloprune.prune import sparsify as sparsifying
from yoloprune.prune.moments import Consumer
from yoloprune.prune.patterns import Block, NofM, Pattern, Single
from yoloprune.prune.sparsify import Sparsification, sparse_layers, sparsify
from yoloprune.prune.weight_allocations import WEIGHT_ALLOCATIONS
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


def weights_of(model: Model) -> dict[int, NDArray[np.floating]]:
    """Of the layers whose weights can go."""
    return {index: model.weights.layers[index]["weight"] for index in sparse_layers(model.graph)}


def all_of(model: Model) -> dict[int, NDArray[np.bool_]]:
    """Nothing gone yet."""
    return {index: np.ones(array.shape, np.bool_) for index, array in weights_of(model).items()}


def left_of(model: Model, pattern: Pattern, shares: dict[int, float] | float) -> dict[int, int]:
    """How many of the pattern's units are left in each layer where a share of its weights stays."""
    left = {}
    for index, consumer in sparse_layers(model.graph).items():
        filters = len(weights_of(model)[index]) // consumer.groups
        share = shares if isinstance(shares, float) else shares[index]
        left[index] = round(share * pattern.size(consumer.groups, filters, consumer.columns))
    return left


def units_left(pattern: Pattern, kept: NDArray[np.bool_], consumer: Consumer) -> int:
    """Counted in a layer's array."""
    rows = torch.from_numpy(kept).reshape(consumer.groups, len(kept) // consumer.groups, -1)
    return pattern.of_kernel(math.prod(kept.shape[2:])).left(rows)


@pytest.mark.parametrize("pattern", [Single(), NofM(2, 4), Block(1, 2), Block(4, 1)])
def test_as_many_stay_as_asked_for_and_images_choose_better(model: Model, pattern: Pattern) -> None:
    left, how = left_of(model, pattern, 0.5), Sparsification(pattern)
    sparse, kept = sparsify(model, left, all_of(model), how, images(model, 0))
    plain, _ = sparsify(model, left, all_of(model), how)
    assert kept.keys() == left.keys()
    for index, (old, new) in enumerate(zip(model.weights.layers, sparse.weights.layers, strict=True)):
        if index not in left:
            assert new is old
            continue
        assert kept[index].shape == new["weight"].shape
        assert not new["weight"][~kept[index]].any()
        assert units_left(pattern, new["weight"] != 0, sparse_layers(model.graph)[index]) == left[index]
        if isinstance(pattern, NofM):
            rows = np.moveaxis(new["weight"], 1, -1).reshape(-1, new["weight"].shape[1])
            parts = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 4))).reshape(len(rows), -1, 4)
            assert (np.count_nonzero(parts, axis=2) <= 2).all()
        assert all(np.array_equal(old[name], new[name]) for name in set(old) - {"weight", "mean", "bias"})
    unseen = images(model, 1)
    assert head_error(model, sparse, unseen) < 0.8 * head_error(model, plain, unseen)


def test_the_largest_stay_as_they_are_without_images_or_memory(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    left, how = left_of(model, Single(), 0.3), Sparsification(Single())
    plain, kept = sparsify(model, left, all_of(model), how)
    for index, array in weights_of(model).items():
        there = plain.weights.layers[index]["weight"]
        assert np.array_equal(there[there != 0], array[there != 0])
        assert np.abs(array[there == 0]).max() <= np.abs(there[there != 0]).min()
        assert np.array_equal(kept[index], there != 0)
    monkeypatch.setattr(sparsifying, "LARGEST", 0)
    large, _ = sparsify(model, left, all_of(model), how, images(model, 0))
    assert all(np.array_equal(plain.weights.layers[i]["weight"], large.weights.layers[i]["weight"]) for i in left)


def test_without_a_refit_the_file_s_values_stay(model: Model) -> None:
    left = left_of(model, Single(), 0.4)
    sparse, kept = sparsify(model, left, all_of(model), Sparsification(Single(), refit=False), images(model, 0))
    for index, old in enumerate(model.weights.layers):
        new = sparse.weights.layers[index]
        if index not in left:
            assert new is old
            continue
        assert new["weight"].tobytes() == np.where(kept[index], old["weight"], np.float32(0)).tobytes()
        assert all(old[name].tobytes() == new[name].tobytes() for name in set(old) - {"weight"})


@pytest.mark.parametrize("batched", [True, False])
def test_what_is_gone_stays_gone(model: Model, batched: bool) -> None:
    """A second pruning goes on from the first; layers that it isn't asked for stay as they are."""
    batches = images(model, 0) if batched else []
    how = Sparsification(Single())
    first, kept = sparsify(model, left_of(model, Single(), 0.5), all_of(model), how, batches)
    few = left_of(model, Single(), 0.2)
    untouched = few.popitem()[0]
    second, again = sparsify(first, few, kept, how, batches)
    assert again.keys() == few.keys()
    for index, left in few.items():
        assert not (again[index] & ~kept[index]).any()
        assert np.count_nonzero(again[index]) == left
        assert not second.weights.layers[index]["weight"][~again[index]].any()
    assert second.weights.layers[untouched] is first.weights.layers[untouched]


def test_nothing_goes_where_all_may_stay(model: Model) -> None:
    whole = left_of(model, Single(), 1.0)
    again, kept = sparsify(model, whole, all_of(model), Sparsification(Single()), images(model, 0))
    assert all(each.all() for each in kept.values())
    assert head_error(model, again, images(model, 1)) < 1e-6  # solved in float64, written in float32


def test_stock_darknet_computes_the_same_of_the_zeros(made: Bench, model: Model, tmp_path: Path) -> None:
    reader = READERS["darknet"]
    if reason := reader.available():
        pytest.skip(reason)
    left = left_of(model, Single(), WEIGHT_ALLOCATIONS["lamp"](weights_of(model), 0.4))
    sparse, _ = sparsify(model, left, all_of(model), Sparsification(Single()), images(model, 0))
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
    assert WEIGHT_ALLOCATIONS["uniform"](weights, 0.3) == {0: 0.3, 2: 0.3}
    assert WEIGHT_ALLOCATIONS["global"](weights, 0.5) == {0: 1 / 2, 2: 2 / 4}  # 4, 3, 2
    # Squares over sums: 0.1, 1 and 0.0005, 0.0152, 0.2, 1.
    assert WEIGHT_ALLOCATIONS["lamp"](weights, 0.5) == {0: 1 / 2, 2: 2 / 4}
    assert WEIGHT_ALLOCATIONS["lamp"](weights, 4 / 6) == {0: 2 / 2, 2: 2 / 4}
    # In proportion to (1+2)/2 and (1+4)/4: 1.5 s * 2 + 1.25 s * 4 = 3, so s = 0.375.
    assert WEIGHT_ALLOCATIONS["erk"](weights, 0.5) == pytest.approx({0: 0.5625, 2: 0.46875})
    # 1.1 of the first is all of it, the rest goes on: 0.95 * 6 - 2 of 4.
    assert WEIGHT_ALLOCATIONS["erk"](weights, 0.95) == pytest.approx({0: 1, 2: 0.925})


@pytest.mark.parametrize("name", WEIGHT_ALLOCATIONS)
@pytest.mark.parametrize("share", [0.05, 0.5, 0.9, 1.0])
def test_shares_add_up(name: str, share: float) -> None:
    generator = np.random.default_rng(5)
    weights = {index: generator.normal(size=(8, size, 3, 3)) * 0.1**index for index, size in enumerate((3, 16, 40))}
    shares = WEIGHT_ALLOCATIONS[name](weights, share)
    whole = sum(array.size for array in weights.values())
    left = sum(shares[index] * array.size for index, array in weights.items())
    assert abs(left - share * whole) <= 0.5 + 1e-6  # a whole number of weights
    assert all(0 <= each <= 1 for each in shares.values())
