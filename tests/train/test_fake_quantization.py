"""Training on grids against the same training of a network whose weights are rounded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.train.test_loop import drawn_images, fresh, halves, raise_interrupt, run, same, stop_at
from yoloprune.darknet.data import Split
from yoloprune.darknet.grid import Grid
from yoloprune.darknet.model import Model
from yoloprune.darknet.network import Network, build
from yoloprune.darknet.weights import Weights
from yoloprune.errors import InputError
from yoloprune.train import run_folder
from yoloprune.train.fake_quantization import FakeQuantization
from yoloprune.train.loop import Resources, train
from yoloprune.train.masks import Masks

WEIGHTED = (0, 1, 3)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Split:
    return drawn_images(tmp_path_factory.mktemp("images"))


def grids_of(model: Model, bits: int = 3) -> dict[int, Grid]:
    """Two with scales, from 0.8 of the largest weight of each filter, and a codebook that reaches less far."""
    grids = {}
    for index in WEIGHTED:
        weight = model.weights.layers[index]["weight"]
        top = np.abs(weight).reshape(len(weight), -1).max(1)
        if index == 1:
            book = np.append(0, np.random.default_rng(0).uniform(-0.6, 0.6, 2**bits - 1) * top.max())
            grids[index] = Grid(bits, codebook=book.astype(np.float32))
        else:
            grids[index] = Grid(bits, scales=(0.8 * top / (2 ** (bits - 1) - 1)).astype(np.float32))
    return grids


def on_grids(weights: Weights, grids: Mapping[int, Grid]) -> Weights:
    layers = list(weights.layers)
    for index, grid in grids.items():
        layers[index] = {**layers[index], "weight": grid.values(grid.nearest(layers[index]["weight"]))}
    return Weights(weights.header, tuple(layers))


def test_rounded_within_the_block_and_as_before_behind_it() -> None:
    model, _ = fresh()
    grids = grids_of(model)
    network = build(model)
    quantization = FakeQuantization(network, grids)
    x = torch.rand(2, 3, 24, 32, generator=torch.Generator().manual_seed(0))
    expected = build(model.with_weights(on_grids(model.weights, grids)))
    at = model.graph.head_inputs
    with torch.no_grad():
        before = network(x, at)
        with quantization.applied(network):
            assert same(network.get_weights(model.weights.header), on_grids(model.weights, grids))
            within = network(x, at)
        behind, rounded = network(x, at), expected(x, at)
    for index in at:
        assert torch.equal(within[index], rounded[index])
        assert torch.equal(behind[index], before[index])
        assert not torch.equal(within[index], before[index])
    with pytest.raises(RuntimeError), quantization.applied(network):
        raise RuntimeError
    assert same(network.get_weights(model.weights.header), model.weights)


def test_weights_go_back_into_the_range_of_their_grids() -> None:
    model, _ = fresh()
    grids = grids_of(model)
    network = build(model)
    FakeQuantization(network, grids).enforce(network)
    for index, grid in grids.items():
        old, new = model.weights.layers[index]["weight"], network.layers[index].weight.numpy(force=True)
        if grid.codebook is not None:
            expected = np.clip(old, grid.codebook.min(), grid.codebook.max())
        else:
            assert grid.scales is not None
            most = (grid.largest * grid.scales).reshape(-1, 1, 1, 1)
            expected = np.clip(old, -most, most)
        assert not np.array_equal(expected, old)
        np.testing.assert_array_equal(new, expected)


def test_an_update_is_that_of_the_rounded_network(images: Split, tmp_path: Path) -> None:
    """Straight through: the weights before rounding move by what the rounded ones would; all else is as of those."""
    model, recipe = fresh()
    recipe = replace(recipe, iterations=1, decay=0.0, ema_alpha=0.0)
    assert recipe.schedule.rate(1) > 0
    grids = grids_of(model, 4)
    rounded = model.with_weights(on_grids(model.weights, grids))
    options = {"seed": 2, "resources": Resources(workers=0)}
    done = train(model, images, recipe, folder=tmp_path / "a", masks=Masks(grids=grids), **options)
    plain = train(rounded, images, recipe, folder=tmp_path / "b", **options)
    saved = torch.load(tmp_path / "a" / run_folder.CHECKPOINT, weights_only=True)["network"]
    assert done.history[0].loss == plain.history[0].loss
    moved = 0.0
    for index in WEIGHTED:
        before, there = model.weights.layers[index], rounded.weights.layers[index]
        for name in before:
            step = plain.last.layers[index][name].astype(np.float64) - there[name]
            found = saved[f"layers.{index}.{name}"].numpy()
            expected = before[name] + step
            if name == "weight":
                moved = max(moved, np.abs(step).max())
                grid = grids[index]
                values = grid.codebook if grid.scales is None else grid.scales.reshape(-1, 1, 1, 1) * grid.largest
                assert values is not None
                low, high = (values.min(), values.max()) if grid.scales is None else (-values, values)
                expected = np.clip(expected, low, high)
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert moved > 1e-4
    assert same(done.last, on_grids(done.last, grids))


def test_what_is_measured_and_given_back_is_on_the_grids(images: Split, tmp_path: Path) -> None:
    """The averaged network too; what is pruned stays so; and a checkpoint goes on exactly, with these grids only."""
    model, _ = fresh()
    grids, seen = grids_of(model), []

    def evaluate(network: Network) -> float:
        weights = network.get_weights(model.weights.header)
        assert same(weights, on_grids(weights, grids))
        seen.append(weights)
        return float(len(seen))

    masks = Masks(halves(model), grids=grids)
    whole = run(images, tmp_path / "whole", masks=masks, evaluate=evaluate)
    assert len(seen) == 3
    assert all(np.array_equal(seen[-1].layers[i]["weight"], whole.best.layers[i]["weight"]) for i in WEIGHTED)
    for weights in (whole.last, whole.best):
        assert same(weights, on_grids(weights, grids))
        assert not weights.layers[0]["weight"][::2].any()
        assert weights.layers[0]["weight"][1::2].any()
    saved = torch.load(tmp_path / "whole" / run_folder.CHECKPOINT, weights_only=True)
    unrounded = saved["network"]["layers.1.weight"].numpy()
    assert len(np.unique(unrounded)) > 2**3  # updates go on from there
    parts = tmp_path / "parts"
    with pytest.raises(KeyboardInterrupt):
        run(images, parts, masks=masks, evaluate=evaluate, progress=stop_at(3, raise_interrupt))
    with pytest.raises(InputError, match="belongs to a run with other"):
        run(images, parts, masks=Masks(halves(model), grids=grids_of(model, 4)), evaluate=evaluate)
    again = run(images, parts, masks=masks, evaluate=evaluate)
    assert same(again.last, whole.last)
    assert same(again.best, whole.best)
    assert not same(run(images, tmp_path / "free", masks=Masks(halves(model))).last, whole.last)


def test_grids_of_another_network_are_refused() -> None:
    model, _ = fresh()
    with pytest.raises(ValueError, match=r"layer 0 \[convolutional\]: grid: 3 filters != 8"):
        FakeQuantization(build(model), {0: Grid(4, scales=np.ones(3, np.float32))})
