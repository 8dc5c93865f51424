"""weights bytes: both headers, exact length, payload byte-identical, refused before anything is allocated."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers import graph_of, random_model, worst
from tests.oracles import libdarknet_many
from yoloprune.darknet import cfg as cfg_file
from yoloprune.darknet import weights as weights_file
from yoloprune.darknet.dialect import ALEXEYAB, PJREDDIE, Dialect
from yoloprune.darknet.model import Graph, Model, load, load_graph
from yoloprune.darknet.network import build
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
        (lambda data: data[:-8], "ends within layer 2 [connected], variance: expected"),
        (
            lambda data: data[:-4],
            "byte 0: 4 bytes too few: the header's version and length disagree (version 0.2.5 has",
        ),
        (lambda data: data[:12] + data[16:], "too few: the header's version and length disagree"),
        (lambda data: bytes(12) + data[12:], "4 bytes too many: the header's version and length disagree (version 0.0"),
        (lambda data: data + b"\0\0\0\0", "is it the weights of another cfg?"),
        (lambda data: data[:7], "expected a header of 16 or 20 bytes, found the end"),
        (lambda data: b"", "expected a header"),
        (lambda data: b"PK\3\4" + data[4:], "expected a Darknet header"),
        (lambda data: struct.pack("<iiiI", -7, 0, 0, 0) + data[20:], "expected a Darknet header"),
        (lambda data: data[: 20 + 4 * 18] + struct.pack("<f", -1) + data[24 + 4 * 18 :], "variance: expected a finite"),
        (lambda data: data[:-4] + struct.pack("<f", float("nan")), "found nan"),
        (lambda data: data[:-4] + struct.pack("<I", 0x7F800001), "found nan"),
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


def with_keys(keys: str, dialect: Dialect = ALEXEYAB) -> Graph:
    """TEXT with `keys` in its first section."""
    return graph_of(TEXT.replace("filters=6\n", f"filters=6\n{keys}"), dialect)


HEAD = struct.pack("<iiiQ", 0, 2, 5, 0)
FIRST = 4 * 6 + 6 * 27


@pytest.mark.parametrize(
    ("keys", "missing"),
    [("dontload=1\n", FIRST), ("dontloadscales=1\n", 3 * 6), ("numload=4\n", 2 * (4 + 27)), ("numload=6\n", 0)],
)
def test_what_a_file_does_not_hold_is_as_new(payload: bytes, keys: str, missing: int) -> None:
    """Its bytes are not there; the rest of the array starts as in a new network, and may not be written otherwise."""
    graph = with_keys(keys, PJREDDIE)
    assert weights_file.count(graph.layers) == FLOATS - missing
    data = HEAD + np.abs(np.frombuffer(payload, "<f4"))[missing:].tobytes()
    weights = weights_file.parse(data, graph.layers)
    assert weights_file.dump(weights, graph.layers) == data
    arrays = weights.layers[0]
    assert {name: array.shape for name, array in arrays.items()} == {
        "bias": (6,), "scale": (6,), "mean": (6,), "variance": (6,), "weight": (6, 3, 3, 3),
    }  # fmt: skip
    if "dontload" in keys:
        assert set(arrays["scale"]) == {1}
        assert set(arrays["mean"]) == set(arrays["variance"]) == {0}
    if keys == "dontload=1\n":
        assert 0.5 < np.abs(arrays["weight"]).max() / np.sqrt(2 / 27) <= 1
    if missing:
        arrays["scale"][-1] += 1  # type: ignore[index]
        with pytest.raises(InputError, match=r"layer 0 \[convolutional\], scale: the cfg keeps it out of the file"):
            weights_file.dump(weights, graph.layers)


def test_alexeyab_has_no_numload() -> None:
    assert weights_file.count(with_keys("numload=4\n").layers) == FLOATS


def test_flipped_is_stored_as_the_transposed_matrix(payload: bytes, libdarknet: Path, tmp_path: Path) -> None:
    """Darknet turns it when loading and saves it as it is then."""
    graph = with_keys("flipped=1\n")
    weights = weights_file.parse(HEAD + payload, graph.layers)
    plain = weights_file.parse(HEAD + payload, graph_of(TEXT).layers)
    matrix = plain.layers[0]["weight"].reshape(27, 6)
    assert np.array_equal(weights.layers[0]["weight"], matrix.T.reshape(6, 3, 3, 3))
    assert weights_file.dump(weights, graph.layers) == HEAD + payload
    files = [tmp_path / name for name in ("a.cfg", "a.weights", "b.weights")]
    cfg_file.write(files[0], graph.cfg)
    weights_file.write(files[1], weights, graph.layers)
    libdarknet_many.resave([(files[0], files[1], files[2])])
    saved = weights_file.parse(files[2].read_bytes(), graph_of(TEXT).layers)
    assert np.array_equal(saved.layers[0]["weight"], weights.layers[0]["weight"])


FLOATS_AS_VERSION = struct.unpack("<ii", struct.pack("<ff", 0.38, -0.02))
"""What vgg-16.weights begins with, more or less."""


@pytest.mark.parametrize(
    ("major", "minor", "wide"),
    [(0, 1001, False), (1001, 0, False), (999, 0, True), (0, 1000, False), (*FLOATS_AS_VERSION, False)],
)
def test_version_over_1000_has_transposed_matrices(
    graph: Graph, payload: bytes, libdarknet: Path, tmp_path: Path, major: int, minor: int, wide: bool
) -> None:
    data = struct.pack("<iiiQ" if wide else "<iiiI", major, minor, 0, 7) + payload
    weights = weights_file.parse(data, graph.layers)
    assert weights.header.seen == 7
    assert weights_file.dump(weights, graph.layers) == data
    files = [tmp_path / name for name in ("a.cfg", "a.weights", "b.weights")]
    cfg_file.write(files[0], graph.cfg)
    files[1].write_bytes(data)
    libdarknet_many.resave([(files[0], files[1], files[2])])
    theirs = weights_file.parse(files[2].read_bytes(), graph.layers)
    for ours, saved in zip(weights.layers, theirs.layers, strict=True):
        assert all(np.array_equal(ours[name], saved[name]) for name in ours)
    plain = np.frombuffer(payload, "<f4")[FIRST + 16 + 5 :][: 5 * 660]
    expected = plain.reshape(660, 5).T if max(major, minor) > 1000 else plain.reshape(5, 660)
    assert np.array_equal(weights.layers[2]["weight"], expected)


@pytest.mark.parametrize(("floats", "loaded"), [(FIRST, 1), (FIRST + 16, 2), (FLOATS, 3)])
def test_partial_files(graph: Graph, payload: bytes, tmp_path: Path, floats: int, loaded: int) -> None:
    file = tmp_path / "a.conv"
    file.write_bytes(HEAD + payload[: 4 * floats])
    weights, found = weights_file.read_partial(file, graph.layers, 5)
    assert found == loaded
    whole, new = weights_file.parse(HEAD + payload, graph.layers), weights_file.initial(graph.layers, 5)
    for index, arrays in enumerate(weights.layers):
        source = whole if index < loaded else new
        assert all(np.array_equal(array, source.layers[index][name]) for name, array in arrays.items())
    cfg = tmp_path / "a.cfg"
    cfg_file.write(cfg, graph.cfg)
    assert len(load(cfg, file, ALEXEYAB, allow_partial=True).weights.layers) == 3
    if loaded < 3:
        with pytest.raises(InputError, match=rf"ends before layer {loaded} .*: a partial file"):
            load(cfg, file, ALEXEYAB)


@pytest.mark.parametrize("floats", [FIRST - 1, FIRST + 3, FLOATS + 1])
def test_a_partial_file_ends_behind_a_layer(graph: Graph, payload: bytes, tmp_path: Path, floats: int) -> None:
    file = tmp_path / "a.conv"
    file.write_bytes(HEAD + (payload + bytes(4))[: 4 * floats])
    with pytest.raises(InputError, match=r"ends within layer|of another cfg"):
        weights_file.read_partial(file, graph.layers, 5)


def test_a_partial_file_holds_something(graph: Graph, tmp_path: Path) -> None:
    file = tmp_path / "a.conv"
    file.write_bytes(HEAD)
    with pytest.raises(InputError, match="expected weights behind the header"):
        weights_file.read_partial(file, graph.layers, 5)


def test_layers_without_arrays_belong_to_the_part_before_them(tmp_path: Path) -> None:
    text = TEXT.replace("[connected]", "[maxpool]\nsize=1\n[convolutional]\nfilters=4\n[connected]")
    graph = graph_of(text)
    file = tmp_path / "a.conv"
    data = weights_file.dump(weights_file.initial(graph.layers, 0), graph.layers)
    file.write_bytes(data[: 20 + 4 * (FIRST + 16)])
    assert weights_file.read_partial(file, graph.layers, 5)[1] == 3


def test_the_same_part_as_darknet_partial_writes(shared: Path, libdarknet: Path, tmp_path: Path) -> None:
    """`darknet partial cfg in out 15` is how yolov3-tiny.conv.15 came about."""
    folder = shared / "models" / "yolo-fastest-1.1"
    cfg, whole, part = folder / "yolo-fastest-1.1.cfg", folder / "yolo-fastest-1.1.weights", tmp_path / "a.conv.15"
    done = subprocess.run(
        ["darknet", "partial", str(cfg), str(whole), str(part), "15"], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("no darknet program")
    graph = load_graph(cfg, ALEXEYAB)
    weights, loaded = weights_file.read_partial(part, graph.layers, 0)
    assert loaded >= 15
    original = weights_file.read(whole, graph.layers)
    for ours, theirs in zip(weights.layers[:15], original.layers[:15], strict=True):
        assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)


NORMALIZED = (
    "[net]\nwidth=4\nheight=3\nchannels=2\n[convolutional]\nfilters=9\nsize=1\nbatch_normalize=1\nactivation=linear\n"
)
TINY = float(np.float32(2.0**-126))
BOUND = float(np.float32(1e-5))  # a little under 1e-5
BEYOND = float(np.nextafter(np.float32(1e-5), np.float32(1)))
LIMITS = {
    "pjreddie": (PJREDDIE, [0.0, -7e-44, -TINY / 2, 7e-44, 3e38], [-TINY, -1e-9, -1.0, np.nan, np.inf]),
    "alexeyab": (ALEXEYAB, [0.0, -7e-44, -9.9999e-6, -BOUND, 3e38], [-BEYOND, -1e-4, -1.0, np.nan, np.inf]),
}
"""Dialect, variances by which its formula is finite, and others."""


def with_variances(dialect: Dialect, variances: list[float]) -> tuple[Graph, bytes]:
    graph = graph_of(NORMALIZED, dialect)
    model = random_model(graph, 3)
    model.weights.layers[0]["variance"][: len(variances)] = variances  # type: ignore[index]
    return graph, weights_file.dump(model.weights, graph.layers)


@pytest.mark.parametrize("name", LIMITS)
def test_variances_are_those_that_the_formula_is_finite_for(name: str) -> None:
    dialect, fine, bad = LIMITS[name]
    graph, data = with_variances(dialect, fine)
    weights = weights_file.parse(data, graph.layers)
    assert weights_file.dump(weights, graph.layers) == data
    x = torch.rand(2, 2, 3, 4)
    assert build(Model(graph, weights))(x)[0].isfinite().all()
    for value in bad:
        with pytest.raises(
            InputError, match=r"byte 132: layer 0 \[convolutional\], variance: expected a finite number"
        ):
            weights_file.parse(with_variances(dialect, [1.0, value])[1], graph.layers)


def test_normalizing_is_computed_in_double() -> None:
    """As AlexeyAB's fuse_conv_batchnorm: scale / sqrt(variance + .00001), where a float would be off or infinite."""
    variances = [-9.9999e-6, -9.9e-6, -BOUND, 0.0, 2.0]
    graph, data = with_variances(ALEXEYAB, variances)
    weights = weights_file.parse(data, graph.layers)
    arrays = {name: array.astype(np.float64) for name, array in weights.layers[0].items()}
    x = np.random.default_rng(5).random((2, 2, 3, 4))
    factor = arrays["scale"] / np.sqrt(arrays["variance"] + 0.00001)
    sums = np.einsum("nc,bchw->bnhw", arrays["weight"][:, :, 0, 0] * factor[:, None], x)
    linear = sums + (arrays["bias"] - arrays["mean"] * factor)[:, None, None]
    with torch.inference_mode():
        ours = build(Model(graph, weights))(torch.from_numpy(x).float())[0].numpy()
    for index in range(len(variances)):
        assert worst(ours[:, index], linear[:, index]) < 1e-6


def test_pjreddies_darknet_has_the_same_bound(libdarknet: Path, tmp_path: Path) -> None:
    """Denormals are 0 to it, and what is below them gives NaN."""
    _, fine, bad = LIMITS["pjreddie"]
    graph, data = with_variances(PJREDDIE, fine + bad[:3])
    cfg, file = tmp_path / "a.cfg", tmp_path / "a.weights"
    cfg_file.write(cfg, graph.cfg)
    file.write_bytes(data)
    x = np.random.default_rng(1).random((2, 2, 3, 4), np.float32)
    (found,) = libdarknet_many.outputs([(cfg, file)], x)
    assert np.isnan(found[0]).all((0, 2, 3)).tolist() == [False] * 5 + [True] * 3 + [False]
    weights = weights_file.parse(with_variances(PJREDDIE, fine)[1], graph.layers)
    ours = build(Model(graph, weights))(torch.from_numpy(x))[0].detach().numpy()
    assert worst(ours[:, :5], found[0][:, :5]) < 1e-6


@pytest.mark.parametrize(("major", "minor", "size"), [(0, 1, 16), (0, 0, 16), (1001, 0, 16), (0, 2, 20), (2, 0, 20)])
def test_a_renewed_header_keeps_its_length(graph: Graph, payload: bytes, major: int, minor: int, size: int) -> None:
    header = weights_file.Header(major, minor, 9, 77)
    new = header.renewed(2**40)
    assert (header.size, new.size, new.transposed) == (size, size, False)
    data = new.dump()
    assert len(data) == size
    assert weights_file.parse_header(data, graph.layers, size + 4 * FLOATS).seen == (2**40 if size == 20 else 2**32 - 1)
