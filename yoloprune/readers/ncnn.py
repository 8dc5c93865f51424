"""ncnn: what phones and small boards run, by its Python package. It reads Darknet's files after a conversion.

All of it happens in `ncnn_worker`: a hostile file may crash it, and its threads would contend with ours.
"""

from __future__ import annotations

from yoloprune.readers.program import Program, installed

_PROGRAM = Program("yoloprune.readers.ncnn_worker")


def available() -> str | None:
    """None, or why ncnn cannot be used here."""
    return installed("ncnn", "ncnn")


loads = _PROGRAM.loads
"""Whether the conversion and ncnn take the files (see `Reader`, here and below)."""
head_inputs = _PROGRAM.head_inputs
"""In float32 and without Winograd's transform, which would round by more than what is looked for."""
race = _PROGRAM.race
"""By ncnn's own choice of kernels."""
layer_seconds = _PROGRAM.layer_seconds
"""With it, less without it."""
