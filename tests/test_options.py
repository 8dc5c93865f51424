"""Options as words: what another process is told, and what users are told to type, is what was meant."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from yoloprune import cli
from yoloprune.option import words_of
from yoloprune.options import AnalysisOptions, FinetuneOptions, Settings
from yoloprune.steps import ana as ana_step
from yoloprune.steps import finetune as finetune_step

ANALYSES = [
    AnalysisOptions(),
    AnalysisOptions(criterion="l1", calibrate=0, compensation="none", tolerances=(0.005, 0.25), seed=3),
    AnalysisOptions(granularity="block", block="1x16", block_pooling="max", only=("1x1", "7"), sparsities=(0.1, 0.5)),
    AnalysisOptions(compensation="batch norm"),
]
SETTINGS = [
    Settings(),
    Settings("pjreddie", True, "map75", 12, False, True),
    Settings(letterbox=False, images=1),
]
TRAININGS = [
    FinetuneOptions(epochs=0.5),
    FinetuneOptions(iterations=7, learning_rate=1e-5, batch=3, distill=True, labels=False, freeze=(0, 3), seed=9),
    FinetuneOptions(iterations=7, schedule="steps 0:0.1,1000:0.3", begin="2epochs", regrow=False, bf16=True, ema=0.5),
]


def told(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, words: list[str]) -> dict[str, Any]:
    """What a step is called with by the command line; it does nothing."""
    heard: dict[str, Any] = {}

    class Enough(Exception):  # noqa: N818 - no error
        pass

    def step(*values: Any, **named: Any) -> None:
        heard.update({type(value).__name__: value for value in (*values, *named.values())})
        raise Enough

    monkeypatch.setattr(module, name, step)
    result = CliRunner().invoke(cli.app, [name, *words], prog_name="yoloprune")
    assert isinstance(result.exception, Enough), result.output
    return heard


@pytest.mark.parametrize("options", ANALYSES)
@pytest.mark.parametrize("settings", SETTINGS)
def test_words_of_an_analysis(monkeypatch: pytest.MonkeyPatch, options: AnalysisOptions, settings: Settings) -> None:
    words = ["y.cfg", "y.weights", *words_of(settings), *words_of(options)]
    heard = told(monkeypatch, ana_step, "ana", words)
    assert heard["AnalysisOptions"] == options
    assert heard["Settings"] == settings


@pytest.mark.parametrize("options", TRAININGS)
def test_words_of_a_training(monkeypatch: pytest.MonkeyPatch, options: FinetuneOptions) -> None:
    assert told(monkeypatch, finetune_step, "finetune", words_of(options))["FinetuneOptions"] == options


def test_what_is_as_when_left_out_is_not_said() -> None:
    assert words_of(Settings()) == words_of(AnalysisOptions()) == []
    assert all(each.default is not None or each.name for each in fields(Settings))


def test_words_are_choices_in_any_letters(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    words = ["y.cfg", "y.weights", "--dialect", "PJReddie", "--metric", "MAP75", "--criterion", "L1"]
    heard = told(monkeypatch, ana_step, "ana", words)
    assert heard["Settings"] == Settings("pjreddie", metric="map75")
    assert heard["AnalysisOptions"].criterion == "l1"


def test_version_help_and_completion() -> None:
    runner = CliRunner()
    assert runner.invoke(cli.app, ["--version"]).stdout.startswith("yoloprune 0.")
    for words in (["-h"], ["prune", "-h"]):
        assert runner.invoke(cli.app, words).stdout == runner.invoke(cli.app, [*words[:-1], "--help"]).stdout
    assert "--install-completion" in runner.invoke(cli.app, ["-h"]).stdout
