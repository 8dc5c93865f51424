"""`run --layer-by-layer`: a round for each group, resumed at any point, with the same files in the end."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from tests.drawn import Bench, trained
from tests.helpers import random_model
from tests.jobs import run
from yoloprune import api, cli
from yoloprune.artefacts import sha256
from yoloprune.darknet import weights as weights_file
from yoloprune.darknet.dialect import ALEXEYAB
from yoloprune.darknet.model import load_graph
from yoloprune.detect.load import fit_for
from yoloprune.detect.pictures import Pictures
from yoloprune.errors import InputError
from yoloprune.options import AnalysisOptions, Settings
from yoloprune.progress import Progress
from yoloprune.prune.plan import Plan
from yoloprune.run_options import LayeredOptions
from yoloprune.steps import prune as prune_module
from yoloprune.steps.job import start_job
from yoloprune.steps.layer_by_layer import FILE, calibration
from yoloprune.steps.method import resolved
from yoloprune.steps.undo import undo
from yoloprune.train.run_folder import RunFolder
from yoloprune.workspace import Workspace

OPTIONS: dict[str, Any] = {
    "layer_by_layer": True, "criterion": "thinet", "keep": 0.5, "multiple": 1, "calibrate": 4, "epochs": 1.0,
    "group_epochs": 0.2, "batch": 8, "workers": 0, "places": 3,
}  # fmt: skip
GROUPS = ("0+1", "2", "4")


@pytest.fixture(scope="module", autouse=True)
def _without_charts() -> Iterator[None]:
    """They take longer than all else."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunFolder, "draw", lambda *_: None)
        yield


@pytest.fixture(scope="module")
def made(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return trained(tmp_path_factory.mktemp("set") / "set")


def go(made: Bench, folder: Path, **options: Any) -> Any:
    return run(made.cfg, made.weights, made.data, folder / "slim", workspace=folder / "space", **{**OPTIONS, **options})


@pytest.fixture(scope="module")
def whole(made: Bench, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    go(made, folder)
    return folder


def files(folder: Path) -> dict[str, str]:
    """All that a job leaves but checkpoints, logs and charts, whose bytes hold times."""
    found = [*folder.glob("slim/*"), *folder.glob("space/round-*/*.*"), folder / "space" / FILE]
    return {str(path.relative_to(folder)): sha256(path) for path in found}


def test_a_round_for_each_group_from_front_to_back(whole: Path) -> None:
    space = Workspace.load(whole / "space")
    assert [each.options.sparsity for each in space.rounds] == [0.5, 0.5, 0.5]
    assert {each.options.compensation for each in space.rounds} == {"scale"}
    for number in range(1, 4):
        pruned = Plan.load(space.plan_file(number)).pruned
        gone = {label: count for label, count in pruned.items() if count}
        assert gone == dict(zip(GROUPS[:number], (4, 6, 6)[:number], strict=True))
    trained_for = [each.finetuning for each in space.rounds if each.finetuning]
    assert [each.epochs for each in trained_for] == [0.2, 0.2, 1.0]


def test_killed_anywhere_it_ends_with_the_same_files(
    made: Bench, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the weights of the second round and its entry, then in its training, then in the last one."""

    def killed(*_: object, **__: object) -> None:
        raise SystemExit(9)

    def at(number: int, stage: str) -> Callable[[Progress], None]:
        seen = [0]

        def stop(step: Progress) -> None:
            seen[0] += step.stage == "group"
            if seen[0] == number and step.stage == stage and step.done:
                raise KeyboardInterrupt

        return stop

    with monkeypatch.context() as patch:
        real, calls = prune_module.weights_file.write, []

        def write(file: Path, *rest: Any, **how: Any) -> None:
            real(file, *rest, **how)
            calls.append(file)
            if sum(each.name == "pruned.weights" for each in calls) == 2:
                raise SystemExit(9)

        patch.setattr(prune_module.weights_file, "write", write)
        with pytest.raises(SystemExit):
            go(made, tmp_path)
    assert len(Workspace.load(tmp_path / "space").rounds) == 1
    for number in (2, 3):
        with pytest.raises(KeyboardInterrupt):
            go(made, tmp_path, progress=at(number, "finetune"))
        assert len(Workspace.load(tmp_path / "space").rounds) == number
    go(made, tmp_path)
    assert files(tmp_path) == files(whole)
    undo(tmp_path / "space")
    go(made, tmp_path, force=True)
    assert files(tmp_path) == files(whole)


def test_a_dry_run_says_what_would_stay_and_writes_nothing(made: Bench, tmp_path: Path) -> None:
    words = ["run", *made.inputs, "--layer-by-layer", "--keep", "0.6", "--exclude", "2", "-o", str(tmp_path / "slim")]
    words += ["-w", str(tmp_path / "space"), "--dry-run", "--json", "-"]
    result = CliRunner().invoke(cli.app, words, prog_name="yoloprune")
    assert result.exit_code == 0, result.stderr
    # Kept counts are multiples of 4: of the 8 channels of 0+1 three could go, so none does, of the 12 of 4 four.
    found = [(each["group"], each["channels"], each["kept"]) for each in json.loads(result.stdout)["groups"]]
    assert found == [("4", 12, 8)]
    assert not list(tmp_path.iterdir())


def test_every_criterion_goes_through_and_a_ratio_is_reached(made: Bench, tmp_path: Path) -> None:
    done = go(made, tmp_path, criterion="elimination", keep=None, ratio=0.5)
    assert 1 - done.after.bflops / done.before.bflops >= 0.5
    assert {each.options.compensation for each in done.workspace.rounds} == {"least squares"}


def test_other_options_are_refused_where_rounds_are_there(made: Bench, whole: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"was begun with layered .*'places': 3.* -w names another"):
        run(made.cfg, made.weights, made.data, tmp_path, workspace=whole / "space", **{**OPTIONS, "places": 4})
    (tmp_path / "space").mkdir()
    about = json.loads((whole / "space" / FILE).read_text())
    assert about["counts"] == {"0+1": 4, "2": 6, "4": 6}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"ratio": 0.5}, "expected one of --keep and --ratio"),
        ({"keep": 50.0}, "--keep: expected a share between 0 and 1, found 50; did you mean 0.5"),
        ({"layer_by_layer": False}, "--keep, .*: expected --layer-by-layer"),
        ({"rounds": 3}, "--rounds: expected no such thing"),
        ({"schedule": "log"}, "--schedule: expected no such thing"),
        ({"granularity": "weight", "criterion": "magnitude"}, "--granularity: expected no such thing"),
        ({"criterion": "thinet", "calibrate": 0}, "expected calibration images"),
        ({"exclude": (3,)}, "--exclude: layer 3 makes no prunable channels"),
        ({"keep": 0.99}, "no group is so large"),
    ],
)
def test_what_it_cannot_do_is_refused(made: Bench, tmp_path: Path, options: dict[str, Any], expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        go(made, tmp_path, **options)
    assert not list(tmp_path.glob("space/round-*"))


def test_scaling_is_for_every_pruning(made: Bench, tmp_path: Path) -> None:
    how: dict[str, Any] = {"criterion": "thinet", "compensation": "scale", "calibrate": 4}
    space = tmp_path / "space"
    api.ana(made.cfg, made.weights, made.data, workspace=space, sparsities=(0.5,), **how)
    done = api.prune(sparsity=0.5, multiple=1, workspace=space)
    assert done.after.bflops < done.before.bflops
    assert Workspace.load(space).last.options.compensation == "scale"
    with pytest.raises(InputError, match="--scale: expected --granularity channel"):
        api.prune(sparsity=0.5, granularity="weight", compensation="scale", workspace=space, force=True)


CLASSIFIER = (
    "[net]\nbatch=4\nsubdivisions=1\nwidth=12\nheight=12\nchannels=3\nlearning_rate=0.01\nmax_batches=9\n"
    "[convolutional]\nbatch_normalize=1\nfilters=8\nsize=3\npad=1\nactivation=leaky\n"
    "[maxpool]\nsize=2\nstride=2\n[connected]\noutput=10\nactivation=leaky\n"
    "[connected]\noutput=3\nactivation=linear\n[softmax]\n"
)


def test_of_a_classifier_so_many_pictures_of_each_class_are_seen(one_thread: None, tmp_path: Path) -> None:
    """The first of each in the list; a class with fewer gives all, and one that is nobody's none."""
    rng = np.random.default_rng(1)
    listed = ["a0", "b0", "a1", "a2", "x0", "c0", "b1", "c1", "b2", "a3"]
    chosen = [name + "_kind.png" for name in ("a0", "b0", "a1", "c0", "b1", "c1")]
    for name in listed:
        assert cv2.imwrite(str(tmp_path / f"{name}_kind.png"), rng.integers(0, 256, (13, 15, 3), np.uint8))
    for split in ("train", "valid"):
        (tmp_path / f"{split}.txt").write_text("".join(f"{name}_kind.png\n" for name in listed))
    (tmp_path / "labels.txt").write_text("a\nb\nc\n")
    names = ["0_kind", "1_kind", "2_kind"]
    (tmp_path / "set.names").write_text("\n".join(names))
    (tmp_path / "set.data").write_text(
        "classes=3\ntrain=train.txt\nvalid=valid.txt\nlabels=labels.txt\nnames=set.names\n"
    )
    (tmp_path / "net.cfg").write_text(CLASSIFIER)
    model = random_model(load_graph(tmp_path / "net.cfg", ALEXEYAB), 2)
    weights_file.write(tmp_path / "net.weights", model.weights, model.graph.layers)
    inputs = (tmp_path / "net.cfg", tmp_path / "net.weights", tmp_path / "set.data")
    job = start_job(*inputs, tmp_path / "none", Settings(), device="cpu", force=False)
    found = torch.cat(list(calibration(job, resolved(AnalysisOptions()), LayeredOptions(class_images=2))))
    paths = tuple(tmp_path / name for name in chosen)
    expected = torch.cat([each.inputs for each in Pictures(paths, model.graph, fit_for(model.graph, None))])
    assert torch.equal(found, expected)
    done = run(*inputs, tmp_path / "slim", workspace=tmp_path / "space", **{**OPTIONS, "class_images": 2})
    assert len(done.workspace.rounds) == 2
    assert done.after.parameters < done.before.parameters
