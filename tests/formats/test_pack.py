"""`pack` and `unpack`: the identity over networks, and what grids change."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import yoloprune
from tests.helpers import graph_of, random_model
from yoloprune import cli
from yoloprune.darknet import weights as weights_file
from yoloprune.darknet.dialect import ALEXEYAB
from yoloprune.darknet.grid import Grid
from yoloprune.darknet.model import Model, load
from yoloprune.darknet.weights import Header, Weights
from yoloprune.formats import ypz
from yoloprune.formats.arrays import CODEBOOK, UNIFORM, UNIFORM_BY_COLUMN
from yoloprune.steps.pack import pack_files, unpack

ROOT = Path(__file__).resolve().parents[2]
TEXT = """\
[net]
width=8
height=8
channels=3

# two of them
[convolutional]
batch_normalize=1
filters=6
size=3
activation=leaky

[convolutional]
filters=5
size=1
{}

[connected]
output=7
"""


def packed(folder: Path, cfg: bytes, weights: bytes, dialect: str = "alexeyab") -> int:
    """Bytes of a packed network, which comes back."""
    (folder / "a.cfg").write_bytes(cfg)
    (folder / "a.weights").write_bytes(weights)
    done = pack_files(folder / "a.cfg", folder / "a.weights", folder / "b.ypz", dialect=dialect, force=True)
    back = unpack(folder / "b.ypz", folder / "out", force=True)
    assert back.cfg.read_bytes() == cfg
    assert back.weights.read_bytes() == weights
    assert (done.before, done.after) == (len(cfg) + len(weights), (folder / "b.ypz").stat().st_size)
    assert (back.before, back.after) == (done.after, done.before)
    return done.after


def own_and_shared(shared: Path) -> Iterator[tuple[Path, Path]]:
    for weights in sorted([*(ROOT / "weights").glob("*.weights"), *shared.glob("models/*/*.weights")]):
        beside = weights.with_suffix(".cfg")
        yield beside if beside.exists() else ROOT / "cfg" / beside.name, weights


def test_trained_networks(shared: Path, tmp_path: Path) -> None:
    networks = list(own_and_shared(shared))
    assert len(networks) >= 8
    for cfg, weights in networks:
        assert packed(tmp_path, cfg.read_bytes(), weights.read_bytes()) < 0.94 * weights.stat().st_size, weights


def test_pruned_networks(tmp_path: Path) -> None:
    """Smaller with every zero: at 95 % under a tenth."""
    cfg, weights = ROOT / "cfg" / "shapes.cfg", ROOT / "weights" / "shapes.weights"
    model = load(cfg, weights, ALEXEYAB)
    sizes = []
    for sparsity in (0, 0.5, 0.9, 0.95):
        pruned = {
            index: arrays | {"weight": np.where(abs(weight) > np.quantile(abs(weight), sparsity), weight, 0)}
            for index, arrays in enumerate(model.weights.layers)
            if (weight := arrays.get("weight")) is not None
        }
        dumped = weights_file.dump(model.with_arrays(pruned).weights, model.graph.layers)
        sizes.append(packed(tmp_path, cfg.read_bytes(), dumped) / len(dumped))
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 0.1


@pytest.mark.parametrize(
    ("header", "words"),
    [((0, 1, 0), "I"), ((0, 2, 5), "Q"), ((1, 7, 3), "Q"), ((2000, 0, 0), "I"), ((0, 9999, 7), "I")],
)
@pytest.mark.parametrize("layout", ["", "flipped=1"])
def test_headers_and_layouts(tmp_path: Path, header: tuple[int, int, int], words: str, layout: str) -> None:
    cfg = TEXT.format(layout)
    graph = graph_of(cfg)
    floats = np.random.default_rng(3).normal(size=weights_file.count(graph.layers)).astype("<f4")
    packed(tmp_path, cfg.encode(), struct.pack(f"<3i{words}", *header, 77) + floats.tobytes())


def test_values_that_are_no_numbers(tmp_path: Path) -> None:
    """Also where `map` would refuse them: bits are bits."""
    graph = graph_of(TEXT.format(""))
    patterns = [0x80000000, 0, 1, 0x7F800000, 0xFF800001, 0x7FC0BEEF]
    drawn = np.random.default_rng(4).choice(np.array(patterns, "<u4"), weights_file.count(graph.layers))
    packed(tmp_path, TEXT.format("").encode(), Header().dump() + drawn.tobytes())


def quantized(seed: int, layout: str, header: Header, bits: int) -> Model:
    """Weights on grids: of layers 0 and 2 uniform, of layer 1 with a codebook."""
    graph = graph_of(TEXT.format(layout))
    model = random_model(graph, seed)
    rng = np.random.default_rng(seed)
    book = rng.normal(0, 0.3, 2**bits).astype(np.float32)
    book[0] = 0
    layers = []
    for index, arrays in enumerate(model.weights.layers):
        weight = arrays["weight"]
        scales = rng.uniform(0.05, 0.1, len(weight)).astype(np.float32)
        grid = Grid(bits, codebook=book) if index == 1 else Grid(bits, scales)
        layers.append({**arrays, "weight": grid.values(grid.nearest(weight))})
    return Model(graph, Weights(header, tuple(layers)))


@pytest.mark.parametrize("header", [Header(), Header(2000, 0, 0)])
@pytest.mark.parametrize("layout", ["", "flipped=1"])
@pytest.mark.parametrize("bits", [2, 3, 5, 8])
def test_weights_on_a_grid(tmp_path: Path, header: Header, layout: str, bits: int) -> None:
    """Stored as codes, also where matrices are stored transposed; a large codebook is no gain for 30 weights."""
    model = quantized(bits, layout, header, bits)
    packed(tmp_path, TEXT.format(layout).encode(), weights_file.dump(model.weights, model.graph.layers))
    coded = [entry for entry in ypz.read(tmp_path / "b.ypz").entries if entry.bits]
    transposed = header.major > 1000
    conv, connected = coded[0], coded[-1]
    assert (conv.form, conv.filters, connected.filters) == (UNIFORM, 6, 7)
    assert connected.form == (UNIFORM_BY_COLUMN if transposed else UNIFORM)
    assert [entry.form for entry in coded[1:-1]] == [CODEBOOK] * (len(coded) - 2)
    assert all(entry.bits <= bits for entry in coded)


@pytest.mark.parametrize("value", [0.123, -0.0, np.inf, np.nan])
def test_a_weight_beside_its_grid(tmp_path: Path, value: float) -> None:
    """The layer keeps its floats."""
    model = quantized(1, "", Header(), 4)
    model.weights.layers[2]["weight"][3, 4] = value  # type: ignore[index]
    packed(tmp_path, TEXT.format("").encode(), weights_file.dump(model.weights, model.graph.layers))
    assert 7 not in [entry.filters for entry in ypz.read(tmp_path / "b.ypz").entries]


def run(*words: object, status: int = 0) -> str:
    result = CliRunner().invoke(cli.app, [str(word) for word in words], prog_name="yoloprune")
    assert result.exit_code == status, result.output
    return result.stderr if status else result.stdout


def test_the_commands(tmp_path: Path) -> None:
    cfg, weights = ROOT / "cfg" / "shapes.cfg", ROOT / "weights" / "shapes.weights"
    names = tmp_path / "shapes.names"
    names.write_bytes(b"circle\r\nsquare")
    file, out = tmp_path / "net.ypz", tmp_path / "out"
    answer = json.loads(run("pack", cfg, weights, "--names", names, "-o", file, "--json", "-"))
    sizes = [path.stat().st_size for path in (cfg, weights, names)]
    assert answer == {
        "bytes": {"before": sum(sizes), "after": file.stat().st_size}, "bits": None, "files": {"packed": str(file)},
    }  # fmt: skip
    assert "exists already; --force" in run("pack", cfg, weights, "-o", file, status=2)
    assert f"{sum(sizes):,} bytes" in run("pack", cfg, weights, "--names", names, "-o", file, "--force")
    answer = json.loads(run("unpack", file, "-o", out, "--json", "-"))
    assert answer["bytes"] == {"before": file.stat().st_size, "after": sum(sizes)}
    for kind, original in (("cfg", cfg), ("weights", weights), ("names", names)):
        assert Path(answer["files"][kind]) == out / f"net.{kind}"
        assert (out / f"net.{kind}").read_bytes() == original.read_bytes()
    (out / "net.weights").unlink()
    assert "net.cfg: exists already" in run("unpack", file, "-o", out, status=2)
    assert not (out / "net.weights").exists()
    run("unpack", file, "-o", out, "--force")
    assert yoloprune.unpack(file, tmp_path / "again").weights.read_bytes() == weights.read_bytes()
    assert yoloprune.pack(str(cfg), weights, tmp_path / "2.ypz", names=names).after == file.stat().st_size


def test_mistakes(tmp_path: Path) -> None:
    cfg, weights = ROOT / "cfg" / "shapes.cfg", ROOT / "weights" / "shapes.weights"
    file = tmp_path / "net.ypz"
    assert "a name that ends in .ypz" in run("pack", cfg, weights, "-o", tmp_path / "net.zip", status=2)
    assert "a name that ends in .ypz" in run("unpack", weights, "-o", tmp_path, status=2)
    assert "another cfg" in run("pack", cfg, ROOT / "weights" / "cells-tiny.weights", "-o", file, status=2)
    assert "byte 0: expected a header" in run("pack", cfg, "/dev/null", "-o", file, status=2)
    assert "cannot be read" in run("pack", cfg, tmp_path / "none", "-o", file, status=2)
    assert "is a folder" in run("pack", cfg, tmp_path, "-o", file, status=2)
    assert "cannot be read" in run("unpack", file, "-o", tmp_path / "out", status=2)
    assert not list(tmp_path.iterdir())


def test_damaged_values_leave_nothing(tmp_path: Path) -> None:
    from tests.formats.test_ypz import GOOD, signed

    (tmp_path / "net.ypz").write_bytes(signed(GOOD))
    assert "stream 4 (parameters 0)" in run("unpack", tmp_path / "net.ypz", "-o", tmp_path / "out", status=2)
    assert not list((tmp_path / "out").iterdir())
