"""weights bytes: both headers, exact length, payload byte-identical, refused before anything is allocated."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from tests.helpers import graph_of, random_model
from yoloprune.darknet import weights as weights_file
from yoloprune.darknet.dialect import ALEXEYAB
from yoloprune.darknet.model import Graph, load_graph
from yoloprune.errors import InputError

TEXT = """[net]
width=13
height=17
channels=3
[convolutional]
batch_normalize=1
filters=6
size=3
[convolutional]
filters=4
groups=2
[connected]
output=5
batch_normalize=1
"""
FLOATS = 4 * 6 + 6 * 27 + 4 + 4 * 3 + 5 + 5 * 4 * 11 * 15 + 3 * 5


@pytest.fixture
def graph() -> Graph:
    return graph_of(TEXT)


@pytest.fixture
def payload(graph: Graph) -> bytes:
    model = random_model(graph, 0)
    return weights_file.dump(model.weights, graph.layers)[20:]


@pytest.mark.parametrize("head", [struct.pack("<iiiI", 0, 1, 0, 77), struct.pack("<iiiQ", 0, 2, 5, 1 << 40)])
def test_both_headers_round_trip(graph: Graph, payload: bytes, head: bytes) -> None:
    assert weights_file.count(graph.layers) == FLOATS == len(payload) // 4
    weights = weights_file.parse(head + payload, graph.layers)
    assert weights.header.seen == (77 if len(head) == 16 else 1 << 40)
    assert weights_file.dump(weights, graph.layers) == head + payload


def test_disk_order_is_darknets(graph: Graph) -> None:
    """bias, scale, mean, variance, weight for a convolution; a connected layer's weight comes before its batch norm."""
    numbers = np.arange(FLOATS, dtype="<f4")
    layers = weights_file.parse(struct.pack("<iiiQ", 0, 2, 0, 0) + numbers.tobytes(), graph.layers).layers
    first = {name: int(array.flat[0]) for name, array in layers[0].items()}
    assert first == {"bias": 0, "scale": 6, "mean": 12, "variance": 18, "weight": 24}
    start = 24 + 6 * 27 + 4 + 12
    rest = start + 5 + 5 * 4 * 11 * 15
    assert {name: int(array.flat[0]) for name, array in layers[2].items()} == {
        "bias": start, "weight": start + 5, "scale": rest, "mean": rest + 5, "variance": rest + 10,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[:-4], "ends within layer 2 [connected], variance: expected"),
        (lambda data: data + b"\0\0\0\0", "is it the weights of another cfg?"),
        (lambda data: data[:7], "expected a header of 16 or 20 bytes, found the end"),
        (lambda data: b"", "expected a header"),
        (lambda data: b"PK\3\4" + data[4:], "expected a Darknet header"),
        (lambda data: data[: 20 + 4 * 18] + struct.pack("<f", -1) + data[24 + 4 * 18 :], "variance: expected a finite"),
        (lambda data: data[:-4] + struct.pack("<f", float("nan")), "found nan"),
    ],
)
def test_errors_locate(graph: Graph, payload: bytes, tmp_path: Path, change: object, message: str) -> None:
    file = tmp_path / "a.weights"
    file.write_bytes(change(struct.pack("<iiiQ", 0, 2, 5, 0) + payload))  # type: ignore[operator]
    with pytest.raises(InputError) as caught:
        weights_file.read(file, graph.layers)
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"{file}: byte ")


def test_a_cfg_far_larger_than_its_weights_is_refused_unallocated(tmp_path: Path) -> None:
    graph = graph_of(TEXT.replace("filters=6", "filters=900000").replace("width=13", "width=5").replace("17", "5"))
    file = tmp_path / "a.weights"
    file.write_bytes(struct.pack("<iiiQ", 0, 2, 5, 0) + bytes(400))
    with pytest.raises(InputError, match="ends within layer 0"):
        weights_file.read(file, graph.layers)


@pytest.mark.parametrize("name", ["yolo-fastest-1.1", "lite-voc-t3"])
def test_real_files_round_trip(shared: Path, name: str) -> None:
    folder = shared / "models" / name
    graph = load_graph(folder / f"{name}.cfg", ALEXEYAB)
    data = (folder / f"{name}.weights").read_bytes()
    assert weights_file.dump(weights_file.parse(data, graph.layers), graph.layers) == data
