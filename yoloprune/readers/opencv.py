"""OpenCV's importer of Darknet files, cv2.dnn.readNetFromDarknet.

It runs in `opencv_worker`: a hostile file may crash it, and its threads would contend with ours.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from yoloprune.readers.base import Floats, ReaderError
from yoloprune.readers.process import Answer, call


def available() -> str | None:
    """None, or why OpenCV cannot be used here."""
    return None if importlib.util.find_spec("cv2") else "the Python package opencv-python is not installed"


def loads(cfg: Path, weights: Path) -> str | None:
    """None if readNetFromDarknet takes the files, else the reason."""
    try:
        _call("load", cfg, weights)
    except ReaderError as error:
        return str(error)
    return None


def head_inputs(cfg: Path, weights: Path, inputs: Floats, heads: Sequence[int]) -> dict[int, Floats]:
    """The tensor that enters each head, [B, C, H, W] (see `Reader`)."""
    answer = _call("head_inputs", cfg, weights, {"heads": [int(head) for head in heads]}, {"inputs": inputs})
    return {int(name): array for name, array in answer.arrays.items()}


def head_outputs(cfg: Path, weights: Path, inputs: Floats) -> dict[int, Floats]:
    """What each [yolo] and [region] gives, [B, cells * A, 5 + K]: centre x, y, w, h as shares of the net's input,
    objectness, and class probabilities times objectness.

    Cells row by row, then anchors. OpenCV sets probabilities under the head's `thresh` to 0 (0.2 by default in [yolo]);
    here the net runs from a copy of the cfg with thresh=0, so nothing is cut. But [region] suppresses overlaps within
    the head (IoU over 0.4), which no key turns off: its suppressed probabilities stay 0.
    """
    answer = _call("head_outputs", cfg, weights, None, {"inputs": inputs})
    return {int(name): array for name, array in answer.arrays.items()}


def seconds(cfg: Path, weights: Path, image: Floats, repeats: int) -> float:
    """Median time in seconds of a forward pass on one thread (see `Reader`)."""
    return float(_call("seconds", cfg, weights, {"repeats": repeats}, {"inputs": image[None]}).value)


def race(files: Sequence[tuple[Path, Path]], image: Floats, rounds: int) -> list[list[float]]:
    """Seconds of a forward pass, networks in turns (see `Reader`)."""
    job = {"do": "race", "files": [(str(cfg), str(weights)) for cfg, weights in files], "rounds": rounds}
    answer = call("yoloprune.readers.opencv_worker", job, {"inputs": image[None]})
    return [[float(seconds) for seconds in each] for each in answer.value]


def layer_seconds(cfgs: Sequence[str], floats: Sequence[int]) -> list[float]:
    """Least time of each cfg's last section, by the share that OpenCV's own clock gives it (see `Reader`)."""
    job = {"do": "layer_seconds", "cfgs": list(cfgs), "floats": list(map(int, floats))}
    return [float(seconds) for seconds in call("yoloprune.readers.opencv_worker", job).value]


def _call(
    what: str,
    cfg: Path,
    weights: Path,
    more: dict[str, Any] | None = None,
    arrays: dict[str, Floats] | None = None,
) -> Answer:
    job = {"do": what, "cfg": str(cfg), "weights": str(weights), **(more or {})}
    return call("yoloprune.readers.opencv_worker", job, arrays)
