"""Small networks for tests of training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from yoloprune.darknet.cfg import parse
from yoloprune.darknet.dialect import ALEXEYAB, Dialect
from yoloprune.darknet.model import Graph, build_graph


def graph(text: str, dialect: Dialect = ALEXEYAB, file: Path | str = "net.cfg") -> Graph:
    return build_graph(parse(text.encode(), str(file)), dialect)


def random_truths(rng: np.random.Generator, images: int, most: int, classes: int) -> np.ndarray:
    """[B, most, 5] class, x, y, w, h, then rows of -1; every other one nearly repeats the one before."""
    rows = np.zeros((images, most, 5), np.float32)
    rows[:, :, 0] = -1
    for image in rows:
        number = rng.integers(0, most + 1)
        size = rng.uniform(0.05, 0.6, (number, 2))
        image[:number, 0] = rng.integers(0, classes, number)
        image[:number, 1:3] = rng.uniform(size / 2, 1 - size / 2)
        image[:number, 3:] = size
        for again in range(1, number, 2):
            image[again, 1:] = image[again - 1, 1:] * rng.uniform(0.99, 1.01, 4)
    return rows


def drawn_net(rng: np.random.Generator, sides: Sequence[int], activations: Sequence[str], rate: float) -> str:
    """A random cfg of all that pjreddie's Darknet trains on a CPU, ending in two [yolo] heads.

    Widths and heights come from `sides`, multiples of 8. Of a layer with several readers none is a convolution of 1x1:
    on a CPU that one's backward pass overwrites what the other readers have told it (gemm with beta 0).
    """
    sections: list[str] = []

    def say(name: str, **keys: object) -> int:
        """Index of the layer."""
        sections.append(f"[{name}]\n" + "".join(f"{key}={value}\n" for key, value in keys.items()))
        return len(sections) - 2

    def convolution(filters: int, size: int, **keys: object) -> int:
        given = {"batch_normalize": 1, "activation": rng.choice(activations), **keys}
        return say("convolutional", filters=filters, size=size, pad=1, **given)

    def some(low: int, high: int) -> int:
        return 2 * int(rng.integers(low, high))

    def head(mask: str, filters: int) -> None:
        convolution(filters, 3, batch_normalize=0, activation="linear")
        say(
            "yolo",
            mask=mask,
            anchors="5,4, 9,8, 14,22, 30,10, 50,25",
            classes=2,
            num=5,
            ignore_thresh=f"{rng.uniform(0.2, 0.6):.2f}",
            truth_thresh=rng.choice(["1", f"{rng.uniform(0.4, 0.9):.2f}"]),
        )

    say(
        "net",
        batch=4,
        subdivisions=rng.choice([1, 2]),
        width=rng.choice(sides),
        height=rng.choice(sides),
        channels=3,
        learning_rate=rate,
        momentum=f"{rng.uniform(0.3, 0.95):.2f}",
        decay=f"{rng.uniform(0, 0.02):.3f}",
        burn_in=3,
        power=1,
        policy="constant",
        max_batches=100,
    )
    convolution(some(2, 6), int(rng.choice([3, 5])))
    if rng.integers(2):
        say("maxpool", size=2, stride=2)
    else:
        convolution(some(2, 6), 3, stride=2)
    width = some(2, 6)
    fine = convolution(width, 3)
    for _ in range(rng.integers(1, 3)):
        inner = int(rng.integers(1, 3))
        for number in range(inner):
            convolution(width, int(rng.choice([1, 3])) if number else 3)
        fine = say("shortcut", **{"from": -inner - 1}, activation=rng.choice(["linear", "leaky"]))
    coarse = convolution(some(2, 7), 3, stride=2, groups=rng.integers(1, 3))
    head("2,3,4", 21)
    say("route", layers=coarse)
    convolution(int(rng.integers(2, 7)), 1, batch_normalize=rng.integers(2))
    say("upsample", stride=2)
    say("route", layers=f"-1,{fine}")
    if rng.integers(2):
        say("maxpool", size=2, stride=1)
    if rng.integers(2):
        convolution(some(2, 6), 3)
    head("0,1", 14)
    return "\n".join(sections)
