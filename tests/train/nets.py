"""Small networks for tests of training."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from yoloprune.darknet.cfg import parse
from yoloprune.darknet.dialect import ALEXEYAB, Dialect
from yoloprune.darknet.model import Graph, understand


def graph(text: str, dialect: Dialect = ALEXEYAB, file: Path | str = "net.cfg") -> Graph:
    return understand(parse(text.encode(), str(file)), dialect)


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
