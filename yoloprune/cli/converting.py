"""The command that writes a network in another format; as in job.py it loads its step."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from yoloprune.cli import params
from yoloprune.cli.command import command
from yoloprune.console import Screen
from yoloprune.options import OnnxOptions, Settings
from yoloprune.report import answers


@command("convert", "yolo.cfg yolo.weights -o yolo.onnx", omit={"labels", "allow_partial"})
def convert_command(
    screen: Screen,
    cfg: params.CfgArg,
    weights: params.WeightsArg,
    settings: Settings,
    options: OnnxOptions,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="NET.onnx", help="The file that is written.")],
    data: Annotated[
        Path | None, typer.Option("--data", metavar="FILE", help="With --int8: left out, the only one beside the cfg.")
    ] = None,
    force: params.Force = False,
) -> None:
    """Write a network as ONNX, pruned or not; what onnxruntime computes of it is checked first.

    Needs the package onnx, and onnxruntime for the check; the extra "onnx" of this package brings both.
    """
    from yoloprune.steps.convert import convert

    done = convert(cfg, weights, out, options, data=data, settings=settings, force=force, progress=screen.progress)
    screen.show(answers.converted(done))
