"""What bad input gets: one or two lines that say where and what, status 2, and nothing changed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pytest
from typer.testing import CliRunner

from tests.drawn import Bench, bench, fingerprint
from yoloprune import cli
from yoloprune.darknet import weights as weights_file
from yoloprune.darknet.dialect import ALEXEYAB
from yoloprune.darknet.model import load
from yoloprune.detect.image import read_pixels

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def own(one_thread: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    made = bench(tmp_path / "set")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return made


def refused(own: Bench, words: list[object], *expected: str) -> str:
    """stderr of a command that must refuse, and leave every file below the test's folder as it is."""
    before = fingerprint(own.folder.parent)
    result = CliRunner().invoke(cli.app, [str(word) for word in words], prog_name="yoloprune")
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    assert 1 <= len(lines) <= 2, result.stderr
    assert lines[0].startswith("yoloprune: ")
    for text in expected:
        assert text in result.stderr, result.stderr
    assert fingerprint(own.folder.parent) == before
    return result.stderr


def edit(file: Path, old: str, new: str) -> int:
    """Replace the first `old`; its line, from 1."""
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
    return text[: text.index(old)].count("\n") + 1


@pytest.mark.parametrize(
    ("old", "new", "offset", "expected"),
    [
        ("[net]\n", "[nett]\n", 0, ["nett", "[net]"]),
        ("[maxpool]", "[maxpul]", 0, ["[maxpul]", "layer 3", "expected one of", "maxpool"]),
        ("activation=relu", "activation=rellu", 0, ["layer 1", "activation=rellu", "expected"]),
        ("activation=relu", "activation=SiLU", 0, ["layer 1", "activation=SiLU is swish in Darknet"]),
        ("filters=14", "filters=", None, ["tiny.cfg:54: filters has no value, and counts as absent", "found 1"]),
        ("layers=-1", "layers=-17", 0, ["[route] layer 5", "layers=-17", "expected -5..4", "found -17"]),
        ("layers=-1", "layers=9", 0, ["[route] layer 5", "layers=9", "found 9"]),
        ("groups=8", "groups=3", 0, ["layer 1", "groups=3"]),
        ("filters=14", "filters=15", None, ["[yolo] layer 7", "14", "15"]),
        ("size=3", "size=three", 0, ["layer 0", "size=three"]),
        ("width=64", "width=0", 0, ["[net]", "width"]),
    ],
)
@pytest.mark.parametrize("command", ["stat", "map", "ana"])
def test_cfg(own: Bench, command: str, old: str, new: str, offset: int | None, expected: list[str]) -> None:
    line = edit(own.cfg, old, new)
    where = f"{own.cfg}:" if offset is None else f"{own.cfg}:{line + offset}:"
    words = {"stat": [own.cfg], "map": own.inputs, "ana": own.inputs}[command]
    refused(own, [command, *words], where, *expected)


def test_cfg_that_is_not_there_or_no_cfg(own: Bench) -> None:
    refused(own, ["stat", "no.cfg"], "no.cfg: ")
    refused(own, ["stat", own.weights], str(own.weights))
    refused(own, ["stat", own.folder], str(own.folder))


def test_a_folder_in_place_of_a_file(own: Bench) -> None:
    folder = f"{own.folder}: is a folder, expected a file"
    cfg, weights = own.cfg, own.weights
    refused(own, ["stat", own.folder], folder)
    refused(own, ["check", own.folder], folder)
    refused(own, ["check", cfg, own.folder], folder)
    refused(own, ["stat", cfg, own.folder], folder)
    refused(own, ["map", cfg, weights, "--data", own.folder], folder)
    refused(own, ["ana", *own.inputs[:3], own.folder], folder)
    refused(own, ["train", cfg, "--data", own.data, "--pretrained", own.folder], folder)
    refused(own, ["verify", cfg, weights, cfg, weights, "--image", own.folder], folder)
    refused(own, ["stat", cfg, "--config", own.folder], folder)
    for force in ([], ["--force"]):
        refused(own, ["stat", cfg, "--json", own.folder, *force], folder)
    line = edit(own.data, "valid=valid.txt", "valid=images")
    refused(own, ["map", *own.inputs], f"set.data:{line}: valid: {own.folder}/images is a folder, expected one file")
    edit(own.data, "valid=images", "valid=list.txt")
    (own.folder / "list.txt").write_text("images/valid_0.png\nimages\n")
    refused(own, ["map", *own.inputs], f"list.txt:2: {own.folder}/images is a folder, expected one image")


@pytest.mark.parametrize("change", [-4, -1, 4, 1])
def test_weights_of_another_length(own: Bench, change: int) -> None:
    content = own.weights.read_bytes()
    own.weights.write_bytes(content[:change] if change < 0 else content + bytes(change))
    sizes = [f"expected {len(content)} bytes", f"found {len(content) + change}"]
    where = "layer 6 [convolutional], weight" if change < 0 else "another cfg"
    for command in ("stat", "map", "ana"):
        words = [own.cfg, own.weights] if command == "stat" else own.inputs
        refused(own, [command, *words], str(own.weights), "byte", where, *sizes)


def test_weights_of_another_cfg_of_the_same_length(own: Bench) -> None:
    model = load(own.cfg, own.weights, ALEXEYAB)
    content = weights_file.dump(model.weights, model.graph.layers)
    # a negative number in place of layer 0's first variance
    at = 20 + 4 * (8 * 3)
    own.weights.write_bytes(content[:at] + b"\x00\x00\x80\xbf" + content[at + 4 :])
    refused(own, ["map", *own.inputs], f"byte {at}", "layer 0", "found -1", "another cfg")


def test_weights_that_are_text(own: Bench) -> None:
    own.weights.write_text("hello")
    refused(own, ["map", *own.inputs], str(own.weights), "byte 5", "header")


def test_a_declared_size_far_over_the_files(own: Bench) -> None:
    """A gigabyte, and the file holds a few thousand bytes."""
    edit(own.cfg, "filters=12\nsize=1", "filters=20000\nsize=1")
    edit(own.cfg, "filters=12\nsize=3", "filters=1400\nsize=3")
    error = refused(own, ["map", *own.inputs], str(own.weights), "ends within", f"found {own.weights.stat().st_size}")
    needed = re.search(r"expected (\d+) bytes", error)
    assert needed
    assert int(needed[1]) > 1e9


def test_a_declared_size_that_no_darknet_holds(own: Bench) -> None:
    edit(own.cfg, "filters=12\nsize=1", "filters=2000000000\nsize=1")
    refused(own, ["map", *own.inputs], f"{own.cfg}:", "layer 2", "output would be")


def test_a_large_network_and_small_weights_in_little_memory(own: Bench) -> None:
    """Half a gigabyte of weights is declared; the process may not grow by it."""
    edit(own.cfg, "filters=12\nsize=3", "filters=1000000\nsize=3")
    program = (
        "import sys, resource\nfrom yoloprune import cli\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try:\n    cli.app(sys.argv[1:])\n"
        "finally:\n    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "map", *own.inputs],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert f"found {own.weights.stat().st_size}" in done.stderr
    assert int(done.stdout) < 50_000  # kB


def spoil_image(own: Bench) -> None:
    own.image().write_bytes(b"\x89PNG\r\n and then nothing")


def lose_image(own: Bench) -> None:
    own.image().unlink()


@pytest.mark.parametrize("command", ["map", "ana"])
@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (spoil_image, ["valid_0.png", "not a picture"]),
        (lose_image, ["valid.txt:1:", "no such image", "valid_0.png"]),
        (lambda own: own.label().write_text("0 .5 .5 .1 .1\n2 .5 .5 .1 .1\n"), ["valid_0.txt:2:", "0..1", "found 2"]),
        (lambda own: own.label().write_text("0 .5 .5 .1\n"), ["valid_0.txt:1:", "expected", "five numbers"]),
        (lambda own: [own.label(index).unlink() for index in range(5)], ["valid.txt", "no label file", "labels"]),
        (lambda own: [own.label(index).write_text("") for index in range(5)], ["valid.txt", "empty"]),
        (lambda own: (own.folder / "valid.txt").write_text("\n\n"), ["valid.txt", "expected one image path"]),
        (lambda own: (own.folder / "set.names").write_text("a\nb\nc\n"), ["set.names", "expected 2", "found 3"]),
        (lambda own: edit(own.data, "classes=2", "classes=two"), ["set.data:1:", "classes", "'two'"]),
        (lambda own: edit(own.data, "valid=valid.txt\n", ""), ["set.data", "valid="]),
        (lambda own: edit(own.data, "valid=valid", "valid=other"), ["set.data:3:", "other.txt"]),
    ],
)
def test_data(own: Bench, command: str, spoil: Callable[[Bench], object], expected: list[str]) -> None:
    spoil(own)
    refused(own, [command, *own.inputs], *expected)


def test_all_unreadable_pictures_are_named_before_anything_is_made(own: Bench) -> None:
    """Of both lists where both are looked at, and at once."""
    train = own.folder / "images" / "train_7.png"
    for file in (train, own.image(1), own.image(3)):
        file.write_bytes(file.read_bytes()[:90])
    before = fingerprint(own.folder.parent)
    valid = [f"{own.image(number)}: not a picture that can be decoded" for number in (1, 3)]
    both = [f"{train}: not a picture that can be decoded", *valid]
    plain = ["--threshold", "0.1", "--epochs", "1", "-o", "out", "-w", "space"]
    for words, named in (
        (["map", *own.inputs], valid),
        (["ana", *own.inputs, "--calibrate", "0"], valid),
        (["train", str(own.cfg), "--data", str(own.data), "-o", "out", "--iterations", "1"], both),
        (["run", *own.inputs, *plain], both[:1]),
    ):
        result = CliRunner().invoke(cli.app, words, prog_name="yoloprune")
        assert result.exit_code == 2, result.output
        lines = result.stderr.splitlines()
        if len(named) > 1:
            assert re.fullmatch(rf"yoloprune: {len(named)} of \d+ pictures can't be decoded:", lines.pop(0))
        assert [line.removeprefix("yoloprune: ") for line in lines if "decoded" in line] == named
        for made in ("out", "space"):  # a run's folder is tried out at once
            assert not any(Path(made).rglob("*.*"))
    Path("out").rmdir()
    assert fingerprint(own.folder.parent) == before


def test_what_is_odd_about_pictures_and_labels_is_said_once(own: Bench) -> None:
    """In one line each, and goes on."""
    jpeg = own.folder / "images" / "early.jpg"
    jpeg.write_bytes(cv2.imencode(".jpg", read_pixels(own.image()))[1].tobytes()[:-2])
    (own.folder / "labels" / "early.txt").write_text("0 .5 .5 .5 1.5\n")
    for name in ("train", "valid"):
        with (own.folder / f"{name}.txt").open("a") as stream:
            stream.write("images/early.jpg\n")
    own.label(2).unlink()
    edit(own.data, "classes=2", "classes=3")
    words = ["train", own.cfg, "--data", own.data, "-o", "out", "--iterations", 2, "--workers", 2]
    result = CliRunner().invoke(cli.app, [str(word) for word in words], prog_name="yoloprune")
    assert result.exit_code == 0, result.output
    told = [line for line in result.stderr.splitlines() if "warning" in line]
    label = f"{own.folder}/labels/early.txt:1"
    assert [line.split(": ")[2] for line in told] == [
        f"{own.data}:1",
        label,
        f"{own.folder}/valid.txt",
        label,
        str(jpeg),
    ]
    assert "expected 2 as the network has, found 3" in told[0]
    assert "1 of 49 objects reach outside" in told[1]
    assert "1 of 6 images have no label file" in told[2]
    assert "1 of 9 objects reach outside" in told[3]
    assert "ends early" in told[4]


def test_data_of_the_calibration_pictures(own: Bench) -> None:
    edit(own.data, "train=train.txt\n", "")
    refused(own, ["ana", *own.inputs], "set.data", "train=")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["map"], ["Missing argument"]),
        (["mop"], ["No such command"]),
        (["map", "a.cfg", "b.weights", "--speed"], ["--speed"]),
        (["map", "CFG", "WEIGHTS", "--points", "12"], ["--points", "0, 11, 101", "12"]),
        (["map", "CFG", "WEIGHTS", "--nms", "soft"], ["--nms", "greedynms", "soft"]),
        (["map", "CFG", "WEIGHTS", "--metric", "map60"], ["--metric", "map50-95", "map60"]),
        (["map", "CFG", "WEIGHTS", "--metric", "top1"], ["--metric", "map50", "top1"]),
        (["map", "CFG", "WEIGHTS", "--dialect", "tf"], ["--dialect", "alexeyab", "tf"]),
        (["map", "CFG", "WEIGHTS", "--images", "0"], ["--images"]),
        (["map", "CFG", "WEIGHTS", "--data", "no.data"], ["no.data"]),
        (["map", "CFG", "WEIGHTS", "--device", "meta"], ["--device", "expected cpu, cuda or cuda:N, found 'meta' ("]),
        (["map", "CFG", "WEIGHTS", "--device", "fpga"], ["--device", "expected cpu, cuda or cuda:N, found 'fpga' ("]),
        (["map", "CFG", "WEIGHTS", "--device", "hpu"], ["--device", "expected cpu, cuda or cuda:N, found 'hpu' ("]),
        (["map", "CFG", "WEIGHTS", "--device", "cuda:x"], ["--device", "found 'cuda:x' (Invalid device string"]),
        (["ana", "CFG", "WEIGHTS", "--criterion", "luck"], ["--criterion", "l1", "luck"]),
        (["run", "CFG", "WEIGHTS", "-o", "x", "--threshold", "0.99", "--epochs", "1", "--exclude", "a"], ["--exclude"]),
        (["run", "CFG", "WEIGHTS", "-o", "x", "--threshold", "0.99", "--epochs", "0"], ["--epochs"]),
        (["ana", "CFG", "WEIGHTS", "--sparsities", "0.5,1"], ["--sparsities", "between 0 and 1", "0.5,1"]),
        (["ana", "CFG", "WEIGHTS", "--sparsities", "half"], ["--sparsities", "half"]),
        (["ana", "CFG", "WEIGHTS", "--losses", "1,5"], ["--tolerances", "did you mean 0.01,0.05?"]),
        (["prune", "--threshold", "0.1"], ["yoloprune-workspace", "no workspace", "ana"]),
        (["status", "-w", "nowhere"], ["nowhere", "no workspace"]),
        (["finetune", "--epochs", "1"], ["no workspace"]),
        (["export", "-o", "out"], ["no workspace"]),
        (["detect", "CFG", "WEIGHTS", "none.jpg", "-o", "out"], ["none.jpg", "no such picture, folder or list"]),
        (["detect", "CFG", "WEIGHTS", "CFG", "-o", "out"], ["tiny.cfg", "not a picture"]),
        (["detect", "CFG", "WEIGHTS", "IMAGE", "CFG", "-o", "out"], ["tiny.cfg", "not a picture"]),
        (["detect", "CFG", "WEIGHTS", "IMAGE", "-o", "CFG"], ["tiny.cfg: is a file, expected a folder"]),
        (["detect", "CFG", "WEIGHTS", "FOLDER", "-o", "out"], ["expected pictures in this folder, found none"]),
        (["detect", "CFG", "WEIGHTS", "IMAGE", "LIST", "-o", "out"], ["list.txt:2: no such image: gone.png"]),
        (["detect", "CFG", "WEIGHTS", "IMAGE", "-o", "IMAGES", "--force"], ["valid_0.png: is a picture to look at"]),
        (["detect", "CFG", "WEIGHTS", "IMAGE", "IMAGE", "-o", "out"], ["two pictures"]),
        (["ana", "CFG", "WEIGHTS", "--no-compensate", "--bn-recalibrate"], ["--no-compensate", "--bn-recalibrate"]),
        (["ana", "CFG", "WEIGHTS", "--calibrate", "0", "--bn-recalibrate"], ["--bn-recalibrate", "--calibrate 0"]),
        (["ana", "CFG", "WEIGHTS", "--calibrate", "0", "--criterion", "apoz"], ["--criterion apoz", "--calibrate 0"]),
        (["verify", "CFG", "WEIGHTS", "CFG", "CFG"], ["tiny.cfg", "byte"]),
        (["verify", "CFG", "WEIGHTS", "CFG", "WEIGHTS", "--image", "no.png"], ["no.png"]),
    ],
    ids=lambda value: " ".join(value) if value[0].islower() else "",
)
def test_use(own: Bench, words: list[str], expected: list[str]) -> None:
    names: dict[str, object] = {"CFG": own.cfg, "WEIGHTS": own.weights, "IMAGE": own.image()}
    names |= {"FOLDER": own.folder / "labels", "IMAGES": own.folder / "images", "LIST": own.folder / "list.txt"}
    (own.folder / "list.txt").write_text("images/valid_0.png\ngone.png\n")
    refused(own, [names.get(word, word) for word in words], *expected)


@pytest.fixture
def analysed(own: Bench) -> Bench:
    result = CliRunner().invoke(cli.app, ["ana", *own.inputs, "--calibrate", "2", "--images", "2"])
    assert result.exit_code == 0, result.output
    return own


@pytest.fixture
def pruned(analysed: Bench) -> Bench:
    result = CliRunner().invoke(cli.app, ["prune", "--ratio", "0.2", "--calibrate", "2"])
    assert result.exit_code == 0, result.output
    return analysed


def test_a_workspace_without_its_inputs(analysed: Bench) -> None:
    for role in ("cfg", "weights", "data"):
        file, copy = getattr(analysed, role), Path("yoloprune-workspace", "inputs", f"original.{role}")
        content = file.read_bytes()
        file.write_bytes(content + b"\n")
        copy.unlink()
        words = ["prune", "--threshold", 0.1, "--calibrate", 2]
        refused(analysed, words, f"{file}: expected the file", str(copy), "--force")
        file.write_bytes(content)


def test_another_job_in_the_workspace(analysed: Bench) -> None:
    started = "yoloprune-workspace: was started with"
    refused(analysed, ["ana", *analysed.inputs, "--images", 3], f"{started} --images 2 (found 3); --force")
    words = ["--images", 1, "--stretch", "--no-labels"]
    several = "--letterbox left out (found no), --images 2 (found 1), --labels yes (found no); --force"
    refused(analysed, ["ana", *analysed.inputs, *words], f"{started} {several}")
    refused(
        analysed,
        ["ana", *analysed.inputs, "--images", 2, "--calibrate", 3],
        "sensitivity.json",
        "calibrate 2, expected 3",
    )


def test_steps_out_of_order(analysed: Bench) -> None:
    refused(analysed, ["finetune", "--epochs", 1], "nothing is pruned yet")
    refused(analysed, ["finetune", "--epochs", 1, "--freeze", "0-99999999999999"], "--freeze", "up to 9999", "0-9999")
    refused(analysed, ["export", "-o", "out"], "nothing is pruned yet")
    refused(analysed, ["prune"], "--threshold", "--ratio")
    refused(analysed, ["prune", "--threshold", 0.99, "--ratio", 0.5], "--threshold", "--ratio")
    cut = ["prune", "--calibrate", 2, "--quiet"]
    refused(analysed, [*cut, "--ratio", 1.5], "--ratio", "1.5")
    refused(analysed, [*cut, "--ratio", 0.99], "--ratio", "at most")
    refused(analysed, [*cut, "--threshold", 0.1, "--exclude", "3"], "--exclude", "layer 3", "0, 1, 2, 4")
    for layers in ("5-1", "0-99999999999999", "1" * 5000, "3-", "-3", "3 5", "a"):
        refused(
            analysed, [*cut, "--threshold", 0.1, "--exclude", f"0,{layers}"], "--exclude", "0-4", f"found '{layers}'"
        )
    refused(analysed, [*cut, "--threshold", 0.1, "--rule", "guess"], "--rule", "prefix", "guess")
    for option, found, meant in (
        ("--threshold", -0.01, ""),
        ("--threshold", 1, "; did you mean 0.01?"),
        ("--threshold", 5, "; did you mean 0.05?"),
        ("--threshold", 150, ""),
        ("--threshold", "nan", ""),
        ("--total-loss", 2, "; did you mean 0.02?"),
        ("--total-loss", -1, ""),
        ("--total-loss", "inf", ""),
    ):
        text = f"yoloprune: {option}: expected a loss of at least 0 and under 1, found {found}{meant}\n"
        assert refused(analysed, [*cut, option, found]) == text
    assert refused(analysed, [*cut, "--ratio", 90]).endswith("found 90; did you mean 0.9?\n")
    refused(analysed, ["run", *analysed.inputs, "-o", "x", "--threshold", 2], "--threshold", "did you mean 0.02?")


def test_outputs_that_exist(analysed: Bench) -> None:
    run = CliRunner()
    assert run.invoke(cli.app, ["prune", "--ratio", "0.2", "--calibrate", "2"]).exit_code == 0
    refused(analysed, ["prune", "--ratio", 0.3, "--calibrate", 2], "round 1", "--force")
    assert run.invoke(cli.app, ["export", "-o", "out"]).exit_code == 0
    refused(analysed, ["export", "-o", "out"], "out/tiny-slim.cfg", "exists already", "--force")
    Path("out/tiny-slim.cfg").unlink()
    refused(analysed, ["export", "-o", "out"], "out/tiny-slim.weights", "exists already")
    words = [analysed.cfg, analysed.weights, analysed.image(), "-o", "out"]
    assert run.invoke(cli.app, ["detect", *map(str, words)]).exit_code == 0
    refused(analysed, ["detect", *words], "out/valid_0.png", "exists already", "--force")


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("workspace.json", "{"),
        ("workspace.json", '{"yoloprune": "workspace", "version": 2}'),
        ("workspace.json", '{"yoloprune": "workspace", "version": 99}'),
        ("round-1/sensitivity.json", "[]"),
        ("round-1/sensitivity.json", '{"yoloprune": "sensitivity", "version": 2, "curves": [3]}'),
    ],
)
def test_spoilt_artefacts(analysed: Bench, file: str, text: str) -> None:
    (Path("yoloprune-workspace") / file).write_text(text)
    refused(analysed, ["prune", "--threshold", 0.1, "--calibrate", 2], file)


def spoil(file: str, keys: str, value: object) -> None:
    """Put `value` where `keys`, as a.0.b, lead in a file of the workspace; `...` takes the last key away."""
    path = Path("yoloprune-workspace") / file
    payload = at = json.loads(path.read_text())
    *way, last = [int(key) if key.isdecimal() else key for key in keys.split(".")]
    for key in way:
        at = at[key]
    if value is ...:
        del at[last]
    else:
        at[last] = value
    path.write_text(json.dumps(payload))


@pytest.mark.parametrize(
    ("keys", "value", "expected"),
    [
        ("cfg", None, "cfg: expected an object, found None"),
        ("cfg.path", None, "cfg.path: expected text, found None"),
        ("weights.sha256", 3, "weights.sha256: expected text, found 3"),
        ("weights.sha256", ..., "weights: expected the keys path, sha256, found no sha256"),
        ("data.size", 3, "data: expected the keys path, sha256, found ['size']"),
        ("settings.dialect", 0.5, "settings.dialect: expected text, found 0.5"),
        ("settings.letterbox", 1, "settings.letterbox: expected true or false, found 1"),
        ("settings.images", True, "settings.images: expected a whole number, found True"),
        ("settings.images", 1.5, "settings.images: expected a whole number, found 1.5"),
        ("original.accuracy", "x", "original.accuracy: expected a number, found 'x'"),
        ("original.accuracy", 10**400, "original.accuracy: expected a number, found 1000"),
        ("original.accuracy", float("inf"), "original.accuracy: expected a number, found inf"),
        ("original.bflops", 0, "original.bflops: expected more than 0, found 0"),
        ("rounds", {}, "rounds: expected a list, found {}"),
        ("rounds.0", 3, "rounds[0]: expected an object, found 3"),
        ("rounds.0.pruned.bytes", [], "rounds[0].pruned.bytes: expected a whole number, found []"),
        ("rounds.0.options", [], "rounds[0].options: expected an object, found []"),
        ("rounds.0.threshold", "1", "rounds[0].threshold: expected a number, found '1'"),
    ],
)
def test_workspace_edited_by_hand(pruned: Bench, keys: str, value: Any, expected: str) -> None:
    spoil("workspace.json", keys, value)
    refused(pruned, ["status"], expected)


@pytest.mark.parametrize(
    ("keys", "value", "expected"),
    [
        ("baseline", None, "baseline: expected a number, found None"),
        ("options.tolerances", [0], "tolerances: expected numbers over 0, found (0.0,)"),
        ("options.sparsities", [10**30], "sparsities: expected numbers between 0 and 1, found (1e+30,)"),
        ("setup.images", "3", "setup.images: expected a whole number, found '3'"),
        ("curves.0.producers", [999], "curves[0].producers: expected groups among 0+1, 2, 4, each once, found (999,)"),
        ("curves.0.producers", [], "curves[0].producers: expected groups among 0+1, 2, 4, each once, found ()"),
        ("curves.1.producers", [0, 1], "curves[1].producers: expected groups among 0+1, 2, 4, each once, found (0, 1)"),
        ("curves.0.order.0", 10**30, "curves[0].order: expected positions from 0 on, each once, found (10000000"),
        ("curves.0.order.0", 1.5, "curves[0].order[0]: expected a whole number, found 1.5"),
        ("curves.0.order", [1, 0], "curves[0].size: expected 2, as in its order, found 8"),
        ("curves.0.gone", 10**30, "curves[0].gone: expected 0..7, found 1000"),
        ("curves.0.gone", 1, "curves[0].gone: expected 0, found 1"),
        ("curves.0.proxy", [[3, 1], [2, 1]], "curves[0].proxy: expected rising counts within 1..7, found [3, 2]"),
        ("curves.0.proxy", [[3, -1]], "curves[0].proxy: expected output_errors of 0 or more, found [-1.0]"),
        ("curves.0.points", [{"accuracy": 1}], "curves[0].points[0]: expected the keys dropped, accuracy, interval, s"),
        ("curves.0.points", [{"dropped": 8, "accuracy": 1}], "curves[0].points: expected rising counts within 1..7"),
        ("curves.0.points.0.interval", [], "curves[0].points[0].interval: expected 2 values, found []"),
        ("curves.0.points.0.interval", [2, 1], "curves[0].points[0].interval: expected the lower loss first, found ("),
        ("curves.0.points.0.share", -1, "curves[0].points[0].share: expected a share over 0, 1 at the most, found -1"),
        ("curves.0.points.0.share", float("nan"), "curves[0].points[0].share: expected a number, found nan"),
    ],
)
def test_sensitivity_edited_by_hand(analysed: Bench, keys: str, value: Any, expected: str) -> None:
    spoil("round-1/sensitivity.json", keys, value)
    refused(analysed, ["prune", "--threshold", 0.1, "--calibrate", 2], f"round-1/sensitivity.json: {expected}")


def test_curves_of_the_units_that_are_left(pruned: Bench) -> None:
    """In the second round something is gone, and an order has it first."""
    run = CliRunner()
    assert run.invoke(cli.app, ["finetune", "--epochs", "1"]).exit_code == 0
    assert run.invoke(cli.app, ["ana", *pruned.inputs, "--calibrate", "2", "--images", "2"]).exit_code == 0
    file = "round-2/sensitivity.json"
    curves = json.loads(Path("yoloprune-workspace", file).read_text())["curves"]
    at, curve = next((at, curve) for at, curve in enumerate(curves) if curve["gone"])
    spoil(file, f"curves.{at}.order", curve["order"][::-1])
    refused(
        pruned,
        ["prune", "--ratio", 0.5, "--calibrate", 2],
        file,
        f"curves[{at}].order: expected one of this group, what is gone",
    )
    spoil("round-1/sensitivity.json", "curves.0.producers", [5])
    again = ["prune", "--ratio", 0.5, "--calibrate", 2, "--reuse-analysis"]
    refused(pruned, again, "round-1/sensitivity.json: curves[0].producers: expected groups")


def test_json_too_deep_to_read(analysed: Bench) -> None:
    Path("yoloprune-workspace/workspace.json").write_text("[" * 200_000)
    refused(analysed, ["status"], "workspace.json: expected JSON")
