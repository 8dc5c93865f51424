"""A small detection set, drawn here, and a small network for it: what whole commands run on in tests.

`python -m tests.drawn` trains the network again, into drawn.weights; none of the tests may rest on where that leads.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from tests.helpers import graph_of, random_model
from yoloprune.darknet import weights as weights_file
from yoloprune.darknet.data import load_split, read_data
from yoloprune.darknet.dialect import ALEXEYAB
from yoloprune.darknet.model import Model, load_graph
from yoloprune.train.loop import train
from yoloprune.train.recipe import Recipe

CFG = """\
[net]
batch=4
subdivisions=1
width=64
height=64
channels=3
learning_rate=0.01
burn_in=0
max_batches=100
hue=.1

# stem
[convolutional]
batch_normalize=1
filters=8
size=3
stride=2
pad=1
activation=leaky

[convolutional]
batch_normalize=1
filters=8
size=3
stride=1
pad=1
groups=8
activation=relu

[convolutional]
batch_normalize=1
filters=12
size=1
stride=1
pad=1
activation=leaky

[maxpool]
size=2
stride=2

[convolutional]
batch_normalize=1
filters=12
size=3
stride=2
pad=1
activation=leaky

[route]
layers=-1

[convolutional]
filters=14
size=1
stride=1
pad=1
activation=linear

[yolo]
mask=0,1
anchors=10,10, 24,24
classes=2
num=2
jitter=0
"""
"""Eight layers; layers 0, 2 and 4 make three groups of channels."""
TRAINED = Path(__file__).with_name("drawn.weights")


@dataclass(frozen=True)
class Bench:
    """Files of a job."""

    folder: Path

    @property
    def cfg(self) -> Path:
        return self.folder / "tiny.cfg"

    @property
    def weights(self) -> Path:
        return self.folder / "tiny.weights"

    @property
    def data(self) -> Path:
        return self.folder / "set.data"

    def image(self, index: int = 0) -> Path:
        return self.folder / "images" / f"valid_{index}.png"

    def label(self, index: int = 0) -> Path:
        return self.folder / "labels" / f"valid_{index}.txt"

    @property
    def inputs(self) -> list[str]:
        """As a command takes them."""
        return [str(self.cfg), str(self.weights), "--data", str(self.data)]


def bench(folder: Path, seed: int = 0) -> Bench:
    """Draw the set and write the network into a folder, with random weights."""
    made = Bench(folder)
    rng = np.random.default_rng(seed)
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    for split, count in (("train", 24), ("valid", 5)):
        stems = [f"{split}_{index}" for index in range(count)]
        for stem in stems:
            pixels, labels = picture(rng)
            assert cv2.imwrite(str(folder / "images" / f"{stem}.png"), pixels)
            (folder / "labels" / f"{stem}.txt").write_text(labels)
        (folder / f"{split}.txt").write_text("".join(f"images/{stem}.png\n" for stem in stems))
    (folder / "set.names").write_text("box\ndisc\n")
    made.data.write_text("classes=2\ntrain=train.txt\nvalid=valid.txt\nnames=set.names\nbackup=backup\n")
    made.cfg.write_text(CFG)
    model = random_model(graph_of(CFG), seed)
    weights_file.write(made.weights, model.weights, model.graph.layers)
    return made


def trained(folder: Path) -> Bench:
    """The set, and the network as `learn` left it: it finds most of the valid list's objects, and can lose them."""
    made = bench(folder)
    shutil.copyfile(TRAINED, made.weights)
    return made


def learn(iterations: int = 600) -> None:
    """Train the network and keep it, for all machines: where training ends, the order of a kernel's sums decides."""
    with tempfile.TemporaryDirectory() as name:
        made = bench(Path(name) / "set")
        graph = load_graph(made.cfg, ALEXEYAB)
        images = load_split(read_data(made.data), "train", ALEXEYAB, classes=graph.classes)
        model = Model(graph, weights_file.initial(graph.layers, seed=0))
        recipe = Recipe.for_finetuning(graph, iterations, learning_rate=0.01, batch=16)
        found = train(model, images, recipe, folder=Path(name) / "run", seed=0)
        weights_file.write(TRAINED, found.last, graph.layers, force=True)


def picture(rng: np.random.Generator) -> tuple[np.ndarray, str]:
    """Noise with a box and a disc, [H, W, 3], and its label file; sizes are odd and differ."""
    height, width = (int(side) for side in rng.integers(30, 50, 2) * 2 + 1)
    pixels = rng.integers(0, 90, (height, width, 3), np.uint8)
    lines = []
    for kind in (0, 1):
        radius = int(rng.integers(6, 12))
        x, y = (int(rng.integers(radius, side - radius)) for side in (width, height))
        colour = tuple(int(value) for value in rng.integers(120, 256, 3))
        if kind == 0:
            cv2.rectangle(pixels, (x - radius, y - radius), (x + radius, y + radius), colour, cv2.FILLED)
        else:
            cv2.circle(pixels, (x, y), radius, colour, cv2.FILLED)
        side = 2 * radius + 1
        lines.append(
            f"{kind} {(x + 0.5) / width:.6f} {(y + 0.5) / height:.6f} {side / width:.6f} {side / height:.6f}\n"
        )
    return pixels, "".join(lines)


def fingerprint(folder: Path) -> dict[str, str]:
    """Every file and folder below, files with their SHA-256."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in sorted(folder.rglob("*"))
    }


if __name__ == "__main__":
    learn()
