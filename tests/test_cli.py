"""Every command from end to end on a small network, as a user types it."""

from __future__ import annotations

import configparser
import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from tests.drawn import Bench, fingerprint, trained
from tests.helpers import graph_of, random_model
from yoloprune import cli
from yoloprune.darknet import weights as weights_file
from yoloprune.darknet.data import read_data
from yoloprune.darknet.dialect import ALEXEYAB
from yoloprune.darknet.model import load, load_graph
from yoloprune.darknet.network import Network
from yoloprune.detect.detection_measure import DetectionMeasure
from yoloprune.detect.image import read_pixels
from yoloprune.detect.load import load_measure
from yoloprune.detect.measure import network_for_measuring
from yoloprune.progress import Progress
from yoloprune.prune.certainty import joint_cautions
from yoloprune.readers import READERS
from yoloprune.steps import ana as ana_step
from yoloprune.steps import detect as detect_step
from yoloprune.steps import prune as prune_step
from yoloprune.workspace import Workspace

COMMANDS = (
    "ana", "prune", "finetune", "train", "export", "run", "status", "undo",
    "map", "detect", "stat", "verify", "check", "convert",
)  # fmt: skip
FEW = ["--calibrate", "4"]
ROOT = Path(__file__).resolve().parents[1]


def call(*words: object, status: int = 0) -> Result:
    result = CliRunner().invoke(cli.app, [str(word) for word in words], prog_name="yoloprune")
    assert result.exit_code == status, result.output
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def answer(*words: object, status: int = 0) -> dict[str, Any]:
    """What `--json -` says; nothing else may stand on stdout."""
    return dict(json.loads(call(*words, "--json", "-", status=status).stdout))


@dataclass(frozen=True)
class Whole:
    """A job after all four steps, and what each step answered."""

    bench: Bench
    workspace: Path
    answers: dict[str, Any]


@pytest.fixture(scope="module")
def made(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return trained(tmp_path_factory.mktemp("set") / "set")


@pytest.fixture
def own(made: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A copy to spoil, and the current folder beside it."""
    shutil.copytree(made.folder, tmp_path / "set")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return Bench(tmp_path / "set")


@pytest.fixture(scope="module")
def whole(made: Bench, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    folder = tmp_path_factory.mktemp("whole")
    space = ["-w", folder / "space"]
    answers = {
        "ana": answer("ana", *made.inputs, *FEW, *space),
        "prune": answer("prune", "--ratio", 0.3, *FEW, *space),
        "finetune": answer("finetune", "--iterations", 2, *space),
        "export": answer("export", "-o", folder / "slim", *space),
        "status": answer("status", *space),
    }
    return Whole(made, folder / "space", answers)


def test_ana_measures_every_group(whole: Whole) -> None:
    found = whole.answers["ana"]
    assert found["start"] == found["baseline"] > 0.03
    assert {group["group"]: group["channels"] for group in found["groups"]} == {"0+1": 8, "2": 12, "4": 12}
    for group in found["groups"]:
        assert list(group["prunable_at"]) == ["0.005", "0.01", "0.02", "0.05"]
        assert all(point["loss"] == found["baseline"] - point["accuracy"] for point in group["points"])
        for loss, share in group["prunable_at"].items():
            held = [point for point in group["points"] if point["sparsity"] == share]
            assert share == 0 or held[0]["loss"] <= float(loss)
        assert 0 <= group["gain"] < 1
    plot = cv2.imread(found["files"]["plot"])
    assert plot is not None
    assert len(np.unique(plot.reshape(-1, 3), axis=0)) > 50


@pytest.mark.parametrize(
    ("flag", "criterion", "expected"),
    [
        ("--no-compensate", "l1", ("none", 0)),
        ("--no-compensate", "elimination", ("none", 4)),
        ("--bn-recalibrate", "apoz", ("batch norm", 4)),
    ],
)
def test_cuts_without_a_refit(own: Bench, flag: str, criterion: str, expected: tuple[str, int]) -> None:
    """`prune` takes what it isn't told from the analysis, and the next round from the last."""
    words = [*FEW, flag, "--criterion", criterion]
    answer("ana", *own.inputs, *words, "--sparsities", 0.5)
    assert (
        "was made with"
        in call("prune", "--calibrate", 3, "--criterion", "taylor", "--threshold", 0.99, status=2).stderr
    )
    answer("prune", "--threshold", 0.99, "--min-keep", 4)
    answer("finetune", "--iterations", 1)
    answer("prune", "--threshold", 0.99)
    for number in (1, 2):
        folder = Path(f"yoloprune-workspace/round-{number}")
        found = json.loads((folder / "sensitivity.json").read_text())["options"]
        assert (found["criterion"], (found["compensation"], found["calibrate"])) == (criterion, expected)
        chosen = json.loads((folder / "plan.json").read_text())["options"]
        assert (chosen["criterion"], (chosen["compensation"], chosen["calibrate"])) == (criterion, expected)


def test_ana_measures_where_it_is_asked_to(own: Bench) -> None:
    found = answer("ana", *own.inputs, *FEW, "--sparsities", "0.5,0.25")
    points = {group["group"]: [point["sparsity"] for point in group["points"]] for group in found["groups"]}
    assert points == {label: [0.25, 0.5] for label in ("0+1", "2", "4")}
    shown = call("ana", *own.inputs, *FEW).stdout
    assert "25%" in shown
    assert "30%" not in shown


def test_ana_without_labels_measures_agreement(own: Bench) -> None:
    for label in own.folder.rglob("labels/*.txt"):
        label.unlink()
    assert "label" in call("ana", *own.inputs, *FEW, "-w", "space", status=2).stderr
    found = answer("ana", *own.inputs, *FEW, "-w", "space", "--no-labels")
    assert found["baseline"] == pytest.approx(1.0)
    pruned = answer("prune", "--threshold", 0.3, *FEW, "-w", "space")
    assert pruned["before"]["map50_agreement"] == pytest.approx(1.0)
    assert 0 < pruned["after"]["map50_agreement"] < 1


def test_partial_weights_are_a_network_only_where_that_is_said(own: Bench) -> None:
    layers = load_graph(own.cfg, ALEXEYAB).layers
    own.weights.write_bytes(own.weights.read_bytes()[: 20 + 4 * weights_file.count(layers[:3])])
    assert "--allow-partial" in call("ana", *own.inputs, *FEW, "-w", "space", status=2).stderr
    answer("ana", *own.inputs, *FEW, "-w", "space", "--allow-partial", "--sparsities", "0.5")
    answer("prune", "--ratio", 0.2, "--rule", "prefix", *FEW, "-w", "space")
    answer("export", "-o", "slim", "-w", "space", "--keep-seen")
    answer("finetune", "--iterations", 1, "--distill", "-w", "space")


def test_two_processes_by_an_option_are_torchruns(own: Bench) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    words = ["ana", *map(str, own.inputs), *FEW, "--losses", "0.05,0.2", "--json", "-", "-w"]
    commands = (
        [*torchrun, "-m", "yoloprune", *words, "by-hand"],
        [sys.executable, "-m", "yoloprune", *words, "space", "--processes", "2"],
    )
    for step in [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]:
        found = json.loads(step.communicate(timeout=300)[0])  # of the first process alone
        assert step.returncode == 0
        assert [group["group"] for group in found["groups"]] == ["0+1", "2", "4"]
        assert all(group["points"] for group in found["groups"])
    one, other = (Path(space) / "round-1" / "sensitivity.json" for space in ("by-hand", "space"))
    assert one.read_bytes() == other.read_bytes()
    assert {path.name for path in other.parent.iterdir()} == {"sensitivity.json", "sensitivity.png"}
    assert answer("prune", "--threshold", 0.2, *FEW, "-w", "space")["after"]["bflops"] > 0


def test_processes_are_started_as_by_hand(own: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every command that can be shared; with the threads and GPUs that each has."""
    from torch.distributed import run as torchrun

    started: list[tuple[list[str], str, str | None]] = []

    def hear(words: list[str]) -> None:
        started.append((words, os.environ["OMP_NUM_THREADS"], os.environ.get("CUDA_VISIBLE_DEVICES")))

    monkeypatch.setattr(torchrun, "main", hear)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    by_hand = ["--standalone", "--nproc-per-node", "2", "-m", "yoloprune"]
    for words in (["finetune", "--iterations", "3"], ["train", "y.cfg", "--seed", "4"], ["ana", "y.cfg", "y.weights"]):
        call(*words, "--processes", 2)
        assert started.pop() == ([*by_hand, *words, "--processes", "2"], "3", None)
    monkeypatch.setattr("yoloprune.cli.command.usable", lambda device: device)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6")
    call("finetune", "--iterations", 3, "--devices", "0,2")
    assert started.pop()[2] == "4,6"
    assert "expected GPUs of 0..2, found 3" in call("finetune", "--iterations", 3, "--devices", "1,3", status=2).stderr
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "4,5,6"


def test_a_run_shares_its_long_steps(own: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is its command, here of one process after all; the rest is as without."""
    from yoloprune.steps import shared

    heard: list[list[str]] = []

    def alone(words: list[str], processes: int, devices: object, *, answers: bool) -> int:
        assert (processes, devices, answers) == (2, (), False)
        heard.append(words)
        call(*words)
        return 0

    monkeypatch.setattr(shared, "launch", alone)
    words = [*own.inputs, *FEW, "--ratio", 0.3, "--iterations", 2, "--workers", 0]
    several = answer("run", *words, "-o", "a", "-w", "several", "--processes", 2)
    one = answer("run", *words, "-o", "b", "-w", "one")
    assert [step[0] for step in heard] == ["ana", "finetune"]
    assert several["after"] == one["after"]
    for name in ("sensitivity.json", "finetuned.weights"):
        assert Path("several/round-1", name).read_bytes() == Path("one/round-1", name).read_bytes()
    monkeypatch.setattr(shared, "launch", lambda *words, **how: 2)
    failed = call("run", *words, "-o", "c", "-w", "failed", "--processes", 2, status=2)
    assert "ana in 2 processes ended with status 2" in failed.stderr


def test_what_processes_cannot_be(own: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    both = ["finetune", "--iterations", 1, "--processes", 3, "--devices", "0,1"]
    assert "expected one of --processes and --devices" in call(*both, status=2).stderr
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "torchrun's 2" in call("finetune", "--iterations", 1, "--processes", 3, status=2).stderr


def test_prune_finetune_and_export_say_what_they_did(whole: Whole) -> None:
    pruned, tuned, slim = (whole.answers[step] for step in ("prune", "finetune", "export"))
    original = answer("stat", whole.bench.cfg, whole.bench.weights)
    for key in ("bflops", "parameters", "nonzero", "bytes"):
        assert pruned["before"][key] == original[key]
        assert pruned["after"][key] < original[key]
        assert tuned["before"][key] == tuned["after"][key] == slim["after"][key] == pruned["after"][key]
    assert 1 - pruned["after"]["bflops"] / original["bflops"] >= 0.3
    assert pruned["joint_loss"] == pruned["before"]["map50_present"] - pruned["after"]["map50_present"]
    assert slim["after"]["map50_present"] == tuned["after"]["map50_present"]
    for files in (pruned["files"], tuned["files"], slim["files"]):
        assert all(Path(file).is_file() for file in files.values())
    after = answer("stat", slim["files"]["cfg"], slim["files"]["weights"])
    assert {key: after[key] for key in ("bflops", "parameters", "nonzero", "bytes")} == {
        key: slim["after"][key] for key in ("bflops", "parameters", "nonzero", "bytes")
    }
    assert Path(slim["files"]["names"]).read_bytes() == (whole.bench.folder / "set.names").read_bytes()


def test_slim_files_measure_as_export_says(whole: Whole) -> None:
    slim = whole.answers["export"]
    found = answer("map", slim["files"]["cfg"], slim["files"]["weights"], "--data", whole.bench.data)
    assert found["map50_present"] == pytest.approx(slim["after"]["map50_present"], abs=1e-3)


def test_figures_are_of_the_files_that_are_written(whole: Whole, tmp_path: Path) -> None:
    folded = answer("export", "-o", tmp_path / "folded", "--fold-bn", "-w", whole.workspace)
    found = answer("stat", folded["files"]["cfg"], folded["files"]["weights"])
    assert {key: folded["after"][key] for key in ("bflops", "parameters", "nonzero", "bytes")} == {
        key: found[key] for key in ("bflops", "parameters", "nonzero", "bytes")
    }
    assert found["bytes"] == Path(folded["files"]["weights"]).stat().st_size


def test_status_shows_the_round(whole: Whole) -> None:
    (only,) = whole.answers["status"]["rounds"]
    assert only["number"] == 1
    assert only["pruned"] == whole.answers["prune"]["after"]
    assert only["finetuned"] == whole.answers["finetune"]["after"]
    assert whole.answers["status"]["original"] == whole.answers["prune"]["before"]
    shown = call("status", "-w", whole.workspace).stdout
    assert f"{only['finetuned']['map50_present']:.4f}" in shown
    assert f"{1 - only['pruned']['bflops'] / whole.answers['prune']['before']['bflops']:.1%}" in shown


def test_verify_says_yes_to_masked_and_slim(whole: Whole) -> None:
    slim = whole.answers["export"]["files"]
    pairs = [whole.bench.cfg, whole.answers["finetune"]["files"]["weights"], slim["cfg"], slim["weights"]]
    found = answer("verify", *pairs)
    assert found["verified"]
    assert {"yoloprune", "opencv"} <= set(found["max_abs_diff"])
    assert set(found["max_abs_diff"]) | set(found["skipped"]) == {"yoloprune", *READERS}
    assert max(found["max_relative_diff"].values()) < 1e-4
    shown = call("verify", *pairs, "--image", whole.bench.image()).stdout
    assert "same" in shown
    assert "differs" not in shown


def test_verify_says_no_to_other_weights(whole: Whole) -> None:
    files = whole.answers["finetune"]["files"]
    pairs = [whole.bench.cfg, whole.bench.weights, whole.bench.cfg, files["weights"]]
    found = answer("verify", *pairs, status=1)
    assert not found["verified"]
    assert found["max_abs_diff"]["yoloprune"] > 0.01
    assert "differs" in call("verify", *pairs, status=1).stdout


def test_run_does_all_rounds(own: Bench) -> None:
    steps = ["--threshold", 0.5, "--rounds", 2, "--epochs", 1, "--min-keep", 4, "--multiple", 1, *FEW]
    done = call("run", *own.inputs, *steps, "-o", "slim", "-w", "space", "--json", "answer.json")
    found = json.loads(Path("answer.json").read_text())
    lost = [found["before"]["map50_present"] - each["pruned"]["map50_present"] for each in found["rounds"]]
    allowed = [each["options"]["threshold"] for each in found["rounds"]]
    summed = [
        f"add up to {loss:.4f}, over the threshold of {most:.4f}" for loss, most in zip(lost, allowed, strict=True)
    ]
    over = [loss > most for loss, most in zip(lost, allowed, strict=True)]
    assert [each in done.stderr for each in summed] == over
    assert [any(each in line for line in found["warnings"]) for each in summed] == over
    assert found["after"]["bflops"] < found["before"]["bflops"]
    assert sorted(Path(file).name for file in found["files"].values()) == [
        "tiny-slim.cfg", "tiny-slim.names", "tiny-slim.weights",
    ]  # fmt: skip
    rounds = answer("status", "-w", "space")["rounds"]
    assert [each["options"]["threshold"] for each in rounds] in ([0.25, 0.5], [0.25])
    assert rounds[-1]["finetuned"] == found["after"]
    before = fingerprint(Path.cwd())
    assert "slim.cfg: exists already" in call("run", *own.inputs, *steps, "-o", "slim", "-w", "other", status=2).stderr
    assert {name: digest for name, digest in fingerprint(Path.cwd()).items() if "other" not in name} == before


def test_run_is_for_one_process(own: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    steps = ["--threshold", 0.1, "--epochs", 1, "-o", "slim"]
    assert "torchrun" in call("run", *own.inputs, *steps, status=2).stderr
    assert not any(Path.cwd().iterdir())


def test_run_ends_where_nothing_more_can_go(own: Bench) -> None:
    steps = ["--threshold", 0.99, "--rounds", 3, "--epochs", 1, "--min-keep", 6, *FEW]
    result = call("run", *own.inputs, *steps, "-o", "slim", "-w", "space")
    assert "1 of 3 rounds" in result.stderr
    assert "tiny-slim.cfg" in result.stdout
    assert len(answer("status", "-w", "space")["rounds"]) == 1


def test_force_starts_a_workspace_anew(whole: Whole, own: Bench) -> None:
    shutil.copytree(whole.workspace, "space")
    model = load(own.cfg, own.weights, ALEXEYAB)
    other = random_model(model.graph, 5)
    weights_file.write(own.weights, other.weights, other.graph.layers, force=True)
    assert "--force replaces it" in call("ana", *own.inputs, *FEW, "-w", "space", status=2).stderr
    call("ana", *own.inputs, *FEW, "-w", "space", "--force")
    call("prune", "--ratio", 0.2, *FEW, "-w", "space")
    call("finetune", "--iterations", 1, "-w", "space")
    assert len(answer("status", "-w", "space")["rounds"]) == 1


def test_map_is_the_measure(made: Bench) -> None:
    found = answer("map", *made.inputs, "--points", 11, "--nms", "greedynms", "--images", 3, "--letterbox")
    model = load(made.cfg, made.weights, ALEXEYAB)
    data = read_data(made.data)
    measure = load_measure(model.graph, data, letterbox=True, limit=3, points=11, nms_kind="greedynms")
    assert isinstance(measure, DetectionMeasure)
    summary = measure.summary(measure.predictions(network_for_measuring(model)))
    assert found == json.loads(json.dumps(summary))
    assert found["images"] == 3
    assert set(found["ap"]) == {"box", "disc"}


def test_map_tells_classes_of_one_name_apart(own: Bench) -> None:
    apart = answer("map", *own.inputs)["ap"]
    names = own.folder / "set.names"
    assert names.read_text().split() == list(apart)
    names.write_text("box\nbox\n")
    assert answer("map", *own.inputs)["ap"] == dict(zip(("box", "box (1)"), apart.values(), strict=True))


def test_map_shows_each_class(made: Bench) -> None:
    found = answer("map", *made.inputs)
    shown = call("map", *made.inputs).stdout
    for text in ("box", "disc", "map50_present", "recall", f"{found['ap']['disc']:.4f}", f"{found['map50']:.4f}"):
        assert text in shown


def test_stat_is_darknets_table(made: Bench) -> None:
    found = answer("stat", made.cfg, made.weights)
    assert found["bytes"] == made.weights.stat().st_size == 20 + 4 * found["parameters"]
    assert found["parameters"] == sum(layer["parameters"] for layer in found["layers"])
    first = found["layers"][0]
    flops = 2 * 3 * 3 * 3 * 8 * 32 * 32
    assert first == {
        "index": 0, "type": "convolutional", "filters": 8, "size": 3, "stride": 2, "from": [-1],
        "input": [64, 64, 3], "output": [32, 32, 8], "bflops": flops / 1e9, "parameters": 8 * 27 + 4 * 8,
        "nonzero": np.count_nonzero(np.fromfile(made.weights, "<f4")[5 : 5 + 8 * 31]), "sparsity": 0.0,
    }  # fmt: skip
    shown = call("stat", made.cfg).stdout.splitlines()
    row = next(line for line in shown if line.strip().startswith("1 "))
    assert "8/8" in row
    assert "3x3/1" in row
    assert f"{found['parameters']:,}" in "".join(shown[-4:])


def test_stat_warns_of_unread_keys_in_one_line(own: Bench) -> None:
    own.cfg.write_text(own.cfg.read_text().replace("[maxpool]\n", "[maxpool]\nspeed=9\nhurry=1\n"))
    result = call("stat", own.cfg)
    (line,) = result.stderr.splitlines()
    where = own.cfg.read_text().splitlines().index("speed=9") + 1
    assert f"speed (line {where}), hurry (line {where + 1})" in line
    assert "speed" not in result.stdout


def test_detect_draws_what_it_finds(own: Bench) -> None:
    pictures = [own.image(0), own.image(1)]
    found = answer("detect", own.cfg, own.weights, *pictures, "-o", "boxes", "--data", own.data, "--thresh", 0.1)
    for image, each in zip(pictures, found["images"], strict=True):
        assert Path(each["image"]) == image
        before, after = cv2.imread(str(image)), cv2.imread(each["picture"])
        assert before.shape == after.shape
        assert bool((before != after).any()) == bool(each["detections"])
    every = [one for each in found["images"] for one in each["detections"]]
    assert every
    assert {one["class"] for one in every} <= {"box", "disc"}
    assert min(one["probability"] for one in every) > 0.1
    assert sorted(path.name for path in Path("boxes").iterdir()) == [image.name for image in pictures]
    shown = call("detect", own.cfg, own.weights, *pictures, "-o", "more", "--thresh", 0.1).stdout
    assert "probability" in shown


def test_detect_takes_folders_and_lists(own: Bench) -> None:
    (own.folder / "more").mkdir()
    for number, name in enumerate(("b.JPG", "a.bmp", "notes.txt", "c.png.bak")):
        content = own.image(number).read_bytes() if "." in name[1:2] else b"no picture"
        (own.folder / "more" / name).write_bytes(content)
    (own.folder / "more" / "d.png").mkdir()
    (own.folder / "some.txt").write_text("images/valid_3.png\n\nmore/a.bmp\n")
    words = ["detect", own.cfg, own.weights, "-o", "boxes", "--thresh", 0.1]
    found = answer(*words, own.folder / "more", own.image(4), "--dry-run")["images"]
    assert [Path(each["image"]).name for each in found] == ["a.bmp", "b.JPG", "valid_4.png"]
    found = answer(*words, own.folder / "some.txt")["images"]
    assert [Path(each["picture"]) for each in found] == [Path("boxes/valid_3.png"), Path("boxes/a.bmp")]


def test_detect_writes_as_png_what_opencv_does_not_write(own: Bench) -> None:
    grey = cv2.cvtColor(read_pixels(own.image()), cv2.COLOR_BGR2GRAY)
    pictures = [Path(f"{number}{ending}") for number, ending in enumerate((".pgm", ".PBM", ".jp2", ".gif", ".ppm", ""))]
    for path in pictures:
        kind = path.suffix if path.suffix in (".pgm", ".PBM") else ".png"  # what a file holds, not its name
        assert cv2.imwrite(f"made{kind}", grey * 255 if kind == ".PBM" else grey)
        Path(f"made{kind}").rename(path)
    found = answer("detect", own.cfg, own.weights, *pictures, "-o", "boxes", "--thresh", 0.01)["images"]
    written = [Path(each["picture"]) for each in found]
    assert [path.name for path in written] == ["0.png", "1.png", "2.png", "3.png", "4.ppm", "5.png"]
    for path, copy in zip(pictures, written, strict=True):
        assert read_pixels(copy).shape == read_pixels(path).shape


def test_detect_computes_nothing_before_all_can_be_read_and_written(
    own: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detect_step, "build", lambda *_: pytest.fail("built"))
    words = ["detect", own.cfg, own.weights]
    own.image(1).write_bytes(b"no picture")
    own.image(2).write_bytes(own.image(2).read_bytes()[:60])
    told = call(*words, own.image(0), own.image(1), own.image(2), "-o", "boxes", status=2).stderr
    bad = [f"{own.image(number)}: not a picture that can be decoded" for number in (1, 2)]
    assert told.splitlines() == ["yoloprune: 2 of 3 pictures can't be decoded:", *bad]
    Path("a.pgm").write_bytes(own.image(0).read_bytes())
    Path("a.png").write_bytes(own.image(0).read_bytes())
    told = call(*words, "a.pgm", "a.png", "-o", "boxes", status=2).stderr
    assert told == "yoloprune: boxes/a.png: two pictures would be written as this one: a.pgm and a.png\n"
    assert not Path("boxes").exists()


def test_detect_names_no_file_of_its_own(own: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        told = call("detect", own.cfg, own.weights, own.image(), "-o", "boxes", status=2).stderr
    assert told == "yoloprune: boxes: cannot be written to: No space left on device\n"
    monkeypatch.setattr(cv2, "imencode", lambda *_: (False, None))
    told = call("detect", own.cfg, own.weights, own.image(), "-o", "boxes", status=2).stderr
    assert told == "yoloprune: boxes/valid_0.png: a picture of this size can't be written as .png\n"
    assert not Path("boxes").exists()


def test_detect_takes_no_names_from_another_networks_data(own: Bench) -> None:
    Path("other.data").write_text("classes=3\nnames=other.names\n")
    Path("other.names").write_text("a\nb\nc\n")
    Path("perf.data").write_bytes(b"\0\1")
    command = ["detect", own.cfg, own.weights, own.image(), "--thresh", 0.01, "--dry-run"]
    own.data.unlink()
    found = answer(*command, "-o", "boxes")["images"][0]["detections"]
    assert {each["class"] for each in found} <= {"0", "1"}


def test_detect_writes_nothing_in_a_dry_run_or_over_its_input(own: Bench) -> None:
    before = fingerprint(own.folder)
    words = ["detect", own.cfg, own.weights, own.image(), "-o"]
    assert answer(*words, "boxes", "--dry-run")["images"]
    assert not Path("boxes").exists()
    assert "is a picture to look at" in call(*words, own.folder / "images", "--force", status=2).stderr
    assert fingerprint(own.folder) == before


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example(command: str) -> None:
    shown = " ".join(call(command, "--help").stdout.split())
    assert f"Example: yoloprune {command} " in shown
    for option in ("--json", "--quiet", "--config"):
        assert option in shown


def test_help_lists_every_command() -> None:
    shown = call("--help").stdout
    assert all(f" {command} " in shown for command in COMMANDS)


def test_quiet_says_nothing_and_json_goes_to_a_file_once(own: Bench) -> None:
    result = call("map", *own.inputs, "--quiet", "--json", "out/map.json")
    assert result.output == ""
    assert json.loads(Path("out/map.json").read_text())["images"] == 5
    assert "out/map.json: exists already" in call("map", *own.inputs, "--json", "out/map.json", status=2).stderr
    call("map", *own.inputs, "--quiet", "--json", "out/map.json", "--force", "--images", 2)
    assert json.loads(Path("out/map.json").read_text())["images"] == 2


def test_config_gives_options_and_the_command_line_comes_first(own: Bench) -> None:
    text = f"# as in a script\ncfg = {own.cfg}\nweights={own.weights}\n\nimages=2\nletterbox=1\nquiet=true\n"
    Path("options").write_text(text + f"data={own.data}\npoints=101\n")
    assert call("map", "--config", "options").output == ""
    found = answer("map", "--config", "options", "--images", 4)
    assert found["images"] == 4
    expected = answer("map", *own.inputs, "--images", 4, "--letterbox", "--points", 101)
    assert found == expected
    Path("options").write_text(text + f"data={own.data}\npoints=101\nstretch=yes\n")
    assert answer("map", "--config", "options", "--images", 4) == answer(
        "map", *own.inputs, "--images", 4, "--stretch", "--points", 101
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("images=2\nsped=3\n", "options:2: sped: map has no such option"),
        ("images\n", "options:1: expected key=value"),
        ("images=\n", "options:1: expected key=value"),
        ("# few\nimages=two\n", "options:2: images=two: Invalid value for '--images'"),
        ("images=0\n", "options:1: images=0: Invalid value for '--images'"),
        ("stretch=two\n", "options:1: stretch: expected yes or no"),
    ],
)
def test_config_that_is_wrong(own: Bench, text: str, message: str) -> None:
    Path("options").write_text(text)
    assert message in call("map", *own.inputs, "--config", "options", status=2).stderr


def test_config_is_not_named_for_a_wrong_value_of_the_command_line(own: Bench) -> None:
    Path("options").write_text("images=two\n")
    assert "options" not in call("map", *own.inputs, "--config", "options", "--images", "0", status=2).stderr


def test_config_with_a_byte_order_mark(own: Bench) -> None:
    Path("options").write_text("images=2\n", encoding="utf-8-sig")
    assert answer("map", *own.inputs, "--config", "options")["images"] == 2


def test_config_reaches_lists_and_flags(own: Bench) -> None:
    text = f"pictures={own.image(0)},{own.image(1)}\nout=boxes\ndry-run=yes\nthresh=0.1\n"
    Path("options").write_text(text)
    found = answer("detect", own.cfg, own.weights, "--config", "options")
    assert len(found["images"]) == 2
    assert not Path("boxes").exists()


def test_data_is_found_where_only_one_lies(own: Bench) -> None:
    assert answer("map", own.cfg, own.weights)["images"] == 5
    shutil.copy(own.data, "other.data")
    error = call("map", own.cfg, own.weights, status=2).stderr
    assert "other.data" in error
    assert "set.data" in error


def test_dry_runs_write_nothing(whole: Whole, own: Bench) -> None:
    ahead = answer("ana", *own.inputs, "-w", "space", "--dry-run")
    assert (ahead["groups"], ahead["images"]) == (3, 5)
    assert ahead["points"] > ahead["groups"]
    grid = answer("ana", *own.inputs, "-w", "space", "--sparsities", "0.25,0.5", "--dry-run")
    assert grid["points"] == 6
    call("ana", *own.inputs, "-w", "space", "--dry-run", "--criterion", "foo", status=2)
    assert not Path("space").exists()

    space = ["-w", "space"]
    call("ana", *own.inputs, *FEW, *space)
    before = fingerprint(Path("space"))
    would = answer("prune", "--ratio", 0.3, *FEW, *space, "--dry-run")
    assert would["after"] == whole.answers["prune"]["after"]
    assert would["files"] == {}
    assert fingerprint(Path("space")) == before
    call("prune", "--ratio", 0.3, *FEW, *space)
    before = fingerprint(Path.cwd())
    shown = call("finetune", "--epochs", 1, *space, "--dry-run")
    assert "finetuned" not in shown.stdout
    assert "iterations of" in shown.stderr
    whole_run = ["run", *own.inputs, "--threshold", 0.1, "--rounds", 2, "--epochs", 1, "-o", "slim", "-w", "other"]
    assert answer(*whole_run, "--dry-run")["thresholds"] == [0.05, 0.1]
    assert "--objective" in call(*whole_run, "--dry-run", "--objective", "foo", status=2).stderr
    assert answer("export", "-o", "slim", *space, "--dry-run")["files"] == {}
    assert fingerprint(Path.cwd()) == before


def test_prune_warns_where_losses_add_up(own: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    call("ana", *own.inputs, *FEW)
    monkeypatch.setattr(prune_step, "joint_cautions", lambda lost, most: joint_cautions(most + 0.25, most))
    words = ["prune", "--threshold", 0.99, *FEW, "--dry-run"]
    summed = "add up to 1.2400, over the threshold of 0.9900"
    assert summed in call(*words).stderr
    assert any(summed in line for line in answer(*words)["warnings"])
    assert "add up" not in call(*words, "--quiet").stderr


def test_total_loss_is_the_joint_loss_as_measured(own: Bench) -> None:
    call("ana", *own.inputs, *FEW)
    result = answer("prune", "--total-loss", 0.1, *FEW)
    assert result["joint_loss"] <= 0.1
    assert result["after"]["bflops"] < result["before"]["bflops"]
    lost = result["before"]["map50_present"] - result["after"]["map50_present"]
    assert lost == pytest.approx(result["joint_loss"])
    assert Workspace.load(Path("yoloprune-workspace")).last.options.total_loss == 0.1


def test_a_device_without_the_memory_says_so_in_a_line(own: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 7.79 GiB")

    monkeypatch.setattr(Network, "forward", full)
    said = call("map", *own.inputs, status=2).stderr
    assert said == "yoloprune: CUDA out of memory; training takes less with larger subdivisions= in the cfg\n"


def interrupt_at(number: int) -> Callable[[Progress], None]:
    def progress(step: Progress) -> None:
        if step.stage == "ana" and step.done == number:
            raise KeyboardInterrupt

    return progress


def test_an_interrupted_analysis_goes_on(own: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["ana", *own.inputs, *FEW, "-w"]
    call(*words, "whole")
    real = ana_step.ana
    with monkeypatch.context() as patch:
        patch.setattr(ana_step, "ana", lambda *args, **options: real(*args, **{**options, "progress": interrupt_at(1)}))
        result = call(*words, "parts", status=130)
    (line,) = result.stderr.splitlines()
    assert "goes on" in line
    file = Path("parts/round-1/sensitivity.json")
    first, second, third = json.loads(file.read_text())["curves"]
    assert first["points"]
    assert second["proxy"]
    assert not third["proxy"]
    call(*words, "parts")
    assert file.read_bytes() == Path("whole/round-1/sensitivity.json").read_bytes()


def test_ctrl_c_ends_with_130(own: Bench) -> None:
    words = ["ana", *own.inputs, *FEW, "-w", "space"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "yoloprune", *words], stderr=subprocess.PIPE, text=True, env=environment
    )
    deadline = time.monotonic() + 300  # of a machine that has much else to do
    while not Path("space/round-1/sensitivity.json").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "Traceback" not in error
    assert error.splitlines()[-1].startswith("yoloprune: interrupted")
    json.loads(Path("space/round-1/sensitivity.json").read_text())


@pytest.mark.parametrize("module_read", ["typer", "torch"])  # at the start, and for a command
def test_ctrl_c_while_modules_are_read(tmp_path: Path, module_read: str) -> None:
    (tmp_path / f"{module_read}.py").write_text("raise KeyboardInterrupt")
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    _, module, function = re.split("[=:]", setup["options.entry_points"]["console_scripts"].replace(" ", ""))
    for start in (["-m", "yoloprune"], ["-c", f"from {module} import {function}; {function}()"]):
        done = subprocess.run(
            [sys.executable, *start, "stat", "no.cfg"],
            env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 130
        assert done.stderr.startswith("yoloprune: interrupted")
        assert done.stderr.count("\n") == 1


def test_a_classifier_is_measured_by_top_k(own: Bench) -> None:
    cfg = own.cfg.read_text().partition("[route]")[0].replace("stride=2\npad=1\nactivation=leaky\n\n[route]", "")
    cfg += "[convolutional]\nfilters=2\nsize=1\nstride=1\nactivation=linear\n\n[avgpool]\n\n[softmax]\ngroups=1\n"
    own.cfg.write_text(cfg)
    model = random_model(graph_of(cfg), 1)
    weights_file.write(own.weights, model.weights, model.graph.layers, force=True)
    for index, name in enumerate(("box", "disc", "box", "box", "disc")):
        own.image(index).rename(own.folder / "images" / f"{index}_{name}.png")
    own.data.write_text("classes=2\ntrain=valid.txt\nvalid=valid.txt\nnames=set.names\n")
    listed = "".join(f"images/{path.name}\n" for path in sorted((own.folder / "images").glob("?_*.png")))
    (own.folder / "valid.txt").write_text(listed)
    found = answer("map", *own.inputs)
    assert found["metric"] == "top1"
    assert found["top5"] == 1
    assert found["top1"] in [right / 5 for right in range(6)]
    for option in (["--points", 11], ["--letterbox"]):
        assert str(option[0]) in call("map", *own.inputs, *option, status=2).stderr
    assert (
        "expected a detector" in call("detect", own.cfg, own.weights, own.folder / "images", "-o", "x", status=2).stderr
    )


def test_device_must_be_there(made: Bench) -> None:
    assert "--device" in call("map", *made.inputs, "--device", "abacus", status=2).stderr
    if not torch.cuda.is_available():
        assert "--device" in call("map", *made.inputs, "--device", "cuda", status=2).stderr
