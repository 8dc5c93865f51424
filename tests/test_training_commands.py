"""`train` and the options of `finetune`, as a user types them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.drawn import Bench, bench, fingerprint
from tests.test_cli import answer, call
from yoloprune.darknet import weights as weights_file
from yoloprune.darknet.dialect import ALEXEYAB
from yoloprune.darknet.model import load_graph
from yoloprune.detect.measure import Measure
from yoloprune.errors import InputError
from yoloprune.options import FinetuneOptions, Settings, TrainOptions
from yoloprune.progress import Progress
from yoloprune.steps.finetune import finetune
from yoloprune.steps.train import train_network
from yoloprune.steps.training import follower
from yoloprune.train.progress import Record, TrainingProgress


@pytest.fixture(scope="module")
def made(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return bench(tmp_path_factory.mktemp("set") / "set")


@pytest.fixture(scope="module")
def pruned(made: Bench, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a first round cut."""
    space = tmp_path_factory.mktemp("work") / "space"
    plain = ["--calibrate", 0, "-w", space]
    call("ana", *made.inputs, "--sparsities", "0.5", *plain)
    call("prune", "--ratio", 0.3, *plain)
    return space


@pytest.fixture
def space(pruned: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pruned, tmp_path / "space"))


def test_train_writes_what_map_measures(made: Bench, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["train", made.cfg, "--data", made.data, "-o", out, "--iterations", 5, "--seed", 3, "--workers", 0]
    ahead = answer(*words, "--dry-run")
    assert (ahead["figures"], ahead["iterations"], ahead["files"]) == (None, 5, {})
    assert not out.exists()
    found = answer(*words)
    assert set(fingerprint(out)) == {"tiny-best.weights", "tiny-last.weights", "log.csv", "chart.png", "last.pt"}
    measured = answer("map", made.cfg, found["files"]["best"], "--data", made.data)
    assert found["figures"]["map50_present"] == pytest.approx(measured["map50_present"], abs=1e-6)
    chart = cv2.imread(found["files"]["chart"])
    assert chart is not None
    assert len(np.unique(chart.reshape(-1, 3), axis=0)) > 50
    refused = call(*words, status=2).stderr
    assert "tiny-best.weights: exists already" in refused
    again = answer(*words, "--force")
    assert again == found


def test_train_writes_where_the_data_file_says(made: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert answer("train", made.cfg, "--data", made.data, "--iterations", 1)["iterations"] == 1
    assert (tmp_path / "backup" / "tiny-best.weights").exists()


def test_train_goes_on_where_it_was(made: Bench, tmp_path: Path) -> None:
    def stop(step: Progress) -> None:
        if step.done == 3:
            raise KeyboardInterrupt

    options = TrainOptions(iterations=6, seed=1, workers=0)
    whole = train_network(made.cfg, made.data, tmp_path / "whole", options)
    with pytest.raises(KeyboardInterrupt):
        train_network(made.cfg, made.data, tmp_path / "parts", options, progress=stop)
    for other in (Settings(metric="map75"), Settings(images=1), Settings(letterbox=True)):  # can't be compared
        with pytest.raises(InputError, match="belongs to a run with other"):
            train_network(made.cfg, made.data, tmp_path / "parts", options, settings=other)
    parts = train_network(made.cfg, made.data, tmp_path / "parts", options)
    for a, b in ((whole.best, parts.best), (whole.last, parts.last), (whole.log, parts.log)):
        assert a.read_bytes() == b.read_bytes()


def test_train_starts_from_the_first_layers_of_a_file(made: Bench, tmp_path: Path) -> None:
    graph = load_graph(made.cfg, ALEXEYAB)
    partial = tmp_path / "tiny.conv.3"
    partial.write_bytes(made.weights.read_bytes()[: 20 + 4 * weights_file.count(graph.layers[:3])])
    words = ["train", made.cfg, "--data", made.data, "--iterations", 1, "--ema", 0.5, "--workers", 0]
    found = answer(*words, "-o", tmp_path / "out", "--pretrained", partial)
    assert found["pretrained_layers"] == 4  # the maxpool after them has no weights
    trained = weights_file.read(found["files"]["last"], graph.layers)
    start = weights_file.read(made.weights, graph.layers)
    for index, near in ((0, True), (4, False)):  # one update at a low rate moves little
        gap = np.abs(trained.layers[index]["weight"] - start.layers[index]["weight"]).max()
        assert (gap < 0.05) == near
    partial.write_bytes(partial.read_bytes()[:-4])
    # cut off within layer 2, behind its variances, which say that layers 0 and 1 are read right
    result = call(*words, "-o", tmp_path / "b", "--pretrained", partial, "--dry-run")
    assert f"from the first 2 layers of {partial}" in " ".join(result.stdout.split())
    chosen = ["--pretrained", partial, "--pretrained-layers"]
    said = call(*words, "-o", tmp_path / "c", *chosen, 1).stderr
    assert f"the first 1 of 8 layers from {partial}" in said
    refused = call(*words, "-o", tmp_path / "b", *chosen, 3, status=2).stderr
    assert "tiny.conv.3: --pretrained-layers: expected" in refused
    refused = call(*words, "-o", tmp_path / "b", *chosen[2:], 1, status=2).stderr
    assert "expected --pretrained with it" in refused


def test_a_network_that_more_training_does_not_help_stays(
    made: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = load_graph(made.cfg, ALEXEYAB)
    partial = tmp_path / "tiny.conv.3"
    partial.write_bytes(made.weights.read_bytes()[: 20 + 4 * weights_file.count(graph.layers[:3])])
    words = ["train", made.cfg, "--data", made.data, "--iterations", 2, "--workers", 0, "--pretrained"]
    for start, metrics in ((made.weights, [0.7, 0.5, 0.6]), (partial, [0.5, 0.6])):  # new heads aren't measured
        turn = iter(metrics)
        monkeypatch.setattr(Measure, "accuracy", lambda self, network, turn=turn: next(turn))
        out, whole = tmp_path / start.name[-1], start == made.weights
        result = call(*words, start, "-o", out)
        assert ("training did not help: map50_present 0.7000 before, at best 0.6000" in result.stderr) == whole
        assert ("lower learning_rate=" in result.stderr) == whole
        best, last = (weights_file.read(out / f"tiny-{name}.weights", graph.layers) for name in ("best", "last"))
        begun = weights_file.read(made.weights, graph.layers)
        assert (best.header.seen, last.header.seen) == (0 if whole else 2 * 4, 2 * 4)
        assert (best.layers[4]["weight"] == begun.layers[4]["weight"]).all() == whole
        assert (last.layers[4]["weight"] != begun.layers[4]["weight"]).any()


def test_finetuning_never_ends_below_its_start_without_a_word(space: Path) -> None:
    job = space / "workspace.json"
    text = json.loads(job.read_text())
    text["rounds"][0]["pruned"]["accuracy"] = 0.9999  # what no network of this size reaches
    job.write_text(json.dumps(text))
    result = call("finetune", "--iterations", 2, "--workers", 0, "-w", space, "--json", "-")
    said, found = result.stderr, json.loads(result.stdout)
    assert "training did not help: map50_present 0.9999 before, at best 0." in said
    assert "the weights that it began with stay" in said
    assert "--learning-rate (0.005 this time)" in said
    assert "--distill" in said
    assert found["after"] == found["before"] == answer("status", "-w", space)["rounds"][0]["finetuned"]
    folder = space / "round-1"
    assert (folder / "finetuned.weights").read_bytes() == (folder / "pruned.weights").read_bytes()
    assert (folder / "training" / "last.weights").read_bytes() != (folder / "pruned.weights").read_bytes()


def test_a_teacher_needs_no_labels(made: Bench, space: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(made.folder, tmp_path / "set"))
    for file in (folder / "labels").glob("train_*"):
        file.unlink()
    unlabelled = space / "workspace.json"
    text = json.loads(unlabelled.read_text())
    text["data"]["path"] = str(folder / "set.data")  # the same file elsewhere, by its hash
    unlabelled.write_text(json.dumps(text))
    words = ["finetune", "--iterations", 3, "-w", space, "--workers", 0]
    assert "no label file" in call(*words, status=2).stderr
    assert "--distill" in call(*words, "--no-labels", status=2).stderr
    found = answer(*words, "--distill", "--no-labels", "--freeze", "0-1", "--early-stop", 2, "--bf16", "--ema", 0.9)
    graph = load_graph(made.cfg, ALEXEYAB)
    before, after = (
        weights_file.read(file, graph.layers) for file in (space / "round-1" / "pruned.weights", found["files"]["last"])
    )
    for index, same in ((0, True), (1, True), (2, False), (4, False)):
        for name, array in before.layers[index].items():
            assert (array == after.layers[index][name]).all() == same, (index, name)


@pytest.mark.parametrize(
    ("layers", "found"),
    [
        ("a", "layer numbers"),
        ("0-99", "--freeze"),
        ("0-7", "not all of them"),
        ("0-6", "no layer with weights is left"),
    ],
)
def test_what_cannot_be_frozen(space: Path, layers: str, found: str) -> None:
    words = ["finetune", "--iterations", 1, "-w", space, "--freeze", layers]
    assert found in call(*words, status=2).stderr


@pytest.mark.parametrize("epochs", ["0", "-1", "nan", "inf"])
def test_training_for_no_time_is_refused(space: Path, epochs: str) -> None:
    assert "--epochs" in call("finetune", "--epochs", epochs, "-w", space, status=2).stderr
    with pytest.raises(InputError, match="expected at least 1 iteration of 1 image, found 0 of"):
        finetune(FinetuneOptions(iterations=0), workspace=space)


def test_a_classifier_is_trained_and_cut_and_trained(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("valid", 6)):
        names = []
        for number in range(count):
            kind = ("lying", "standing")[number % 2]
            pixels = rng.integers(0, 40, (31, 27, 3), np.uint8)
            if kind == "lying":
                pixels[::3] += 180
            else:
                pixels[:, ::3] += 180
            names.append(f"{split}-{kind}-{number}.png")
            cv2.imwrite(str(tmp_path / names[-1]), pixels)
        (tmp_path / f"{split}.txt").write_text("\n".join(names))
    (tmp_path / "names").write_text("lying\nstanding\n")
    (tmp_path / "set.data").write_text("classes=2\ntrain=train.txt\nvalid=valid.txt\nlabels=names\n")
    (tmp_path / "net.cfg").write_text(
        "[net]\nbatch=6\nwidth=20\nheight=20\nchannels=3\nlearning_rate=.05\nmax_batches=30\nmin_crop=20\nmax_crop=26\n"
        "[convolutional]\nfilters=6\nsize=3\nstride=2\nbatch_normalize=1\nactivation=leaky\n"
        "[convolutional]\nfilters=2\nactivation=linear\n[avgpool]\n[softmax]\n[cost]\ntype=sse\n"
    )
    data = ["--data", tmp_path / "set.data"]
    found = answer("train", tmp_path / "net.cfg", *data, "-o", tmp_path / "out", "--workers", 0)
    assert found["figures"]["top1"] == 1
    plain = ["-w", tmp_path / "space"]
    call("ana", tmp_path / "net.cfg", found["files"]["best"], *data, "--calibrate", 0, "--sparsities", "0.5", *plain)
    call("prune", "--ratio", 0.3, "--calibrate", 0, *plain)
    tuned = answer("finetune", "--iterations", 4, "--distill", "--no-labels", *plain)
    assert "top1" in tuned["after"]


def test_one_line_says_how_far_training_is() -> None:
    told: list[Progress] = []
    tell = follower(told.append, "train")
    tell(TrainingProgress(Record(7, 3.21, 3.456, 0.00125), 90, 31.6, 125.0, None))
    tell(TrainingProgress(Record(8, 3.0, 3.4, 0.001, 0.5), 90, 31.6, 12.4, 0.51234))
    tell(TrainingProgress(Record(9, 3.0, 3.4, 0.001), 90, 31.6, 9000.0, 0.5))
    assert [(step.stage, step.done, step.total) for step in told] == [
        ("train", 7, 90),
        ("train", 8, 90),
        ("train", 9, 90),
    ]
    assert told[0].text == "2 min left, loss 3.210, avg 3.456, rate 0.0013, 32 images/s"
    assert told[1].text == "12 s left, loss 3.000, avg 3.400, best 0.5123, rate 0.001, 32 images/s"
    assert told[2].text.startswith("2.5 h left, ")
