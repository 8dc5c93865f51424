"""Weights of few values: what `check` says of them, once a file and reader."""

from __future__ import annotations

import numpy as np

from tests.compat.test_zeros import GRAPH, READERS, TEXT
from tests.helpers import random_model
from yoloprune.compat import WeightsFile, check
from yoloprune.darknet import cfg as cfg_file
from yoloprune.darknet import weights as weights_file
from yoloprune.darknet.grid import Grid

STORAGE = "bits are storage, small once packed: all are computed as floats, and nothing runs faster"


def notes(bits: dict[int, int]) -> dict[str, list[str]]:
    """What is said of bits, by reader, where these layers have so many."""
    model = random_model(GRAPH, 7)
    changed = {}
    for index, count in bits.items():
        weight = model.weights.layers[index]["weight"]
        top = np.abs(weight).reshape(len(weight), -1).max(1)
        grid = Grid(count, (top / (2 ** (count - 1) - 1)).astype(np.float32))
        changed[index] = {**model.weights.layers[index], "weight": grid.values(grid.nearest(weight))}
    dumped = weights_file.dump(model.with_arrays(changed).weights, GRAPH.layers)
    found: dict[str, list[str]] = {}
    for each in check(
        cfg_file.parse(TEXT.encode()), READERS, WeightsFile("a.weights", np.frombuffer(dumped, np.uint8))
    ):
        if "bits" in each.message:
            assert (each.severity, each.line, each.layer) == ("note", None, None)
            found.setdefault(each.reader, []).append(each.message)
    return found


def test_every_reader_hears_of_it_once() -> None:
    assert notes({}) == {}
    found = notes({1: 4, 3: 6})
    assert found.keys() == {each.name for each in READERS} - {"opencv5"}
    said = f"weights: those of 2 of 4 layers take values of 6 bits or fewer: {STORAGE}"
    (own,) = found.pop("opencv")
    assert own == f"{said} (its own int8 was off by up to 0.98 at the heads of two networks, and slower)" + (
        "; int8 runs through ONNX"
    )
    assert all(messages == [f"{said}; int8 runs through ONNX"] for messages in found.values())
