"""Warnings of what was measured reach the screen, and programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.drawn import Bench, bench
from yoloprune import cli
from yoloprune.darknet import weights as weights_file
from yoloprune.darknet.dialect import ALEXEYAB
from yoloprune.darknet.model import load
from yoloprune.darknet.weights import Weights

NOTHING = "the original's accuracy is 0, so no pruning is seen to lose any: are weights, data and dialect right?"


@pytest.fixture
def blind(one_thread: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A network that finds nothing anywhere: every objectness is next to 0."""
    made = bench(tmp_path / "set")
    model = load(made.cfg, made.weights, ALEXEYAB)
    *before, head, yolo = model.weights.layers
    silent = {"weight": np.zeros_like(head["weight"]), "bias": np.full_like(head["bias"], -50)}
    weights = Weights(model.weights.header, (*before, silent, yolo))
    weights_file.write(made.weights, weights, model.graph.layers, force=True)
    monkeypatch.chdir(tmp_path)
    return made


def asked(*words: object) -> tuple[dict[str, Any], list[str]]:
    """The answer, and the warnings on stderr."""
    done = CliRunner().invoke(cli.app, [*map(str, words), "--json", "-"])
    assert done.exit_code == 0, done.output
    mark = "yoloprune: warning: "
    return json.loads(done.stdout), [
        line.removeprefix(mark) for line in done.stderr.splitlines() if line.startswith(mark)
    ]


def test_every_command_says_that_there_is_nothing_to_steer_by(blind: Bench) -> None:
    few = ["--calibrate", 0]
    for words in (
        ["ana", *blind.inputs, *few, "--sparsities", 0.5],
        ["prune", "--ratio", 0.2, *few, "--multiple", 1],
        ["run", *blind.inputs, *few, "--threshold", 0.1, "--epochs", 0.1, "-o", "slim", "-w", "other"],
    ):
        answer, warnings = asked(*words)
        assert NOTHING in answer["warnings"]
        assert NOTHING in warnings
