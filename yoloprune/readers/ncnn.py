"""ncnn: what phones and small boards run, by its Python package. It reads Darknet's files after a conversion.

All of it happens in `ncnn_worker`: a hostile file may crash it, and its threads would contend with ours.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from yoloprune.readers.base import Floats, ReaderError
from yoloprune.readers.process import Answer, call

_WORKER: Final = "yoloprune.readers.ncnn_worker"


def available() -> str | None:
    """None, or why ncnn cannot be used here."""
    return None if importlib.util.find_spec("ncnn") else "the Python package ncnn is not installed"


def loads(cfg: Path, weights: Path) -> str | None:
    """None if the conversion and ncnn take the files, else the reason."""
    try:
        _call("load", cfg, weights)
    except ReaderError as error:
        return str(error)
    return None


def head_inputs(cfg: Path, weights: Path, inputs: Floats, heads: Sequence[int]) -> dict[int, Floats]:
    """The tensor that enters each head, [B, C, H, W] (see `Reader`).

    In float32 and without Winograd's transform, which would round by more than what is looked for.
    """
    answer = _call("head_inputs", cfg, weights, {"heads": [int(head) for head in heads]}, {"inputs": inputs})
    return {int(name): array for name, array in answer.arrays.items()}


def seconds(cfg: Path, weights: Path, image: Floats, repeats: int) -> float:
    """Median time in seconds of a forward pass on one thread (see `Reader`), by ncnn's own choice of kernels."""
    return float(_call("seconds", cfg, weights, {"repeats": repeats}, {"inputs": image[None]}).value)


def race(files: Sequence[tuple[Path, Path]], image: Floats, rounds: int) -> list[list[float]]:
    """Seconds of a forward pass, networks in turns (see `Reader`)."""
    job = {"do": "race", "files": [(str(cfg), str(weights)) for cfg, weights in files], "rounds": rounds}
    return [[float(seconds) for seconds in each] for each in call(_WORKER, job, {"inputs": image[None]}).value]


def layer_seconds(cfgs: Sequence[str], floats: Sequence[int]) -> list[float]:
    """Least time of each cfg's last section (see `Reader`): with it, less without it."""
    job = {"do": "layer_seconds", "cfgs": list(cfgs), "floats": list(map(int, floats))}
    return [float(seconds) for seconds in call(_WORKER, job).value]


def _call(
    what: str,
    cfg: Path,
    weights: Path,
    more: dict[str, Any] | None = None,
    arrays: dict[str, Floats] | None = None,
) -> Answer:
    job = {"do": what, "cfg": str(cfg), "weights": str(weights), **(more or {})}
    return call(_WORKER, job, arrays)
