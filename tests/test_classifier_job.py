"""A drawn classifier through all commands, with one channel and with three, and measured by stock Darknet."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.test_cli import answer, call
from yoloprune.darknet import weights as weights_file
from yoloprune.darknet.dialect import ALEXEYAB
from yoloprune.darknet.model import load_graph

SIDE = 12
NAMES = ("lying", "standing", "falling")
CFG = f"""[net]
batch=12
width={SIDE}
height={SIDE}
channels=CHANNELS
learning_rate=.05
max_batches=12
min_crop={SIDE}
max_crop={SIDE + 2}
flip=0

[convolutional]
batch_normalize=1
filters=8
size=3
pad=1
activation=leaky

[maxpool]
size=2
stride=2

[connected]
output=16
activation=leaky

[dropout]
probability=.2

[connected]
output=3
activation=linear

[softmax]

[cost]
type=sse
"""


def draw(folder: Path, part: str, count: int, rng: np.random.Generator) -> None:
    """Pictures in grey, some not square, and their list."""
    lines = []
    for number in range(count):
        name = NAMES[number % 3]
        pixels = rng.integers(0, 60, (SIDE + number % 3, SIDE + number % 2), np.uint8)
        at = int(rng.integers(3, SIDE - 3))
        ends = {"lying": ((0, at), (30, at)), "standing": ((at, 0), (at, 30)), "falling": ((0, 0), (14, 14))}[name]
        cv2.line(pixels, *ends, 220, 2)
        lines.append(str(folder / f"{part}-{number}-{name}.png"))
        assert cv2.imwrite(lines[-1], pixels)
    (folder / f"{part}.txt").write_text("\n".join(lines) + "\n")


@pytest.fixture(params=[1, 3], ids=["grey", "colour"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Path]:
    """A cfg and a .data file."""
    rng = np.random.default_rng(request.param)
    for part, count in (("train", 48), ("valid", 30)):
        draw(tmp_path, part, count, rng)
    (tmp_path / "set.labels").write_text("".join(f"-{name}.\n" for name in NAMES))
    (tmp_path / "set.names").write_text("".join(f"{name}\n" for name in NAMES))
    keys = {"classes": 3, "train": "train.txt", "valid": "valid.txt", "labels": "set.labels", "names": "set.names"}
    written = "".join(f"{key}={value if key == 'classes' else tmp_path / str(value)}\n" for key, value in keys.items())
    (tmp_path / "set.data").write_text(written + "top=2\n")
    (tmp_path / "net.cfg").write_text(CFG.replace("CHANNELS", str(request.param)))
    return tmp_path / "net.cfg", tmp_path / "set.data"


def by_darknet(data: Path, cfg: Path, weights: Path) -> float:
    """Top-1 as `darknet classifier valid` counts it."""
    program = shutil.which("darknet")
    if program is None:
        pytest.skip("stock Darknet's program is not installed")
    said = subprocess.run(
        [program, "classifier", "valid", data, cfg, weights], capture_output=True, text=True, check=True
    ).stdout
    return float(re.findall(r"top 1: ([0-9.]+)", said)[-1])


def test_a_classifier_through_all_commands(files: tuple[Path, Path], tmp_path: Path, one_thread: None) -> None:
    """What is measured at the end is what stock Darknet measures of the files, before and after."""
    cfg, data = files
    trained = answer("train", cfg, "--data", data, "-o", tmp_path / "out", "--workers", 0)
    weights = Path(trained["files"]["best"])
    space = ["-w", tmp_path / "space"]
    call("ana", cfg, weights, "--data", data, "--calibrate", 24, "--sparsities", "0.5", "--dialect", "pjreddie", *space)
    pruned = answer("prune", "--sparsity", 0.5, "--multiple", 1, *space)
    tuned = answer("finetune", "--iterations", 4, "--workers", 0, *space)
    slim = answer("export", "-o", tmp_path / "slim", *space)
    small, light = Path(slim["files"]["cfg"]), Path(slim["files"]["weights"])
    channels = [getattr(layer, "filters", None) for layer in load_graph(small, ALEXEYAB).layers]
    assert channels[:1] == [4]
    call("pack", small, light, "-o", tmp_path / "slim.ypz")
    call("unpack", tmp_path / "slim.ypz", "-o", tmp_path / "again")
    again = tmp_path / "again" / "slim.weights"
    assert again.read_bytes() == light.read_bytes()
    assert len(weights_file.read(again, load_graph(small, ALEXEYAB).layers).layers) == 7
    for each, held, said in ((cfg, weights, pruned["before"]), (small, again, tuned["after"])):
        found = measured(each, held, data)
        assert found["top1"] == pytest.approx(by_darknet(data, each, held), abs=1e-5)
        assert found["top1"] == pytest.approx(said["top1"], abs=1e-9)
    assert found["top5"] == 1  # of three classes


def measured(cfg: Path, weights: Path, data: Path) -> dict[str, Any]:
    """As `map` answers by the rules of that Darknet."""
    return answer("map", cfg, weights, "--data", data, "--dialect", "pjreddie")
