"""Commands for a network's files as one; as in job.py each loads its step."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from yoloprune.cli import params
from yoloprune.cli.command import command
from yoloprune.console import Screen
from yoloprune.options import Settings
from yoloprune.report import answers


@command(
    "pack",
    "yolo.cfg yolo.weights -o yolo.ypz",
    omit={"labels", "allow_partial", "letterbox", "metric", "images"},
)
def pack_command(
    screen: Screen,
    cfg: params.CfgArg,
    weights: params.WeightsArg,
    settings: Settings,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="NET.ypz", help="The file that is written.")],
    names: Annotated[
        Path | None, typer.Option("--names", metavar="FILE", help="The .names file, to be packed, too.")
    ] = None,
    force: params.Force = False,
) -> None:
    """Pack a network's files into a small one, from which unpack, or ypz.c on a board, makes the same bytes.

    Zeros of pruned weights cost next to nothing.
    """
    from yoloprune.steps.pack import pack

    screen.show(answers.packed(pack(cfg, weights, out, names=names, dialect=settings.dialect, force=force)))


@command("unpack", "yolo.ypz -o board")
def unpack_command(
    screen: Screen,
    file: Annotated[Path, typer.Argument(metavar="NET.ypz", help="What pack wrote.")],
    out: params.Out,
    force: params.Force = False,
) -> None:
    """Write the .cfg, .weights and .names that were packed."""
    from yoloprune.steps.pack import unpack

    screen.show(answers.unpacked(unpack(file, out, force=force)))
