"""What the table of bench_classics says, and that the sparsity training of the peer gives back our own network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from bench_classics import markdown
from torch_pruning_twin import Twin, sparse_learning

from tests.drawn import bench
from tests.helpers import random_model, worst
from yoloprune.darknet.data import load_split, read_data
from yoloprune.darknet.dialect import ALEXEYAB
from yoloprune.darknet.model import load_graph
from yoloprune.prune.channels import trace
from yoloprune.train.recipe import Recipe


def test_the_largest_ratio_within_a_point_has_all_smaller_ones_within_it() -> None:
    def piece(way: str, ratio: float, seed: int, finetuned: float | None) -> dict[str, object]:
        return {"way": way, "ratio": ratio, "seed": seed, "updates": 60, "finetuned": finetuned}

    pieces = [piece("ours", 0.5, 0, 0.80), piece("ours", 0.5, 1, 0.79), piece("ours", 0.75, 0, 0.785)]
    pieces += [piece("thinet", 0.5, 0, 0.70), piece("thinet", 0.75, 0, 0.80), piece("slimming", 0.75, 0, None)]
    ours, thinet, slimming = markdown(pieces, 0.79, 60).splitlines()[-3:]
    assert ours == "| ours | 0.7950 ± 0.0050 (2) | 0.7850 ± 0.0000 (1) | 75% |"
    assert thinet == "| thinet | 0.7000 ± 0.0000 (1) | 0.8000 ± 0.0000 (1) | 0% |"
    assert slimming == "| slimming |  | can't | 0% |"


def test_sparsity_training_shrinks_norms_and_comes_back_as_our_network(tmp_path: Path, one_thread: None) -> None:
    pytest.importorskip("torch_pruning", reason="extra bench is not installed")
    made = bench(tmp_path / "set")
    model = random_model(load_graph(made.cfg, ALEXEYAB), 1)
    for index, arrays in Twin(model).arrays().items():
        assert all(worst(each, model.weights.layers[index][name]) < 1e-5 for name, each in arrays.items())
    images = load_split(read_data(made.data), "train", ALEXEYAB, classes=2)
    recipe = Recipe.for_finetuning(model.graph, 3, learning_rate=1e-9)  # so that nothing but the norms could shrink
    torch.manual_seed(0)
    norms = []
    for reg in (0.0, 3e7):  # times the rate, some hundredths
        after = sparse_learning(model, trace(model.graph), images, recipe, reg=reg)
        norms.append(sum(float(np.square(after.weights.layers[index]["weight"]).sum()) for index in (0, 2, 4)))
    assert norms[1] < 0.99 * norms[0]
