"""Jobs that prune weights, blocks and n of every m: by what they lose, and as prescribed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from typer.testing import CliRunner

from tests.drawn import Bench, bench
from tests.jobs import ana, export, prune, run
from yoloprune import cli
from yoloprune.artefacts import sha256
from yoloprune.darknet.dialect import ALEXEYAB, PJREDDIE
from yoloprune.darknet.model import Model, load
from yoloprune.darknet.network import build
from yoloprune.errors import InputError
from yoloprune.options import FinetuneOptions
from yoloprune.prune.channel_units import ChannelUnits
from yoloprune.prune.weight_units import WeightUnits
from yoloprune.readers import READERS
from yoloprune.steps import run as run_module
from yoloprune.steps.finetune import finetune
from yoloprune.steps.job import open_job
from yoloprune.workspace import Workspace

WEIGHTS = {"0": 216, "2": 96, "4": 1296, "6": 168}
"""Of the layers that sum over channels."""


@pytest.fixture
def made(one_thread: None, tmp_path: Path) -> Bench:
    return bench(tmp_path / "set")


def started(made: Bench, space: Path, **options: Any) -> Path:
    """A workspace with an analysis of one point for each layer."""
    ana(made.cfg, made.weights, made.data, workspace=space, **{"calibrate": 4, "sparsities": (0.5,)} | options)
    return space


def weights_of(model: Model) -> dict[str, NDArray[np.float32]]:
    """Of the layers that can lose weights."""
    return {label: model.weights.layers[int(label)]["weight"] for label in WEIGHTS}


def obeys(pattern: str, kept: NDArray[np.bool_]) -> bool:
    """Whether each block is whole or empty, or each four neighbouring channels hold two at the most."""
    if pattern == "2:4":
        channels = np.moveaxis(kept, 1, -1).reshape(-1, kept.shape[1])
        parts = np.pad(channels, ((0, 0), (0, -channels.shape[1] % 4))).reshape(-1, 4)
        return bool((parts.sum(1) <= 2).all())
    height, width = map(int, pattern.split("x"))
    rows = kept.reshape(len(kept), -1)
    return all(
        len(np.unique(rows[top : top + height, left : left + width])) == 1
        for top in range(0, rows.shape[0], height)
        for left in range(0, rows.shape[1], width)
    )


@pytest.mark.parametrize("pattern", ["1x2", "4x1", "1x16", "2:4"])
@pytest.mark.parametrize("calibrate", [0, 4])
def test_every_block_obeys_in_the_exported_file(made: Bench, tmp_path: Path, pattern: str, calibrate: int) -> None:
    said = {"n_of_m": pattern} if ":" in pattern else {"block": pattern}
    space = started(made, tmp_path / "space", calibrate=calibrate, **said)
    done = prune(sparsity=0.5, calibrate=calibrate, workspace=space)
    finetune(FinetuneOptions(iterations=1, workers=0), workspace=space)
    exported = export(tmp_path / "slim", workspace=space)
    for label, array in weights_of(load(exported.cfg, exported.weights, ALEXEYAB)).items():
        assert obeys(pattern, array != 0), label
        share = np.count_nonzero(array) / array.size
        assert share <= 0.7 if pattern == "2:4" else share == pytest.approx(0.5, abs=16 / array.size + 0.06)
    assert done.after.nonzero < done.original.nonzero
    assert exported.after.parameters == exported.before.parameters


def outputs(model: Model, x: torch.Tensor) -> list[torch.Tensor]:
    with torch.inference_mode():
        found = build(model)(x, model.graph.head_inputs)
    return [found[index] for index in model.graph.head_inputs]


def test_channels_first_then_weights(made: Bench, tmp_path: Path) -> None:
    """The slim network keeps the zeros; it computes what the masked one does, in stock Darknet too."""
    space = started(made, tmp_path / "space")
    prune(sparsity=0.25, multiple=1, workspace=space)
    finetune(FinetuneOptions(iterations=1, workers=0), workspace=space)
    first = open_job(space)
    assert isinstance(first.units, ChannelUnits)
    done = prune(granularity="weight", sparsity=0.6, workspace=space)
    assert isinstance(done.units, WeightUnits)
    assert np.array_equal(done.units.channels.keep, first.units.keep)
    assert done.after.parameters == done.before.parameters < done.original.parameters
    assert done.after.nonzero < done.before.nonzero
    for label, count in done.units.count().items():  # what went with channels counts
        assert count == int(0.6 * WEIGHTS[label])
    finetune(FinetuneOptions(iterations=1, workers=0), workspace=space)
    exported = export(tmp_path / "slim", workspace=space)
    masked, slim = open_job(space).model, load(exported.cfg, exported.weights, ALEXEYAB)
    x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    for a, b in zip(outputs(masked, x), outputs(slim, x), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)  # float32 sums in another order
    zeros = sum(int((array == 0).sum()) for array in weights_of(slim).values())
    assert 0.2 < zeros / sum(array.size for array in weights_of(slim).values()) < 0.5  # the others went with channels
    if READERS["darknet"].available() is None:
        heads = slim.graph.outputs
        theirs = READERS["darknet"].head_inputs(exported.cfg, exported.weights, x[:1].numpy(), heads)
        stock = load(exported.cfg, exported.weights, PJREDDIE)
        for head, ours in zip(heads, outputs(stock, x[:1]), strict=True):
            np.testing.assert_allclose(theirs[head].ravel(), ours.numpy().ravel(), rtol=1e-4, atol=1e-5)


def test_weights_by_what_they_lose(made: Bench, tmp_path: Path) -> None:
    space = started(made, tmp_path / "space", granularity="weight", tolerances=(0.05,), sparsities=None)
    known = open_job(space)
    assert known.units.name == "channel"  # nothing is pruned yet
    done = prune(ratio=0.5, workspace=space)
    assert done.threshold is not None
    gone = sum(done.units.count().values())
    assert gone >= 0.5 * sum(WEIGHTS.values())
    trained = finetune(FinetuneOptions(iterations=1, workers=0), workspace=space)
    assert trained.after.nonzero <= done.after.nonzero
    with pytest.raises(InputError, match="--objective bflops: expected --granularity channel, found weight"):
        prune(ratio=0.6, objective="bflops", workspace=space)


@pytest.mark.parametrize("divide", ["global", "lamp", "erk"])
def test_a_share_of_all_weights(made: Bench, tmp_path: Path, divide: str) -> None:
    space = started(made, tmp_path / "space", calibrate=0, granularity="weight")
    goal: dict[str, Any] = {"sparsity": 0.7, "divide": divide}
    done = prune(calibrate=0, workspace=space, **{"global_sparsity": 0.7} if divide == "global" else goal)
    counts = done.units.count()
    assert sum(counts.values()) == pytest.approx(0.7 * sum(WEIGHTS.values()), abs=4)
    if divide == "global":
        original = weights_of(load(made.cfg, made.weights, ALEXEYAB))
        least = np.sort(np.abs(np.concatenate([array.ravel() for array in original.values()])))[sum(counts.values())]
        assert counts == {label: int((np.abs(array) < least).sum()) for label, array in original.items()}


@pytest.mark.parametrize(
    ("text", "least"),
    [
        ("0.1", lambda label, array: 0.1),
        ("0.7std", lambda label, array: 0.7 * array.std(dtype=np.float64)),
        ("2:0.2,4:1std", lambda label, array: {"2": 0.2, "4": array.std(dtype=np.float64)}.get(label, 0)),
    ],
)
def test_below_a_magnitude(made: Bench, tmp_path: Path, text: str, least: Any) -> None:
    space = started(made, tmp_path / "space", calibrate=0, granularity="weight")
    done = prune(magnitude=text, calibrate=0, workspace=space)
    original = weights_of(load(made.cfg, made.weights, ALEXEYAB))
    pruned = weights_of(load(made.cfg, done.weights, ALEXEYAB))
    for label, array in original.items():
        expected = np.where(np.abs(array) < least(label, array), 0, array)
        assert np.array_equal(pruned[label], expected), label


@pytest.mark.parametrize(
    ("only", "layers"),
    [(("1x1",), {"2", "6"}), (("3x3", "6"), {"0", "4", "6"}), (("convolutional",), set(WEIGHTS)), (("4",), {"4"})],
)
def test_only_some_layers(made: Bench, tmp_path: Path, only: tuple[str, ...], layers: set[str]) -> None:
    space = started(made, tmp_path / "space", calibrate=0, granularity="weight", only=only)
    done = prune(sparsity=0.5, calibrate=0, exclude=(0,) if "0" in layers else None, workspace=space)
    assert {label for label, count in done.units.count().items() if count} == layers - {"0"}
    assert done.units.count().keys() == layers


@pytest.mark.parametrize(
    ("analysis", "goal", "expected"),
    [
        ({"granularity": "weight"}, {"sparsity": 0.5, "ratio": 0.5}, "expected one of --threshold, --ratio"),
        ({"granularity": "weight"}, {"sparsity": 1.5}, "--sparsity: expected a share between 0 and 1, found 1.5; did"),
        ({"granularity": "weight"}, {"magnitude": "a"}, "--magnitude: expected a magnitude like 0.01 or 0.7std, or"),
        ({"granularity": "weight"}, {"magnitude": "0.1,0.2"}, "--magnitude: expected a magnitude like"),
        (
            {"granularity": "weight"},
            {"magnitude": "1:0.1"},
            "--magnitude: layer 1 has no weights that can go (expected",
        ),
        ({"granularity": "weight"}, {"ratio": 0.5, "divide": "erk"}, "--divide erk: expected --sparsity"),
        ({"granularity": "weight"}, {"sparsity": 0.5, "criterion": "l1"}, "--criterion: expected of --granularity we"),
        ({"granularity": "weight"}, {"sparsity": 0.5, "exclude": (1,)}, "--exclude: layer 1 has no prunable weights"),
        (
            {},
            {"global_sparsity": 0.5},
            "--global-sparsity: expected of channels --criterion bn-scale, found l1",
        ),
        ({}, {"sparsity": 0.5, "divide": "lamp"}, "--divide lamp: expected --granularity weight, block or n:m"),
        ({}, {"magnitude": "0.1"}, "--magnitude: expected --granularity weight, found channel"),
        (
            {},
            {"sparsity": 0.5, "only": ("1x1",)},
            "--only: expected --granularity weight, block, n:m or bits, found channel",
        ),
        ({}, {"sparsity": 0.5, "objective": "nonzero"}, "--objective nonzero: expected --granularity weight"),
        ({}, {"sparsity": 0.5, "block": "1x2", "n_of_m": "2:4"}, "--block: expected --granularity block, found chann"),
        ({}, {"sparsity": 0.5, "block": "1x"}, "--block: expected 1x2, filters by columns, found '1x'"),
        ({}, {"sparsity": 0.5, "block": "1x1"}, "--block: expected at least two weights, found 1x1"),
        ({}, {"sparsity": 0.5, "n_of_m": "4:2"}, "--n-of-m: expected fewer that stay than there are, like 2:4, found"),
        ({}, {"sparsity": 0.5, "granularity": "n:m", "block": "1x2"}, "--block: expected --granularity block, found n"),
        ({}, {"sparsity": 0.5, "granularity": "weight", "only": ("5x5",)}, "--only: expected some of convolutional"),
        ({}, {"sparsity": 0.5, "block": "1x2", "block_pooling": "max", "criterion": "alps"}, "--block-pooling max: ex"),
    ],
)
def test_what_can_not_be_is_refused(
    made: Bench, tmp_path: Path, analysis: dict[str, Any], goal: dict[str, Any], expected: str
) -> None:
    calibrate = 4 if goal.get("criterion") == "alps" else 0
    space = started(made, tmp_path / "space", calibrate=calibrate, **analysis)
    with pytest.raises(InputError) as refused:
        prune(**{"calibrate": calibrate, "workspace": space} | goal)
    assert expected in str(refused.value)
    assert not Workspace.load(space).rounds


def test_rounds_of_growing_sparsity(made: Bench, tmp_path: Path) -> None:
    done = run(
        made.cfg, made.weights, made.data, tmp_path / "slim", round_sparsities=(0.3, 0.5, 0.6), granularity="weight",
        epochs=0.2, workers=0, calibrate=4, workspace=tmp_path / "space",
    )  # fmt: skip
    assert [each.options.sparsity for each in done.workspace.rounds] == [0.3, 0.5, 0.6]
    assert [each.threshold for each in done.workspace.rounds] == [None] * 3
    counts = open_job(tmp_path / "space").units.count()
    assert counts == {label: int(0.6 * size + 1e-9) for label, size in WEIGHTS.items()}


def test_a_round_that_does_not_win_back_is_taken_back(
    made: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here training leaves the second round 0.3 under the original; the round before stays."""

    def trained(options: FinetuneOptions, *, workspace: Path, **others: Any) -> None:
        finetune(options, workspace=workspace, **others)
        known = Workspace.load(workspace)
        assert known.original is not None
        accuracy = known.original.accuracy - (0.3 if known.last.options.sparsity == 0.6 else 0.0)
        known.with_round(replace(known.last, finetuned=replace(known.original, accuracy=accuracy))).save()

    monkeypatch.setattr(run_module, "finetune", trained)
    options: dict[str, Any] = {"granularity": "weight", "epochs": 0.1, "workers": 0, "calibrate": 0, "final_loss": 0.2}
    files = (made.cfg, made.weights, made.data)
    done = run(*files, tmp_path / "a", round_sparsities=(0.3, 0.6, 0.8), workspace=tmp_path / "space", **options)
    assert [each.options.sparsity for each in done.workspace.rounds] == [0.3]
    assert any("1 of 3 rounds: round 2 still loses 0.3000 after its training" in each for each in done.cautions)
    assert not (tmp_path / "space" / "round-2" / "plan.json").exists()
    with pytest.raises(InputError, match="round 1 still loses"):
        run(*files, tmp_path / "b", round_sparsities=(0.6,), workspace=tmp_path / "none", **options)
    assert not list((tmp_path / "b").iterdir())


def test_killed_at_any_moment_it_ends_as_undisturbed(made: Bench, tmp_path: Path) -> None:
    """kill -9 while `run` prunes weights, by a schedule and in rounds, and again until it is through."""

    def command(space: str) -> list[str]:
        words = [
            *("run", made.cfg, made.weights, "--data", made.data, "-o", tmp_path / f"{space}-slim"),
            *("-w", tmp_path / space, "--granularity", "weight", "--sparsity", "0.4,0.7", "--calibrate", 4),
            *("--epochs", 1.5, "--workers", 0, "--schedule", "polynomial", "--every", 2, "--force", "--quiet"),
        ]
        return [sys.executable, "-m", "yoloprune", *map(str, words)]

    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    drawn = random.Random(4)
    begun = time.monotonic()
    subprocess.run(command("whole"), check=True, env=environment)
    whole = time.monotonic() - begun
    for _ in range(2):
        with subprocess.Popen(command("killed"), env=environment) as process:
            try:
                process.wait(drawn.uniform(0.3, 0.9) * whole)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
    subprocess.run(command("killed"), check=True, env=environment)
    files = [sorted((tmp_path / f"{space}-slim").glob("*.weights")) for space in ("whole", "killed")]
    assert sha256(files[0][0]) == sha256(files[1][0])


def test_as_typed(made: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def typed(*words: object) -> dict[str, Any]:
        result = CliRunner().invoke(cli.app, [*map(str, words), "--json", "-"])
        assert result.exit_code == 0, result.stderr
        found: dict[str, Any] = json.loads(result.stdout)
        return found

    files = (made.cfg, made.weights, "--data", made.data, "--calibrate", 4, "--sparsities", 0.5)
    found = typed("ana", *files, "--granularity", "weight", "--only", "1x1,4", "--fast")
    assert {each["group"]: each["weights"] for each in found["groups"]} == {"2": 96, "4": 1296, "6": 168}
    ahead = typed("prune", "--magnitude", "2:0.1,4:0.7std", "--criterion", "magnitude", "--dry-run")
    assert ahead["threshold"] is None
    done = typed("prune", "--global-sparsity", 0.5)
    assert done["after"]["nonzero"] < done["before"]["nonzero"]
    assert done["after"]["effective_bflops"] < done["before"]["effective_bflops"]
    typed("finetune", "--iterations", 4, "--workers", 0, "--schedule", "steps 0:0.5,2:0.8", "--end", 3, "--no-regrow")
    shown = typed("status")["rounds"][0]
    assert shown["options"]["criterion"] == "sparsegpt"
    assert shown["finetuned"]["nonzero"] < shown["before"]["nonzero"]
    for words, expected in (
        (["prune", "--fast", "--criterion", "alps", "--sparsity", 0.6], "expected --criterion or --fast, found both"),
        (["prune", "--block", "1x2", "--sparsity", 0.6], "--granularity block: weight --only 1x1,4 is pruned"),
        (["prune", "--only", ",", "--sparsity", 0.6], "--only: expected a list like 1x1,connected, found ','"),
        (
            ["run", *files[:4], "-o", "out", "--threshold", "0.1", "--sparsity", "0.1"],
            "one of --threshold, --total-loss, --ratio",
        ),
        (["run", *files[:4], "-o", "out", "--sparsity", "a"], "--sparsity: expected numbers like 0.01,0.02, found 'a'"),
        (
            ["run", *files[:4], "-o", "out", "--sparsity", "50"],
            "--sparsity: expected a share between 0 and 1, found 50",
        ),
        (["run", *files[:4], "-o", "out", "--sparsity", "0.1,0.2", "--rounds", 3], "--rounds 3: expected 2, as many"),
    ):
        result = CliRunner().invoke(cli.app, [*map(str, words)])
        assert result.exit_code == 2
        assert expected in " ".join(result.stderr.split())
