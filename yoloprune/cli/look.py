"""Commands that look at networks and change nothing; as in job.py each loads its step."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from yoloprune import report
from yoloprune.choices import TOLERANCE
from yoloprune.cli import options
from yoloprune.cli.app import app
from yoloprune.console import screen_of


@app.command("map", epilog="Example: yoloprune map yolo.cfg yolo.weights --data coco.data --points 101")
def map_command(
    cfg: options.CfgArg,
    weights: options.WeightsArg,
    data: options.Data = None,
    points: Annotated[
        int | None, typer.Option("--points", metavar="N", help="Of the curve: 0 (its area, the default), 11 or 101.")
    ] = None,
    nms: options.Nms = None,
    images: options.Images = None,
    dialect: options.DialectName = "alexeyab",
    letterbox: options.Letterbox = None,
    metric: options.Metric = None,
    device: options.Device = "cpu",
    force: options.Force = False,
    quiet: options.Quiet = False,
    json: options.Json = None,
    config: options.Config = None,
) -> None:
    """Measure accuracy by Darknet's rules on the valid list."""
    with screen_of(json, quiet, force) as screen:
        from yoloprune.steps import look

        found = look.accuracy(
            cfg,
            weights,
            data,
            dialect=dialect,
            letterbox=letterbox,
            metric=metric,
            images=images,
            points=points,
            nms=nms,
            device=device,
            progress=screen.progress,
        )
        screen.answer(found, *report.accuracy_tables(found))


@app.command(
    "detect", epilog="Example: yoloprune detect yolo.cfg yolo.weights dog.jpg cat.jpg -o boxes --data coco.data"
)
def detect_command(
    cfg: options.CfgArg,
    weights: options.WeightsArg,
    pictures: Annotated[
        list[Path], typer.Argument(metavar="IMAGE...", help="Pictures, folders of them, and lists (.txt).")
    ],
    out: options.Out,
    data: options.Data = None,
    thresh: Annotated[
        float | None,
        typer.Option("--thresh", metavar="P", min=0, max=1, help="Least probability; left out, the dialect's own."),
    ] = None,
    nms: options.Nms = None,
    dialect: options.DialectName = "alexeyab",
    letterbox: options.Letterbox = None,
    device: options.Device = "cpu",
    force: options.Force = False,
    dry_run: options.DryRun = False,
    quiet: options.Quiet = False,
    json: options.Json = None,
    config: options.Config = None,
) -> None:
    """Write copies of pictures with the boxes that are found, and list these."""
    with screen_of(json, quiet, force) as screen:
        from yoloprune.steps.detect import detect

        names, found = detect(
            cfg,
            weights,
            pictures,
            out,
            data=data,
            thresh=thresh,
            dialect=dialect,
            letterbox=letterbox,
            nms=nms,
            device=device,
            force=force,
            dry_run=dry_run,
            progress=screen.progress,
        )
        screen.answer(report.detection_dict(found, names), report.detection_table(found, names))


@app.command("stat", epilog="Example: yoloprune stat yolo.cfg yolo.weights --json -")
def stat_command(
    cfg: options.CfgArg,
    weights: Annotated[
        Path | None, typer.Argument(metavar="[WEIGHTS]", help="Checked to be of this cfg, if given.")
    ] = None,
    dialect: options.DialectName = "alexeyab",
    force: options.Force = False,
    quiet: options.Quiet = False,
    json: options.Json = None,
    config: options.Config = None,
) -> None:
    """Show the layers of a network as Darknet does, and the totals."""
    with screen_of(json, quiet, force) as screen:
        from yoloprune.steps import look

        stat = look.stat(cfg, weights, dialect=dialect)
        if stat.graph.unused:
            keys = ", ".join(f"{entry.key} (line {entry.line})" for entry in stat.graph.unused)
            screen.warn(f"{cfg}: nothing reads {keys}")
        screen.answer(stat.as_dict(), report.layer_table(stat))


@app.command("check", epilog="Example: yoloprune check yolo.cfg yolo.weights --for opencv")
def check_command(
    cfg: options.CfgArg,
    weights: Annotated[
        Path | None, typer.Argument(metavar="[WEIGHTS]", help="Its header, length and values, if given.")
    ] = None,
    reader: options.ForReader = None,
    force: options.Force = False,
    quiet: options.Quiet = False,
    json: options.Json = None,
    config: options.Config = None,
) -> None:
    """Say what breaks or silently differs in which reader, by line; exit status 1 if something breaks.

    Runs none of them: what they do is known. Also for a cfg that yoloprune itself refuses.
    """
    with screen_of(json, quiet, force) as screen:
        from yoloprune.steps.check import check

        checked = check(cfg, weights, reader=reader)
        screen.answer(checked.as_dict(), report.finding_table(checked))
        if checked.broken:
            raise typer.Exit(1)


@app.command("verify", epilog="Example: yoloprune verify yolo.cfg masked.weights yolo-slim.cfg yolo-slim.weights")
def verify_command(
    cfg_a: Annotated[Path, typer.Argument(metavar="A.cfg")],
    weights_a: Annotated[Path, typer.Argument(metavar="A.weights")],
    cfg_b: Annotated[Path, typer.Argument(metavar="B.cfg")],
    weights_b: Annotated[Path, typer.Argument(metavar="B.weights")],
    image: Annotated[
        Path | None, typer.Option("--image", metavar="FILE", help="Compare on a picture; left out, on random input.")
    ] = None,
    tolerance: Annotated[
        float, typer.Option("--tolerance", metavar="X", min=0, help="Largest difference over the largest value.")
    ] = TOLERANCE,
    dialect: options.DialectName = "alexeyab",
    seed: options.Seed = 0,
    force: options.Force = False,
    quiet: options.Quiet = False,
    json: options.Json = None,
    config: options.Config = None,
) -> None:
    """Run two networks through every reader on this machine; exit status 1 unless they are the same in all.

    Compares what enters each head, in stock Darknet, OpenCV and ncnn. Without one of the first two the answer is not
    "verified".
    """
    with screen_of(json, quiet, force) as screen:
        from yoloprune.steps.verify import verify

        verified = verify(
            cfg_a, weights_a, cfg_b, weights_b, image=image, dialect=dialect, tolerance=tolerance, seed=seed
        )
        screen.answer({**asdict(verified), "verified": verified.within}, report.reader_table(verified))
        if not verified.within:
            raise typer.Exit(1)
