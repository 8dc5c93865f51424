"""onnxruntime: a program that many others run ONNX by. It gets Darknet's files as `formats/onnx.py` converts them.

Where a cfg is asked for, a `.onnx` file does as well, and what stands for its weights isn't read. All of it happens in
`onnxruntime_worker`: a hostile file may crash it, and its threads would contend with ours.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from yoloprune.readers.base import Floats, ReaderError
from yoloprune.readers.board import less_without_last
from yoloprune.readers.process import without_last
from yoloprune.readers.program import Program, installed

_PROGRAM = Program("yoloprune.readers.onnxruntime_worker")


def available() -> str | None:
    """None, or why onnxruntime cannot be used here."""
    return installed("onnxruntime", "onnxruntime") or installed("onnx", "onnx")


def loads(cfg: Path, weights: Path) -> str | None:
    """Whether the conversion and onnxruntime take the files (see `Reader`, here and below)."""
    try:
        with _converted(cfg, weights) as file:
            _PROGRAM.call("load", more={"files": [str(file)]})
    except ReaderError as error:
        return str(error)
    return None


def outputs(file: Path, inputs: Floats) -> dict[str, Floats]:
    """What a `.onnx` file gives, by name, in its order; inputs [B, C, H, W], each image runs alone. ReaderError."""
    answer = _PROGRAM.call("outputs", more={"files": [str(file)]}, arrays={"inputs": inputs})
    return {name: answer.arrays[str(number)] for number, name in enumerate(answer.value)}


def head_inputs(cfg: Path, weights: Path, inputs: Floats, heads: Sequence[int]) -> dict[int, Floats]:
    """The tensor that enters each head, [B, C, H, W]; of a cfg."""
    with _converted(cfg, weights, [head - 1 for head in heads]) as file:
        return dict(zip(heads, outputs(file, inputs).values(), strict=True))


def race(files: Sequence[Sequence[Path]], images: Sequence[Floats], rounds: int, threads: int = 1) -> list[list[float]]:
    """Networks in turns."""
    with ExitStack() as stack:
        converted = [stack.enter_context(_converted(cfg, weights)) for cfg, weights in files]
        return _PROGRAM.race([(file, file) for file in converted], images, rounds, threads)


def layer_seconds(cfgs: Sequence[str], floats: Sequence[int]) -> list[float]:
    """With it, less without it."""
    from yoloprune.readers.onnx_made import of_text

    shorter = [without_last(text) for text in cfgs]
    with ExitStack() as stack:
        files = [str(stack.enter_context(_in_file(of_text(text)))) for text in (*cfgs, *filter(None, shorter))]
        least = [float(each) for each in _PROGRAM.call("layer_seconds", more={"files": files}).value]
    return less_without_last(least, [text is None for text in shorter])


@contextmanager
def _converted(cfg: Path, weights: Path, layers: Sequence[int] | None = None) -> Iterator[Path]:
    """The network as a `.onnx` file. ReaderError for what can't be converted."""
    if cfg.suffix.lower() == ".onnx":
        yield cfg
        return
    from yoloprune.readers.onnx_made import of_files

    with _in_file(of_files(cfg, weights, layers)) as file:
        yield file


@contextmanager
def _in_file(data: bytes) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="yoloprune-onnx-") as name:
        file = Path(name) / "net.onnx"
        file.write_bytes(data)
        yield file
