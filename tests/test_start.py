"""How little a command loads before its arguments are right: help and mistakes shall not wait for PyTorch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from yoloprune import choices, cli
from yoloprune.prune import cost
from yoloprune.prune.criteria import CRITERIA
from yoloprune.prune.patterns import Pooling
from yoloprune.prune.sparse_fit import WEIGHT_CRITERIA
from yoloprune.prune.weight_allocations import WEIGHT_ALLOCATIONS

ROOT = Path(__file__).resolve().parents[1]
HEAVY = {"torch", "numpy", "cv2", "matplotlib", "tqdm"}
COMMANDS = sorted(str(command.name) for command in cli.app.registered_commands)
PROGRAM = """
import json, sys
from yoloprune.__main__ import main
for words in json.loads(sys.stdin.read()):
    sys.argv[1:] = words
    try:
        main()
    except SystemExit as end:
        print("", json.dumps([end.code, sorted(name for name in sys.modules if "." not in name)]), sep="\\n")
"""
"""Each row of words one after the other, so that one process tells of many: what is loaded stays."""


def loaded(rows: list[list[str]], folder: Path) -> list[tuple[int, set[str]]]:
    """Exit status of each row of words, and what is loaded then."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps(rows), cwd=folder, capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    said = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    return [(status, set(modules)) for status, modules in said]


def test_help(tmp_path: Path) -> None:
    assert len(COMMANDS) >= 12
    rows = [["--help"], *([name, "--help"] for name in COMMANDS)]
    for row, (status, modules) in zip(rows, loaded(rows, tmp_path), strict=True):
        assert status == 0, row
        assert not modules & HEAVY, row


def test_mistakes(tmp_path: Path) -> None:
    (tmp_path / "options").write_text("images=two\n")
    (tmp_path / "there.json").write_text("{}")
    inputs = ["y.cfg", "y.weights"]
    rows = [
        ["nothing"],
        ["--nothing"],
        *([name, "--nothing"] for name in COMMANDS),
        ["ana"],
        ["stat"],
        ["run", *inputs, "-o", "slim"],
        ["ana", *inputs, "--images", "0"],
        ["ana", *inputs, "--images", "two"],
        ["ana", *inputs, "--config", "options"],
        ["ana", *inputs, "--config", "no-such-file"],
        ["ana", *inputs, "--criterion", "best"],
        ["ana", *inputs, "--dialect", "mine"],
        ["ana", *inputs, "--losses", "0.1,x"],
        ["ana", *inputs, "--grid", "--losses", "0.1"],
        ["ana", *inputs, "--no-compensate", "--bn-recalibrate"],
        ["ana", *inputs, "--json", "there.json"],
        ["prune", "--rule", "golden"],
        ["prune", "--objective", "beauty"],
        ["prune", "--threshold", "0.1", "--exclude", "9-3"],
        ["prune"],
        ["prune", "--threshold", "1", "--ratio", "0.5"],
        ["prune", "--threshold", "5"],
        ["prune", "--ratio", "0.5", "--relative"],
        ["run", *inputs, "-o", "slim", "--threshold", "2"],
        ["finetune", "--freeze", "all"],
        ["finetune", "--ema", "2"],
        ["detect", *inputs, "a.png", "-o", "boxes", "--thresh", "2"],
    ]
    for row, (status, modules) in zip(rows, loaded(rows, tmp_path), strict=True):
        assert status == 2, row
        assert not modules & HEAVY, row


def test_what_is_loaded_later_is_seen(tmp_path: Path) -> None:
    ((status, modules),) = loaded([["stat", "no.cfg"]], tmp_path)
    assert status == 2
    assert modules >= {"torch", "numpy"}


@pytest.mark.parametrize(
    ("named", "known"),
    [
        (choices.CHANNEL_CRITERIA, CRITERIA),
        (choices.WEIGHT_CRITERIA, WEIGHT_CRITERIA),
        (choices.DIVISIONS, WEIGHT_ALLOCATIONS),
        (choices.POOLINGS, get_args(Pooling)),
        (choices.OBJECTIVES, [*cost.PRICES, choices.LATENCY, choices.NONZERO, choices.BITS]),
    ],
)
def test_what_options_name_is_what_there_is(named: tuple[str, ...], known: object) -> None:
    assert list(named) == list(known)  # type: ignore[call-overload]
