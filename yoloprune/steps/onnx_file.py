"""A network written as `.onnx`, and held against our own numbers before it gets its name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from yoloprune.artefacts import atomic_path, is_file
from yoloprune.darknet.model import Model
from yoloprune.darknet.network import build
from yoloprune.darknet.predictions import Detections
from yoloprune.errors import InputError
from yoloprune.options import OnnxOptions
from yoloprune.progress import OnProgress, Progress, silent
from yoloprune.readers import onnxruntime as runtime
from yoloprune.readers.base import Floats, ReaderError
from yoloprune.readers.program import installed
from yoloprune.steps.inputs import Inputs

if TYPE_CHECKING:
    from yoloprune.steps.onnx_int8 import Int8

AGREE: Final = 1e-5
"""Largest `difference` of what onnxruntime computes: float32 in another order."""
_IMAGES: Final = 2
"""Random ones that are compared on."""


@dataclass(frozen=True)
class OnnxFile:
    """What was written."""

    file: Path
    size: int
    """Bytes."""
    outputs: Mapping[str, tuple[int, ...]]
    """Shapes by name, in order."""
    max_relative_diff: float | None
    """Of the float network's outputs in onnxruntime to ours; None: not checked."""
    unchecked: str
    """Why not."""
    int8: Int8 | None = None
    made_of: tuple[Path, ...] = ()
    """cfg and weights, where they are files."""


def write_onnx(
    model: Model,
    out: Path,
    options: OnnxOptions,
    inputs: Inputs | None,
    *,
    force: bool = False,
    progress: OnProgress = silent,
) -> OnnxFile:
    """Write a network to the file `out`, unless onnxruntime, where it is there, computes something else of it.

    inputs: whose train pictures give the ranges of int8, and whose valid list measures it. InputError without the
    package onnx, with int8 without onnxruntime too, for what can't be converted and for what doesn't agree.
    """
    check_packages(int8=options.int8)
    from yoloprune.formats import onnx as codec

    progress(Progress("onnx", 0, 1, str(out)))
    raw = model.graph.raw_outputs if options.onnx_decode and options.int8 else None  # int8 is measured on them
    proto = codec.convert(model, raw, decode=options.onnx_decode)
    unchecked = runtime.available() or ""
    with atomic_path(out, force=force) as temporary:
        temporary.write_bytes(proto.SerializeToString())
        diff = None if unchecked else _checked(model, temporary, out, decode=options.onnx_decode)
        measured = None
        if options.int8:
            from yoloprune.steps.onnx_int8 import to_int8

            assert inputs is not None
            proto, measured = to_int8(model, proto, inputs, options)
        if raw is not None:
            del proto.graph.output[2:]  # boxes and scores stay
        size = temporary.write_bytes(proto.SerializeToString())
    progress(Progress("onnx", 1, 1))
    return OnnxFile(out, size, codec.shapes(proto), diff, unchecked, measured)


def check_packages(*, int8: bool = False) -> None:
    """InputError unless those are installed that writing needs."""
    for name in ("onnx", "onnxruntime") if int8 else ("onnx",):
        reason = installed(name, name)
        if reason is not None:
            raise InputError(f"{reason}; pip install 'yoloprune[onnx]' brings it")


def expected(model: Model, inputs: Floats, *, decode: bool, known: Mapping[int, Floats] | None = None) -> list[Floats]:
    """What the outputs of a `.onnx` file should be, in order; inputs [B, C, H, W].

    known: what enters the heads, by layer, where another program has computed that.
    """
    raw, heads = model.graph.raw_outputs, model.graph.detection_heads if decode else ()
    resume = {layer: torch.from_numpy(array) for layer, array in (known or {}).items()}
    with torch.inference_mode():
        found = build(model)(torch.from_numpy(inputs), {*raw, *(head.index for head in heads)}, resume)
        if not heads:
            return [found[layer].numpy() for layer in raw]
        pairs = [_dense(head.decode(found[head.index], -np.inf), len(inputs), head.classes) for head in heads]
    return [np.concatenate(parts, 1) for parts in zip(*pairs, strict=True)]


def outputs_of(file: Path, inputs: Floats) -> dict[str, Floats]:
    """What onnxruntime makes of a `.onnx` file, by name. InputError if it doesn't."""
    reason = installed("onnxruntime", "onnxruntime")
    if reason is not None:
        raise InputError(f"{reason}; pip install 'yoloprune[onnx]' brings it")
    if not is_file(file):
        raise InputError("expected a .onnx file, found none", file=file)
    try:
        return runtime.outputs(file, inputs)
    except ReaderError as error:
        raise InputError(f"onnxruntime: {error}", file=file) from error


def difference(ours: Sequence[Floats], theirs: Sequence[Floats], *, decode: bool) -> float:
    """Largest difference over the largest value of its output; infinite where a value is not a number.

    decode: they are boxes and scores, which may all be next to 0: over 1 at the least. ReaderError where shapes differ.
    """
    if [each.shape for each in ours] != [each.shape for each in theirs]:
        raise ReaderError(f"expected shapes {[each.shape for each in ours]}, found {[each.shape for each in theirs]}")
    found = [0.0]
    for a, b in zip(ours, theirs, strict=True):
        with np.errstate(invalid="ignore"):
            diff = np.where(a == b, 0, np.abs(a.astype(np.float64) - b))
        largest = np.abs(a[np.isfinite(a)], dtype=np.float64).max(initial=1.0 if decode else 1e-30)
        found.append(float(np.where(np.isfinite(diff), diff, np.inf).max() / largest))
    return max(found)


def _dense(found: Detections, images: int, classes: int) -> tuple[Floats, Floats]:
    """boxes [B, M, 4] and scores [B, M, K] of all that a head can find."""
    boxes = found.boxes.view(images, -1, classes, 4)[:, :, 0]
    return boxes.numpy(), found.probs.view(images, -1, classes).numpy()


def _checked(model: Model, file: Path, out: Path, *, decode: bool) -> float:
    """How far onnxruntime's outputs of the file are from ours on random images. InputError if that is too far."""
    inputs = np.random.default_rng(0).random((_IMAGES, *model.graph.net.input), np.float32)
    try:
        theirs = list(runtime.outputs(file, inputs).values())
        ours = expected(model, inputs, decode=decode)
        diff = difference(ours, theirs[: len(ours)], decode=decode)
    except ReaderError as error:
        raise InputError(f"not written: onnxruntime: {error}", file=out) from error
    if diff > AGREE:
        found = f"onnxruntime's outputs differ by {diff:.3g} of the largest value (expected up to {AGREE:g})"
        raise InputError(f"not written: {found}", file=out)
    return diff
