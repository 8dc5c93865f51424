"""OpenCV's importer of Darknet files, cv2.dnn.readNetFromDarknet.

It runs in `opencv_worker`: a hostile file may crash it, and its threads would contend with ours.
"""

from __future__ import annotations

from pathlib import Path

from yoloprune.readers.base import Floats
from yoloprune.readers.program import Program, installed

_PROGRAM = Program("yoloprune.readers.opencv_worker")


def available() -> str | None:
    """None, or why OpenCV cannot be used here."""
    return installed("cv2", "opencv-python")


loads = _PROGRAM.loads
"""Whether readNetFromDarknet takes the files (see `Reader`, here and below)."""
head_inputs = _PROGRAM.head_inputs
race = _PROGRAM.race
layer_seconds = _PROGRAM.layer_seconds
"""As OpenCV's own clock has it."""


def head_outputs(cfg: Path, weights: Path, inputs: Floats) -> dict[int, Floats]:
    """What each [yolo] and [region] gives, [B, cells * A, 5 + K]: centre x, y, w, h as shares of the net's input,
    objectness, and class probabilities times objectness.

    Cells row by row, then anchors. OpenCV sets probabilities under the head's `thresh` to 0 (0.2 by default in [yolo]);
    here the net runs from a copy of the cfg with thresh=0, so nothing is cut. But [region] suppresses overlaps within
    the head (IoU over 0.4), which no key turns off: its suppressed probabilities stay 0.
    """
    answer = _PROGRAM.call("head_outputs", cfg, weights, arrays={"inputs": inputs})
    return {int(name): array for name, array in answer.arrays.items()}
