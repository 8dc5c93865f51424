"""What comes next is a command that does: from an interrupted analysis to the slim files, each line typed as it is."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.drawn import trained
from yoloprune import cli
from yoloprune.progress import Progress
from yoloprune.readers import READERS
from yoloprune.steps import ana as ana_step
from yoloprune.steps import finetune as finetune_step


def typed(line: str, status: int = 0) -> str:
    program, *words = shlex.split(line)
    assert program == "yoloprune"
    result = CliRunner().invoke(cli.app, words, prog_name="yoloprune")
    assert result.exit_code == status, result.output
    return result.stdout


def next_of(shown: str) -> str:
    (line,) = (line for line in shown.splitlines() if line.startswith("Next: "))
    return line.removeprefix("Next: ")


def interrupted(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, stage: str, line: str) -> None:
    """Type a line, and Ctrl-C after the first group or update."""
    real = getattr(module, name)

    def stop(step: Progress) -> None:
        if step.stage == stage and step.done == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, name, lambda *values, **named: real(*values, **{**named, "progress": stop}))
        typed(line, status=130)


def test_every_line_leads_to_the_next(one_thread: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = trained(tmp_path / "the set")
    monkeypatch.chdir(tmp_path)
    ana = shlex.join(["yoloprune", "ana", *map(str, made.inputs), "--calibrate", "4", "-w", "my space"])

    def status() -> dict[str, Any]:
        return dict(json.loads(typed("yoloprune status -w 'my space' --json -")))

    interrupted(monkeypatch, ana_step, "ana", "ana", ana)
    found = status()
    assert found["analysis"]["of"] == 3
    assert 1 <= found["analysis"]["done"] < 3
    assert found["inputs"] == {"cfg": str(made.cfg), "weights": str(made.weights), "data": str(made.inputs[-1])}
    assert shlex.split(found["next"])[1:3] == ["prune", "--threshold"]
    shown = typed(ana)  # the same command goes on
    assert "Wrote my space/round-1/sensitivity.json" in shown
    assert status()["analysis"] == {"done": 3, "of": 3}
    shown = typed(next_of(shown).replace("0.01", "0.2"))
    assert next_of(shown) == "yoloprune finetune --epochs 20 -w 'my space'"
    short = next_of(shown).replace("--epochs 20", "--iterations 3")
    interrupted(monkeypatch, finetune_step, "finetune", "finetune", short)
    found = status()
    assert found["training"] == {"done": 1, "of": 3}
    assert found["next"] == short
    shown = typed(found["next"])
    assert status()["training"] is None
    assert status()["next"] == next_of(shown) == "yoloprune export -o slim -w 'my space'"
    shown = typed(next_of(shown) + " --ms --json slim.json")
    figures = json.loads(Path("slim.json").read_text())
    here = {name for name, reader in READERS.items() if reader.available() is None}
    assert set(figures["before"]["ms"]) == set(figures["after"]["ms"]) == here
    assert all(each > 0 for each in figures["after"]["ms"].values())
    verify = next_of(shown)
    assert shlex.split(verify)[1] == "verify"
    typed(verify)
    assert "my space/round-1/training: " in typed("yoloprune status -w 'my space'")
