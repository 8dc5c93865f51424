"""`convert`: any network as `.onnx`, pruned or not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from yoloprune.artefacts import check_free
from yoloprune.darknet.dialect import dialect_named
from yoloprune.darknet.model import load
from yoloprune.errors import InputError
from yoloprune.options import OnnxOptions, Settings
from yoloprune.progress import OnProgress, silent
from yoloprune.steps.inputs import Inputs
from yoloprune.steps.onnx_file import OnnxFile, check_packages, write_onnx


def convert(
    cfg: Path,
    weights: Path,
    out: Path,
    options: OnnxOptions = OnnxOptions(),  # noqa: B008 - a frozen value
    *,
    data: Path | None = None,
    settings: Settings = Settings(),  # noqa: B008
    force: bool = False,
    progress: OnProgress = silent,
) -> OnnxFile:
    """Write a network to the file `out` as ONNX for images of the cfg's size (docs/onnx.md has inputs and outputs).

    What onnxruntime computes of it is held against our own numbers, and what differs is not written; where it isn't
    installed, the result says that nothing was checked. In 8 bits, `data` is needed: its train list gives the ranges,
    its valid list measures what accuracy they cost. InputError for layers that ONNX doesn't have, by file and line.
    """
    if out.suffix.lower() != ".onnx":
        raise InputError("expected a name that ends in .onnx", file=out)
    check_free(out, force=force)
    check_packages(int8=options.int8)
    inputs: Inputs | None
    if options.int8:
        inputs = Inputs.opened(cfg, weights, data, settings, "cpu")
        model = inputs.original
    else:
        inputs = None
        model = load(cfg, weights, dialect_named(settings.dialect), allow_partial=settings.allow_partial)
    done = write_onnx(model, out, options, inputs, force=force, progress=progress)
    return replace(done, made_of=(cfg, weights))
