"""Commands for one network's files, or two; as in job.py each loads its step."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from yoloprune.choices import TOLERANCE
from yoloprune.cli import params
from yoloprune.cli.command import command, words_of
from yoloprune.console import Screen
from yoloprune.options import DetectOptions, ExportOptions, ProcessOptions, Settings, TrainOptions
from yoloprune.report import answers

_OF_MEASURING = ("labels", "allow_partial")


@command("train", "yolo.cfg --data d.data --pretrained yolo.conv.15 -o trained", omit=_OF_MEASURING)
def train_command(
    screen: Screen,
    cfg: params.CfgArg,
    options: TrainOptions,
    where: ProcessOptions,  # the decorator sees to it
    settings: Settings,
    data: params.Data = None,
    out: params.OutOrBackup = None,
    device: params.Device = "cpu",
    force: params.Force = False,
    dry_run: params.DryRun = False,
) -> None:
    """Train a network as its cfg says, from scratch or from the first layers of another; goes on if interrupted.

    Writes the best weights by accuracy on the valid list, the last ones, a log and a chart.
    """
    from yoloprune.steps.train import train_network

    done = train_network(
        cfg, data, out, options, settings=settings, device=device, force=force, dry_run=dry_run,
        progress=screen.progress,
    )  # fmt: skip
    screen.show(answers.trained(done, options, cfg, data))


@command("map", "yolo.cfg yolo.weights --data coco.data --points 101", omit=_OF_MEASURING)
def map_command(
    screen: Screen,
    cfg: params.CfgArg,
    weights: params.WeightsArg,
    settings: Settings,
    data: params.Data = None,
    points: Annotated[
        int | None, typer.Option("--points", metavar="N", help="Of the curve: 0 (its area, the default), 11 or 101.")
    ] = None,
    nms: params.Nms = None,
    device: params.Device = "cpu",
) -> None:
    """Measure accuracy by Darknet's rules on the valid list."""
    from yoloprune.steps.accuracy import accuracy

    found = accuracy(
        cfg, weights, data, settings=settings, points=points, nms=nms, device=device, progress=screen.progress
    )
    screen.show(answers.accuracy(found))


@command(
    "detect",
    "yolo.cfg yolo.weights dog.jpg cat.jpg -o boxes --data coco.data",
)
def detect_command(
    screen: Screen,
    cfg: params.CfgArg,
    weights: params.WeightsArg,
    pictures: Annotated[
        list[Path], typer.Argument(metavar="IMAGE...", help="Pictures, folders of them, and lists (.txt).")
    ],
    out: params.Out,
    options: DetectOptions,
    data: params.Data = None,
    device: params.Device = "cpu",
    force: params.Force = False,
    dry_run: params.DryRun = False,
) -> None:
    """Write copies of pictures with the boxes that are found, and list these."""
    from yoloprune.steps.detect import detect

    done = detect(
        cfg, weights, pictures, out, data, options, device=device, force=force, dry_run=dry_run,
        progress=screen.progress,
    )  # fmt: skip
    screen.show(answers.detections(*done))


@command("stat", "yolo.cfg yolo.weights --json -", omit={*_OF_MEASURING, "letterbox", "metric", "images"})
def stat_command(
    screen: Screen,
    cfg: params.CfgArg,
    settings: Settings,
    weights: Annotated[
        Path | None, typer.Argument(metavar="[WEIGHTS]", help="Checked to be of this cfg, if given.")
    ] = None,
) -> None:
    """Show the layers of a network as Darknet does, and the totals."""
    from yoloprune.steps.stat import stat

    screen.show(answers.stat(stat(cfg, weights, dialect=settings.dialect)))


@command(
    "check",
    "yolo.cfg yolo.weights --for opencv",
    omit=("fold_bn", "keep_seen", "onnx", "onnx_decode", "int8", "int8_images"),
)
def check_command(
    screen: Screen,
    cfg: params.CfgArg,
    options: ExportOptions,
    weights: Annotated[
        Path | None, typer.Argument(metavar="[WEIGHTS]", help="Its header, length and values, if given.")
    ] = None,
) -> None:
    """Say what breaks or silently differs in which reader, by line; exit status 1 if something breaks.

    Runs none of them: what they do is known. Also for a cfg that yoloprune itself refuses.
    """
    from yoloprune.steps.check import check

    checked = check(cfg, weights, reader=options.reader)
    screen.show(answers.checked(checked))
    if checked.broken:
        raise typer.Exit(1)


@command(
    "verify",
    "yolo.cfg masked.weights yolo-slim.cfg yolo-slim.weights",
    omit={*_OF_MEASURING, "letterbox", "metric", "images"},
)
def verify_command(
    screen: Screen,
    cfg_a: Annotated[Path, typer.Argument(metavar="A.cfg")],
    weights_a: Annotated[Path, typer.Argument(metavar="A.weights")],
    cfg_b: Annotated[Path, typer.Argument(metavar="B.cfg", help="Or a .onnx file, alone.")],
    settings: Settings,
    weights_b: Annotated[Path | None, typer.Argument(metavar="[B.weights]")] = None,
    image: Annotated[
        Path | None, typer.Option("--image", metavar="FILE", help="Compare on a picture; left out, on random input.")
    ] = None,
    tolerance: Annotated[
        float, typer.Option("--tolerance", metavar="X", min=0, help="Largest difference over the largest value.")
    ] = TOLERANCE,
    seed: params.Seed = 0,
) -> None:
    """Run two networks through every reader on this machine; exit status 1 unless they are the same in all.

    Compares what enters each head, in stock Darknet, OpenCV, ncnn and onnxruntime. Without one of the first two the
    answer is not "verified".
    """
    from yoloprune.steps.verify import verify

    files = (cfg_a, weights_a, cfg_b, weights_b)
    verified = verify(*files, image=image, dialect=settings.dialect, tolerance=tolerance, seed=seed)
    screen.show(answers.verified(verified))
    if not verified.within:
        raise typer.Exit(1)


@command(
    "bench",
    "yolo.cfg yolo.weights yolo-slim.cfg yolo-slim.weights",
    omit={*_OF_MEASURING, "letterbox", "metric", "images"},
)
def bench_command(
    screen: Screen,
    files: Annotated[
        list[Path], typer.Argument(metavar="CFG WEIGHTS [CFG WEIGHTS ...]", help="Networks, each by its two files.")
    ],
    settings: Settings,
    reader: Annotated[
        str | None, typer.Option("--reader", metavar="LIST", help="Only these, like opencv,ncnn; left out, all here.")
    ] = None,
    rounds: Annotated[
        int | None, typer.Option("--rounds", metavar="N", min=1, help="How often each runs; left out, 30 times.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option("--threads", metavar="N", min=1, help="What all are; left out, the machine's cores.")
    ] = None,
    emit: Annotated[
        Path | None,
        typer.Option("--emit", metavar="DIR", help="Time nothing here: write a folder that times on your board."),
    ] = None,
    force: params.Force = False,
) -> None:
    """Time networks in every reader on this machine, in turns, on one thread and on all.

    With --emit: a folder with the networks and a script for Python with OpenCV or ncnn, and one for Darknet; what it
    measures of single layers goes to prune --objective latency --timings.
    """
    readers = None if reader is None else words_of(reader, "--reader")
    if emit is not None:
        from yoloprune.steps.board import emit as emit_folder

        screen.show(answers.emitted(emit_folder(files, emit, dialect=settings.dialect, force=force)))
        return
    from yoloprune.steps.bench import bench

    how = {} if rounds is None else {"rounds": rounds}
    done = bench(files, reader=readers, threads=threads, dialect=settings.dialect, progress=screen.progress, **how)
    screen.show(answers.bench(done))
