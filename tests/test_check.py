"""`check` on the command line: its answer, its exit status, and files that nobody reads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from tests.drawn import bench
from tests.helpers import worst
from yoloprune import cli
from yoloprune.compat import PROFILES
from yoloprune.darknet.dialect import ALEXEYAB
from yoloprune.darknet.model import load
from yoloprune.darknet.network import build

CFG = "[net]\nwidth=32\nheight=32\nchannels=3\n[convolutional]\nfilters=2\nsize=1\nactivation=mish\n"


def run(*words: object) -> Result:
    return CliRunner().invoke(cli.app, ["check", *map(str, words)])


@pytest.fixture
def cfg(tmp_path: Path) -> Path:
    path = tmp_path / "a.cfg"
    path.write_text(CFG)
    return path


def test_json_and_status(cfg: Path) -> None:
    answer = run(cfg, "--json", "-")
    finding = {
        "line": 8,
        "layer": 0,
        "key": "activation",
        "reader": "pjreddie",
        "severity": "differs",
        "message": "ReLU instead of mish",
    }
    assert (answer.exit_code, json.loads(answer.stdout)) == (0, {"findings": [finding]})
    cfg.write_text(CFG + "fliters=3\n")
    answer = run(cfg, "--json", "-", "--for", "hank-ai")
    assert answer.exit_code == 1
    assert [each["severity"] for each in json.loads(answer.stdout)["findings"]] == ["break"]
    assert run(cfg, "--for", "opencv").exit_code == 0
    answer = run(cfg, "--json", "-", "--for", "opencv5")
    assert (answer.exit_code, len(json.loads(answer.stdout)["findings"])) == (1, 1)
    assert "needs pad=" in run(cfg, "--for", "pytorch-yolov4").stdout


def test_table_joins_readers(cfg: Path) -> None:
    cfg.write_text(CFG.replace("mish", "relu6"))
    lines = run(cfg).stdout.splitlines()
    assert sum("break" in line for line in lines) == 1
    cfg.write_text(CFG + "[soft]\n[dropout]\n")
    assert "nothing found" in run(cfg, "--for", "alexeyab").stdout
    cfg.write_text(CFG.replace("[conv", "[Conv"))
    assert any("pjreddie, alexeyab, hank-ai, opencv" in line for line in run(cfg).stdout.splitlines())


def test_weights_and_a_cfg_that_yoloprune_refuses(cfg: Path, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(bytes(3))
    cfg.write_text("x=1\n" + CFG)
    answer = run(cfg, tmp_path / "a.bin", "--for", "hank-ai")
    assert answer.exit_code == 1
    for words in ("before the first section", "silently not loaded", "too short for a header"):
        assert words in answer.stdout


def test_zeros_are_a_note_and_no_break(cfg: Path, tmp_path: Path) -> None:
    """Two biases and 2 x 3 weights, three of them 0; readers that say the same share a line."""
    cfg.write_text(CFG.replace("mish", "linear"))
    floats = np.array([0.1, 0.2, 0, 0.31, 0, 0.4, 0, 0.57], "<f4")
    (tmp_path / "a.weights").write_bytes(np.array([0, 2, 5, 0, 0], "<i4").tobytes() + floats.tobytes())
    answer = run(cfg, tmp_path / "a.weights")
    assert answer.exit_code == 0
    (line,) = (line for line in answer.stdout.splitlines() if "note" in line)
    assert "pjreddie, alexeyab, hank-ai, opencv" in line
    found = json.loads(run(cfg, tmp_path / "a.weights", "--json", "-").stdout)["findings"]
    assert [(each["reader"], each["severity"], each["line"]) for each in found] == [
        (name, "note", None) for name in PROFILES
    ]
    assert all("50.0% of the weights are 0, a tenth or more in 1 of 1 layers" in each["message"] for each in found)
    assert run(cfg, tmp_path / "a.weights", "--for", "ncnn").exit_code == run(cfg, "--for", "ncnn").exit_code


@pytest.mark.parametrize(
    ("text", "words", "expected"),
    [
        (
            CFG,
            ["--for", "tensorflow"],
            "--for: expected one of pjreddie, alexeyab, hank-ai, opencv, ncnn, tensorrt_demos",
        ),
        (CFG, ["no.weights"], "no.weights: cannot be read"),
        ("", [], "expected [net] first"),
        ("\0", [], "NUL"),
    ],
)
def test_bad_use(cfg: Path, text: str, words: list[str], expected: str) -> None:
    cfg.write_text(text)
    answer = run(cfg, *words)
    assert (answer.exit_code, answer.stdout) == (2, "")
    assert expected in answer.stderr


def test_bytes_that_are_no_text(cfg: Path) -> None:
    cfg.write_bytes(CFG.encode() + b"\xff=1\n[\xfe]\n")
    assert run(cfg).exit_code == 1
    assert run(cfg, "--json", "-").exit_code == 1


def test_export_for_a_reader(one_thread: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = bench(tmp_path / "set")
    monkeypatch.chdir(tmp_path)
    invoke = CliRunner().invoke
    for words in (
        ["ana", *made.inputs, "--calibrate", "0", "--images", "2"],
        ["prune", "--ratio", "0.2", "--calibrate", "0"],
    ):
        assert invoke(cli.app, [*words, "--quiet"]).exit_code == 0
    plain = files(invoke(cli.app, ["export", "-o", "plain", "--json", "-"]))
    x = torch.from_numpy(np.random.default_rng(1).random((2, 3, 64, 64), np.float32))
    expected = run_net(*plain, x)
    for reader in (*PROFILES, "ncnn"):
        cfg, weights = files(invoke(cli.app, ["export", "-o", reader, "--for", reader, "--fold-bn", "--json", "-"]))
        checked = run(cfg, weights, "--for", reader, "--json", "-")
        assert checked.exit_code == 0
        found = [each for each in json.loads(checked.stdout)["findings"] if each["severity"] != "ignored"]
        assert [each["message"][:13] for each in found] == (["finds nothing"] if reader == "ncnn" else [])
        assert worst(run_net(cfg, weights, x), expected) < 1e-5  # float32 weights, folded
    for reader, why in {
        "tensorflow": "--for: expected one of",
        "pytorch-yolov4": "can't be written for pytorch-YOLOv4",
    }.items():
        refused = invoke(cli.app, ["export", "-o", "out", "--for", reader])
        assert (refused.exit_code, Path("out").exists()) == (2, False)
        assert why in refused.stderr


def files(answer: Result) -> tuple[Path, Path]:
    assert answer.exit_code == 0, answer.output
    written = json.loads(answer.stdout)["files"]
    return Path(written["cfg"]), Path(written["weights"])


def run_net(cfg: Path, weights: Path, x: torch.Tensor) -> np.ndarray:
    model = load(cfg, weights, ALEXEYAB)
    with torch.inference_mode():
        return build(model)(x, want=model.graph.head_inputs)[model.graph.head_inputs[0]].numpy()
