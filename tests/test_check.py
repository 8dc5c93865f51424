"""`check` on the command line: its answer, its exit status, and files that nobody reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from yoloprune import cli

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


@pytest.mark.parametrize(
    ("text", "words", "expected"),
    [
        (CFG, ["--for", "tensorflow"], "--for: expected one of pjreddie, alexeyab, hank-ai, opencv"),
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
