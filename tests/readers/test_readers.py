"""The two readers against each other and against NumPy; how they end on files that they don't take."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from yoloprune.readers import READERS, Reader, ReaderError, libdarknet, opencv

pytestmark = pytest.mark.usefixtures("libdarknet")

DETECTOR = """\
[net]
batch=4
subdivisions=2
width=13
height=17
channels=3

[convolutional]
filters=5
size=3
stride=1
pad=1
activation=linear

[convolutional]
batch_normalize=1
filters=6
size=3
stride=2
pad=1
activation=leaky

[dropout]
probability=.5

[convolutional]
filters=14
size=1
stride=1
activation=linear

[yolo]
mask=0,1
anchors=3,4, 6,5
classes=2
num=2
"""

CLASSIFIER = """\
[net]
batch=1
width=9
height=7
channels=2

[convolutional]
filters=4
size=3
stride=1
pad=1
activation=leaky

[avgpool]

[connected]
output=5
activation=linear

[softmax]
"""


def made(folder: Path, text: str) -> tuple[Path, Path]:
    """A cfg and random weights for it, made by Darknet itself."""
    cfg, weights = folder / "net.cfg", folder / "net.weights"
    cfg.write_text(text)
    libdarknet.resave(cfg, None, weights)
    return cfg, weights


def detector(folder: Path) -> tuple[Path, Path]:
    """DETECTOR with a batch norm that is worth comparing: Darknet starts with variance 0, which multiplies by 1e6."""
    cfg, weights = made(folder, DETECTOR)
    data = bytearray(weights.read_bytes())
    after_first = 20 + 4 * (5 + 5 * 3 * 9)
    data[after_first : after_first + 4 * 24] = np.random.default_rng(3).uniform(0.5, 1.5, 24).astype("<f4").tobytes()
    weights.write_bytes(data)
    return cfg, weights


def missing(reader: Reader) -> None:
    """Skip where the reader isn't installed."""
    reason = reader.available()
    if reason:
        pytest.skip(reason)


def random_input(shape: tuple[int, ...], seed: int = 7) -> np.ndarray:
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """Largest |a - b| over max |b|."""
    assert a.shape == b.shape
    return float(np.abs(a - b).max() / np.abs(b).max())


@pytest.mark.parametrize(
    ("model", "side", "heads"), [("yolo-fastest-1.1", 320, [121, 130]), ("lite-voc-t3", 224, [12])]
)
def test_the_readers_agree_on_what_enters_the_heads(shared: Path, model: str, side: int, heads: list[int]) -> None:
    cfg, weights = (shared / "models" / model / f"{model}.{ending}" for ending in ("cfg", "weights"))
    inputs = random_input((2, 3, side, side))
    stock, cv = (READERS[name].head_inputs(cfg, weights, inputs, heads) for name in ("darknet", "opencv"))
    assert list(stock) == list(cv) == heads
    for head in heads:
        assert difference(cv[head], stock[head]) < 3e-3  # OpenCV's batch-norm epsilon and summation differ


def test_libdarknet_gives_each_layer_of_each_image(tmp_path: Path) -> None:
    cfg, weights = detector(tmp_path)
    inputs = random_input((3, 3, 17, 13))
    found = libdarknet.outputs(cfg, weights, inputs)
    shapes = {layer: output.shape for layer, output in found.items()}
    assert shapes == {0: (3, 5, 17, 13), 1: (3, 6, 9, 7), 2: (3, 6, 9, 7), 3: (3, 14, 9, 7), 4: (3, 14, 9, 7)}
    floats = np.fromfile(weights, "<f4", offset=20)
    bias, kernel = floats[:5], floats[5 : 5 + 5 * 3 * 3 * 3].reshape(5, 3, 3, 3)
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(inputs, ((0, 0), (0, 0), (1, 1), (1, 1))), (3, 3), (2, 3))
    expected = np.einsum("bchwij,ncij->bnhw", windows, kernel) + bias[:, None, None]
    assert difference(found[0], expected) < 1e-5  # one layer in float32
    plane = [0, 1, 4, 5, 6]  # x, y, objectness, classes of the first anchor
    np.testing.assert_allclose(found[4][:, plane], 1 / (1 + np.exp(-found[3][:, plane])), rtol=1e-5)
    alone = libdarknet.outputs(cfg, weights, inputs[2:], [3])
    np.testing.assert_array_equal(alone[3], found[3][2:])


def test_the_readers_agree_on_a_small_detector(tmp_path: Path) -> None:
    cfg, weights = detector(tmp_path)
    inputs = random_input((3, 3, 17, 13))
    stock, cv = (READERS[name].head_inputs(cfg, weights, inputs, [4, 1]) for name in ("darknet", "opencv"))
    assert stock[4].shape == (3, 14, 9, 7)
    for head in (4, 1):
        assert difference(cv[head], stock[head]) < 1e-4


def test_the_readers_agree_on_a_classifier(tmp_path: Path) -> None:
    cfg, weights = made(tmp_path, CLASSIFIER + "\n[cost]\n")
    inputs = random_input((3, 2, 7, 9))
    stock, cv = (READERS[name].head_inputs(cfg, weights, inputs, [3, 4, 5]) for name in ("darknet", "opencv"))
    for head in (3, 4, 5):  # the logits, the probabilities, and one past the end: what [cost] passes on
        assert stock[head].shape == (3, 5, 1, 1)
        assert difference(cv[head], stock[head]) < 1e-4
    np.testing.assert_allclose(stock[4].sum(axis=1), 1, rtol=1e-5)


def test_opencv_cuts_no_probability(tmp_path: Path) -> None:
    cfg, weights = made(tmp_path, DETECTOR.replace("batch_normalize=1\n", "") + "thresh=.9\n")
    inputs = random_input((2, 3, 17, 13))
    (rows,) = opencv.head_outputs(cfg, weights, inputs).values()
    raw = libdarknet.outputs(cfg, weights, inputs, [4])[4].reshape(2, 2, 7, 9, 7)
    expected = (raw[:, :, 4:5] * raw[:, :, 5:]).transpose(0, 3, 4, 1, 2).reshape(2, -1, 2)
    assert expected.min() > 0
    assert expected.max() < 0.9
    np.testing.assert_allclose(rows[..., 5:], expected, rtol=1e-3)


def test_resave_keeps_the_payload(tmp_path: Path) -> None:
    cfg, weights = detector(tmp_path)
    again = tmp_path / "again.weights"
    libdarknet.resave(cfg, weights, again)
    assert again.read_bytes() == weights.read_bytes()
    floats = 5 * (1 + 27) + 6 * (4 + 45) + 14 * (1 + 6)
    assert again.stat().st_size == 20 + 4 * floats


@pytest.mark.parametrize("name", list(READERS))
def test_seconds_grow_with_the_work(tmp_path: Path, name: str) -> None:
    missing(READERS[name])
    cfg, weights = made(tmp_path, DETECTOR)
    large = tmp_path / "large.cfg"
    large.write_text(DETECTOR.replace("=13", "=416").replace("=17", "=416"))
    files = [(cfg, weights), (large, weights)]
    images = [random_input((3, 17, 13)), random_input((3, 416, 416))]
    for threads in (1, 2):
        less, more = READERS[name].race(files, images, 3, threads)
        assert len(less) == len(more) == 3
        assert 0 < min(less) < min(more)


@pytest.mark.parametrize("reader", READERS.values(), ids=list(READERS))
def test_loads_gives_the_readers_reason(tmp_path: Path, reader: Reader) -> None:
    missing(reader)
    cfg, weights = made(tmp_path, DETECTOR)
    assert reader.loads(cfg, weights) is None
    assert re.search("none.weights: .*No such file", str(reader.loads(cfg, tmp_path / "none.weights")))
    cfg.write_text(DETECTOR.replace("filters=14", "filters=16"))  # Darknet's assert aborts, OpenCV throws
    assert reader.loads(cfg, weights)


def test_a_crash_of_darknet_is_a_reader_error(tmp_path: Path) -> None:
    cfg = tmp_path / "net.cfg"
    cfg.write_text("width=3\n" + DETECTOR)
    with pytest.raises(ReaderError, match="ended by SIG"):
        libdarknet.outputs(cfg, None, random_input((1, 3, 17, 13)))


def test_only_a_line_feed_ends_a_line(tmp_path: Path) -> None:
    cfg = tmp_path / "net.cfg"
    cfg.write_text(CLASSIFIER.replace("[avgpool]", "# a\u2028[b] \v[c] \f[d] \r[e] \x85[f]\n[avgpool]"), newline="")
    found = libdarknet.outputs(cfg, None, random_input((1, 2, 7, 9)))
    assert [output.shape[1:] for output in found.values()] == [(4, 7, 9), (4, 1, 1), (5, 1, 1), (5, 1, 1)]


def test_darknets_own_reason_is_told(tmp_path: Path) -> None:
    cfg = tmp_path / "net.cfg"
    cfg.write_text(CLASSIFIER[CLASSIFIER.index("[convolutional]") :])
    with pytest.raises(ReaderError, match=r"First section must be \[net\] or \[network\]"):
        libdarknet.outputs(cfg, None, random_input((1, 2, 7, 9)))


def test_an_assertion_of_darknet_is_told(tmp_path: Path) -> None:
    cfg = tmp_path / "net.cfg"
    cfg.write_text(DETECTOR.replace("filters=14", "filters=15"))
    with pytest.raises(ReaderError, match=r"SIGABRT.*l\.outputs == params\.inputs"):
        libdarknet.outputs(cfg, None, random_input((1, 3, 17, 13)))


def test_an_input_of_the_wrong_size_is_refused(tmp_path: Path) -> None:
    cfg, weights = made(tmp_path, DETECTOR)
    with pytest.raises(ReaderError, match="3x13x13 has 507 values, the net takes 663"):
        libdarknet.outputs(cfg, weights, random_input((1, 3, 13, 13)))


def test_a_layer_without_a_map_is_refused(tmp_path: Path) -> None:
    cfg, weights = made(tmp_path, CLASSIFIER + "\n[softmax]\n")
    with pytest.raises(ReaderError, match=r"layer 3 \[softmax\] keeps no output"):
        libdarknet.outputs(cfg, weights, random_input((1, 2, 7, 9)), [3])
    with pytest.raises(ReaderError, match="no layer 9"):
        libdarknet.outputs(cfg, weights, random_input((1, 2, 7, 9)), [9])


def test_a_missing_library_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(libdarknet.VARIABLE, str(tmp_path / "none.so"))
    assert "none.so" in str(libdarknet.available())
    with pytest.raises(ReaderError, match=r"none\.so"):
        libdarknet.outputs(tmp_path / "net.cfg", None, random_input((1, 3, 17, 13)))
    other = tmp_path / "other.so"
    other.write_bytes(b"no library")
    monkeypatch.setenv(libdarknet.VARIABLE, str(other))
    assert libdarknet.available() is None
    assert "other.so" in str(libdarknet.loads(tmp_path / "net.cfg", None))


def test_workers_start_without_pytorch() -> None:
    """It takes seconds to load, in each of many processes."""
    source = "import sys, yoloprune.readers.process; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", source], check=False).returncode == 0
