"""ONNX as users get it: `convert`, `export --onnx`, `verify A.onnx`, int8, and what is said where a package lacks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.drawn import Bench, bench
from yoloprune import cli
from yoloprune.darknet import fold
from yoloprune.errors import InputError
from yoloprune.options import OnnxOptions
from yoloprune.steps import onnx_file
from yoloprune.steps.convert import convert

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
