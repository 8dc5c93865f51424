"""`pack --bits` on a job's network: few values, zeros that stay, accuracy before and after."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.drawn import Bench, bench
from yoloprune import cli
from yoloprune.darknet.dialect import ALEXEYAB
from yoloprune.darknet.model import Model, load
from yoloprune.darknet.weights import dump
from yoloprune.errors import InputError
from yoloprune.options import PackOptions
from yoloprune.prune.quantize import Quantization, quantizable_layers, quantize
from yoloprune.steps.pack import pack, unpack


@pytest.fixture
def made(one_thread: None, tmp_path: Path) -> Bench:
    return bench(tmp_path / "set")


def typed(*words: object) -> dict[str, Any]:
    result = CliRunner().invoke(cli.app, [*map(str, words), "--json", "-"])
    assert result.exit_code == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def unpacked(file: Path, folder: Path) -> Model:
    done = unpack(file, folder)
    return load(done.cfg, done.weights, ALEXEYAB)


@pytest.mark.parametrize("grid", ["uniform", "kmeans"])
def test_few_values_and_zeros_that_stay(made: Bench, tmp_path: Path, grid: str) -> None:
    model = load(made.cfg, made.weights, ALEXEYAB)
    arrays = dict(model.weights.layers[4])
    arrays["weight"] = np.where(np.abs(arrays["weight"]) < 0.1, 0, arrays["weight"]).astype(np.float32)
    sparse, weights = model.with_arrays({4: arrays}), tmp_path / "sparse.weights"
    weights.write_bytes(dump(sparse.weights, model.graph.layers))
    said = ("--bits", 4, "--grid", grid, "--data", made.data, "--calibrate", 4, "-o", tmp_path / "a.ypz")
    found = typed("pack", made.cfg, weights, *said)
    assert found["bits"] == 4
    assert found["bytes"]["before"] == made.cfg.stat().st_size + weights.stat().st_size
    assert found["bytes"]["after"] == (tmp_path / "a.ypz").stat().st_size
    assert set(found["map50_present"]) == {"before", "after"}
    again = unpacked(tmp_path / "a.ypz", tmp_path / "out")
    for index in quantizable_layers(model.graph):
        old, new = (each.weights.layers[index]["weight"] for each in (sparse, again))
        assert not new[old == 0].any()
        rows = [new.ravel()] if grid == "kmeans" else new.reshape(len(new), -1)
        assert all(len(np.unique(row)) <= 16 for row in rows)


def test_without_images_each_weight_takes_the_nearest_value(made: Bench, tmp_path: Path) -> None:
    model = load(made.cfg, made.weights, ALEXEYAB)
    done = pack(made.cfg, made.weights, tmp_path / "a.ypz", PackOptions(bits=5))
    assert (done.bits, done.accuracy) == (5, None)
    expected, _ = quantize(model, Quantization(5))
    again = unpacked(tmp_path / "a.ypz", tmp_path / "out")
    assert dump(again.weights, model.graph.layers) == dump(expected.weights, model.graph.layers)


def test_fewer_bits_are_fewer_bytes_and_all_bits_are_the_same_bytes(made: Bench, tmp_path: Path) -> None:
    sizes = [pack(made.cfg, made.weights, tmp_path / f"{bits}.ypz", PackOptions(bits=bits)).after for bits in (3, 5, 8)]
    whole = pack(made.cfg, made.weights, tmp_path / "whole.ypz")
    assert sizes == sorted(sizes)
    assert sizes[-1] < whole.after
    done = unpack(tmp_path / "whole.ypz", tmp_path / "out")
    assert done.weights.read_bytes() == made.weights.read_bytes()
    assert done.cfg.read_bytes() == made.cfg.read_bytes()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (PackOptions(bits=9), "--bits: expected 2 to 8, found 9"),
        (PackOptions(bits=4, grid="log"), "--grid: expected one of uniform, kmeans, found log"),
        (PackOptions(grid="kmeans"), "--grid kmeans: expected --bits"),
    ],
)
def test_what_can_not_be_is_refused(made: Bench, tmp_path: Path, options: PackOptions, expected: str) -> None:
    with pytest.raises(InputError) as refused:
        pack(made.cfg, made.weights, tmp_path / "a.ypz", options)
    assert expected in str(refused.value)
    assert not (tmp_path / "a.ypz").exists()
