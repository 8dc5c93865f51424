"""ONNX as users get it: `convert`, `export --onnx`, `verify A.onnx`, int8, and what is said where a package lacks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from tests.drawn import Bench, bench
from tests.formats.onnx_runs import outputs_in_onnxruntime
from tests.helpers import graph_of, worst
from tests.jobs import ana, export, prune
from yoloprune import cli
from yoloprune.darknet import fold
from yoloprune.darknet.dialect import ALEXEYAB
from yoloprune.darknet.model import Model, load
from yoloprune.darknet.network import build
from yoloprune.errors import InputError
from yoloprune.options import OnnxOptions
from yoloprune.steps import onnx_file
from yoloprune.steps.convert import convert
from yoloprune.steps.onnx_int8 import InOnnxruntime

onnx = pytest.importorskip("onnx", reason="the Python package onnx is not installed")
pytest.importorskip("onnxruntime", reason="the Python package onnxruntime is not installed")


@pytest.fixture
def made(one_thread: None, tmp_path: Path) -> Bench:
    return bench(tmp_path / "set")


def typed(*words: object, status: int = 0) -> dict[str, Any]:
    result = CliRunner().invoke(cli.app, [*map(str, words), "--json", "-"])
    assert result.exit_code == status, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_convert_and_verify(made: Bench, libdarknet: Path, tmp_path: Path) -> None:
    """What verify says of the same network, and of another one, by outputs of either kind."""
    other = tmp_path / "other.weights"
    content = np.frombuffer(made.weights.read_bytes(), np.uint8).copy()
    content[20:].view("<f4")[-1] += 0.1  # a weight of the last head
    other.write_bytes(content.tobytes())
    for more in ((), ("--onnx-decode",)):
        file = tmp_path / f"{len(more)}.onnx"
        found = typed("convert", made.cfg, made.weights, "-o", file, *more)
        assert found["files"] == {"onnx": str(file)}
        assert found["bytes"] == file.stat().st_size
        assert 0 < found["max_relative_diff"]["onnxruntime"] < 1e-5
        names = [output.name for output in onnx.load(file).graph.output]
        assert list(found["outputs"]) == names
        assert (names == ["boxes", "scores"]) == bool(more)
        verified = typed("verify", made.cfg, other if more else made.weights, file, status=1 if more else 0)
        assert {"yoloprune", "darknet", "opencv", "onnxruntime"} <= verified["max_relative_diff"].keys()
        assert verified["verified"] == (not more)
        assert (min(verified["max_relative_diff"].values()) > 1e-4) == bool(more)


def test_what_differs_is_not_written(made: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A conversion that is wrong by a little in one array leaves no file, and an old one as it was."""
    from yoloprune.formats import onnx as codec

    def wrong(arrays: Any, dialect: Any) -> Any:
        right = fold.folded_arrays(arrays, dialect)
        return {**right, "bias": right["bias"] + np.float32(1e-3)}

    monkeypatch.setattr(codec, "folded_arrays", wrong)
    out = tmp_path / "new" / "net.onnx"
    with pytest.raises(InputError, match=r"net\.onnx: not written: onnxruntime's outputs differ by [0-9.e-]+ of"):
        convert(made.cfg, made.weights, out)
    assert list(out.parent.iterdir()) == []
    out.write_bytes(b"old")
    with pytest.raises(InputError, match="not written"):
        convert(made.cfg, made.weights, out, force=True)
    assert out.read_bytes() == b"old"


def test_without_the_packages(made: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without onnxruntime it is said that nothing was checked, and 8 bits are refused; without onnx all of it."""
    missing = {"onnxruntime"}

    def installed(package: str, name: str) -> str | None:
        return f"the Python package {name} is not installed" if package in missing else None

    for module in (onnx_file, onnx_file.runtime):
        monkeypatch.setattr(module, "installed", installed)
    result = CliRunner().invoke(cli.app, ["convert", str(made.cfg), str(made.weights), "-o", str(tmp_path / "a.onnx")])
    assert result.exit_code == 0
    assert "NOT CHECKED: the Python package onnxruntime is not installed" in result.stdout
    assert convert(made.cfg, made.weights, tmp_path / "b.onnx").max_relative_diff is None
    with pytest.raises(InputError, match=r"onnxruntime is not installed; pip install 'yoloprune\[onnx\]'"):
        convert(made.cfg, made.weights, tmp_path / "c.onnx", OnnxOptions(int8=True), data=made.data)
    missing.add("onnx")
    with pytest.raises(InputError, match="package onnx is not installed"):
        convert(made.cfg, made.weights, tmp_path / "c.onnx")
    assert sorted(path.name for path in tmp_path.glob("*.onnx")) == ["a.onnx", "b.onnx"]


def test_bad_use_is_told(made: Bench, tmp_path: Path) -> None:
    garbled, rnn = tmp_path / "garbled.onnx", tmp_path / "rnn.cfg"
    garbled.write_bytes(b"no protobuf")
    rnn.write_text("[net]\nwidth=3\nheight=3\nchannels=1\n[rnn]\noutput=2\n[softmax]\n")
    none = tmp_path / "rnn.weights"
    none.write_bytes(bytes(80))
    pair = (made.cfg, made.weights)
    for words, said in [
        (("convert", *pair, "-o", tmp_path / "a.ypz"), "a.ypz: expected a name that ends in .onnx"),
        (("convert", *pair, "-o", garbled), "garbled.onnx: exists already; --force replaces it"),
        (("convert", rnn, none, "-o", tmp_path / "a.onnx"), "rnn.cfg:5: [rnn] layer 0: can't be converted to ONNX: it"),
        (("verify", *pair, garbled), "garbled.onnx: onnxruntime: "),
        (("verify", *pair, tmp_path / "none.onnx"), "none.onnx: expected a .onnx file, found none"),
        (("verify", *pair, garbled, made.weights), "garbled.onnx: expected nothing behind the .onnx file, found"),
        (("verify", *pair, made.cfg), "tiny.cfg: expected its .weights file behind it, found none"),
    ]:
        result = CliRunner().invoke(cli.app, [str(word) for word in words])
        assert result.exit_code == 2, words
        assert said in result.stderr, words
    assert not (tmp_path / "a.onnx").exists()


def test_export_beside_the_slim_files(made: Bench, tmp_path: Path) -> None:
    """In 8 bits with boxes: QDQ, its weights symmetric by filter, close to the float network of the exported files."""
    space = tmp_path / "space"
    ana(made.cfg, made.weights, made.data, workspace=space, images=4, calibrate=4, sparsities=(0.5,))
    prune(ratio=0.3, workspace=space, calibrate=4)
    with pytest.raises(InputError, match="--int8: expected --onnx"):
        export(tmp_path / "out", workspace=space, int8=True)
    words = ("--onnx", "--onnx-decode", "--int8", "--int8-images", 6)
    found = typed("export", "-w", space, "-o", tmp_path / "out", *words)
    file = Path(found["files"]["onnx"])
    assert file == tmp_path / "out" / "tiny-slim.onnx"
    assert list(found["onnx"]["outputs"]) == ["boxes", "scores"]
    assert found["onnx"]["max_relative_diff"]["onnxruntime"] < 1e-5
    assert set(found["onnx"]["int8"]) == {"map50_present", "ms"}
    assert all(each > 0 for each in found["onnx"]["int8"]["ms"].values())
    proto = onnx.load(file)
    onnx.checker.check_model(proto, full_check=True)
    exported = load(tmp_path / "out" / "tiny-slim.cfg", tmp_path / "out" / "tiny-slim.weights", ALEXEYAB)
    assert weights_in_8_bits(proto) == [layer.out.c for layer in exported.graph.layers if layer.sums_channels]
    x = random_images(exported)[:1]
    quantized = outputs_in_onnxruntime(proto, x)
    boxes, scores = onnx_file.expected(exported, x, decode=True)
    assert 0 < np.abs(quantized["scores"] - scores).mean() < 0.1 * np.abs(scores - scores.mean()).mean()
    assert np.abs(quantized["boxes"] - boxes).mean() < 0.1 * np.abs(boxes - boxes.mean((0, 1))).mean()


def weights_in_8_bits(proto: Any) -> list[int]:
    """For each weight of a convolution or connected layer the number of its scales; zero points are 0."""
    constants = {each.name: onnx.numpy_helper.to_array(each) for each in proto.graph.initializer}
    made = {node.output[0]: node for node in proto.graph.node}
    counts = []
    for node in proto.graph.node:
        if node.op_type in ("Conv", "Gemm"):
            weight, scale, zero = (constants[name] for name in made[node.input[1]].input)
            assert made[node.input[1]].op_type == "DequantizeLinear"
            assert weight.dtype == np.int8
            assert not zero.any()
            assert len(weight) == len(scale)
            counts.append(len(scale))
    return counts


def random_images(model: Model) -> np.ndarray:
    return np.random.default_rng(1).random((3, *model.graph.net.input), np.float32)


def test_accuracy_is_measured_on_what_onnxruntime_computes(made: Bench, tmp_path: Path) -> None:
    """The network that int8 is measured with gives the heads' outputs of the file, by the indexes of another graph."""
    model = load(made.cfg, made.weights, ALEXEYAB)
    front, end = made.cfg.read_text().rsplit("[convolutional]", 1)
    like = graph_of(f"{front}[empty]\n[convolutional]{end}")  # the head's index is one more
    file = tmp_path / "net.onnx"
    convert(made.cfg, made.weights, file)
    x = torch.from_numpy(random_images(model))
    with torch.inference_mode():
        found = InOnnxruntime(model, file, like)(x)
        expected = build(model)(x)
    assert list(found) == [index + 1 for index in expected]
    for output, right in zip(found.values(), expected.values(), strict=True):
        assert 0 < worst(output.numpy(), right.numpy()) < 1e-5
