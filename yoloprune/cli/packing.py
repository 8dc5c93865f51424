"""Commands for a network's files as one; as in job.py each loads its step."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from yoloprune.cli import params
from yoloprune.cli.command import command
from yoloprune.console import Screen
from yoloprune.options import PackOptions, Settings
from yoloprune.report import answers


@command(
    "pack",
    "yolo.cfg yolo.weights -o yolo.ypz --bits 8 --data coco.data",
    omit={"labels", "allow_partial"},
)
def pack_command(
    screen: Screen,
    cfg: params.CfgArg,
    weights: params.WeightsArg,
    settings: Settings,
    options: PackOptions,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="NET.ypz", help="The file that is written.")],
    names: Annotated[
        Path | None, typer.Option("--names", metavar="FILE", help="The .names file, to be packed, too.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="FILE", help="With --bits: what chooses the rounding, and measures accuracy."),
    ] = None,
    device: params.Device = "cpu",
    force: params.Force = False,
) -> None:
    """Pack a network's files into a small one, from which unpack, or ypz.c on a board, makes the same bytes.

    With --bits, weights take few values, so that it gets much smaller. Zeros of pruned weights cost next to nothing.
    """
    from yoloprune.steps.pack import pack

    done = pack(
        cfg, weights, out, options, names=names, data=data, settings=settings, device=device, force=force,
        progress=screen.progress,
    )  # fmt: skip
    screen.show(answers.packed(done))


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
