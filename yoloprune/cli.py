"""The command line: parse, call, print."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from yoloprune import console, report
from yoloprune.console import screen_of
from yoloprune.errors import InputError
from yoloprune.plots import plot_sensitivity
from yoloprune.prune.sensitivity import GRID
from yoloprune.steps import look
from yoloprune.steps.ana import CALIBRATE, ana
from yoloprune.steps.check import check
from yoloprune.steps.export import export
from yoloprune.steps.finetune import finetune
from yoloprune.steps.job import open_job
from yoloprune.steps.prune import prune
from yoloprune.steps.run import run
from yoloprune.steps.train import train_network
from yoloprune.steps.verify import TOLERANCE, verify
from yoloprune.workspace import DEFAULT, Figures, Settings, Workspace

app = typer.Typer(
    cls=console.Commands,
    help="Prunes trained Darknet/YOLO networks and gives back files that stock Darknet runs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """The console script."""
    app(prog_name="yoloprune")


@app.command("ana", epilog="Example: yoloprune ana yolo.cfg yolo.weights --data coco.data --images 500")
def ana_command(
    cfg: console.CfgArg,
    weights: console.WeightsArg,
    data: console.Data = None,
    workspace: console.WorkspaceDir = DEFAULT,
    dialect: console.DialectName = "alexeyab",
    letterbox: console.Letterbox = None,
    metric: console.Metric = None,
    images: console.Images = None,
    labels: console.Labels = True,
    criterion: console.Criterion = None,
    calibrate: console.Calibrate = CALIBRATE,
    no_compensate: console.NoCompensate = False,
    bn_recalibrate: console.BnRecalibrate = False,
    losses: console.Losses = None,
    grid: console.Grid = False,
    sparsities: console.Sparsities = None,
    device: console.Device = "cpu",
    seed: console.Seed = 0,
    force: console.Force = False,
    dry_run: console.DryRun = False,
    quiet: console.Quiet = False,
    json: console.Json = None,
    config: console.Config = None,
) -> None:
    """Measure how accuracy falls as each group of channels is pruned alone.

    Starts a workspace, or goes on where an interrupted analysis was. Writes sensitivity.json, a table and a plot.
    """
    with screen_of(json, quiet, force) as screen:
        settings = Settings(dialect, letterbox, metric, images, labels)
        if [losses is not None, grid, sparsities is not None].count(True) > 1:
            raise InputError("expected at most one of --losses, --grid and --sparsities")
        wanted = console.shares_of("--losses", losses)
        shares = GRID if grid else console.shares_of("--sparsities", sparsities)
        if dry_run:
            ahead = look.forecast(
                cfg, weights, data, workspace=workspace, settings=settings, sparsities=shares, device=device
            )
            screen.answer(
                asdict(ahead),
                f"{ahead.groups} groups, {ahead.points} points of {ahead.images} pictures, "
                f"about {ahead.seconds / 60:.1f} min and refitting",
            )
            return
        result = ana(
            cfg,
            weights,
            data,
            workspace=workspace,
            **asdict(settings),
            criterion=criterion,
            calibrate=calibrate,
            compensation=console.compensation_of(no_compensate, bn_recalibrate),
            losses=wanted,
            sparsities=shares,
            device=device,
            seed=seed,
            force=force,
            watch=screen.watch,
        )
        job = open_job(workspace)
        file = job.workspace.sensitivity_file(job.next_round)
        files = {"sensitivity": file, "plot": file.with_suffix(".png")}
        gains = look.gains(job, result)
        plot_sensitivity(result, gains, look.frontier(job, result), files["plot"])
        screen.answer(
            {**report.sensitivity_dict(result, gains), "files": files}, report.sensitivity_table(result, gains)
        )


@app.command("prune", epilog="Example: yoloprune prune --threshold 0.01 --multiple 8")
def prune_command(
    threshold: console.Threshold = None,
    ratio: console.Ratio = None,
    total_loss: console.TotalLoss = None,
    relative: console.Relative = False,
    rule: console.Rule = "interpolated",
    objective: console.Objective = "bflops",
    reader: console.ReaderName = None,
    drop_branches: console.DropBranches = False,
    exclude: console.Exclude = None,
    multiple: console.Multiple = 1,
    min_keep: console.MinKeep = 1,
    criterion: console.Criterion = None,
    calibrate: console.Calibrate = CALIBRATE,
    no_compensate: console.NoCompensate = False,
    bn_recalibrate: console.BnRecalibrate = False,
    reuse_analysis: Annotated[
        bool, typer.Option("--reuse-analysis", help="Choose by the curves of the round before.")
    ] = False,
    workspace: console.WorkspaceDir = DEFAULT,
    device: console.Device = "cpu",
    force: console.Force = False,
    dry_run: console.DryRun = False,
    quiet: console.Quiet = False,
    json: console.Json = None,
    config: console.Config = None,
) -> None:
    """Choose how much of each group goes, cut all together, and measure before and after.

    Writes plan.json and masked weights of unchanged shape to the workspace. Give one of --threshold, --ratio
    and --total-loss.
    """
    with screen_of(json, quiet, force) as screen:
        pruned = prune(
            threshold,
            ratio=ratio,
            total_loss=total_loss,
            relative=relative,
            rule=rule,
            objective=objective,
            reader=reader,
            drop_branches=drop_branches,
            exclude=console.layers_of(exclude),
            multiple=multiple,
            min_keep=min_keep,
            criterion=criterion,
            calibrate=calibrate,
            compensation=console.compensation_of(no_compensate, bn_recalibrate),
            reuse_analysis=reuse_analysis,
            workspace=workspace,
            device=device,
            force=force,
            dry_run=dry_run,
            watch=screen.watch,
        )
        files = {"plan": pruned.plan, "weights": pruned.weights}
        answer = {
            **_figures(pruned.before, pruned.after, files, pruned.written),
            "threshold": pruned.threshold,
            "joint_loss": pruned.joint_loss,
            "branches_gone": [branch.sum for branch in pruned.channels.branches],
        }
        networks = {"original": pruned.original, "before": pruned.before, "pruned": pruned.after}
        screen.answer(
            answer,
            report.group_table(pruned.channels, pruned.keep),
            *(f"branch {each.inside[0]}..{each.sum} is gone" for each in pruned.channels.branches),
            report.figures_table(networks),
            f"all groups together lose {pruned.joint_loss:.4f}; each alone was allowed {pruned.threshold:.4f}",
        )
        if total_loss is None and pruned.joint_loss > pruned.threshold:
            screen.warn(
                f"many small losses add up to {pruned.joint_loss:.4f}, over the threshold of {pruned.threshold:.4f}; "
                "prune --force --total-loss holds all of it within a bound, finetune wins back"
            )


@app.command("finetune", epilog="Example: yoloprune finetune --epochs 30 --batch 64")
def finetune_command(
    epochs: console.Epochs = None,
    iterations: Annotated[
        int | None, typer.Option("--iterations", metavar="N", min=1, help="Instead: updates of the weights.")
    ] = None,
    learning_rate: console.LearningRate = None,
    batch: console.BatchSize = None,
    distill: Annotated[
        bool, typer.Option("--distill", help="Let the unpruned network teach, too: its outputs, and features at cuts.")
    ] = False,
    no_labels: Annotated[
        bool, typer.Option("--no-labels", help="With --distill: let it teach alone; train pictures need no labels.")
    ] = False,
    freeze: Annotated[
        str | None, typer.Option("--freeze", metavar="LAYERS", help="Layers that stay as they are, like 0-4,8.")
    ] = None,
    ema: console.Ema = None,
    early_stop: console.EarlyStop = 0,
    bf16: console.Bf16 = False,
    workspace: console.WorkspaceDir = DEFAULT,
    device: console.Device = "cpu",
    seed: console.Seed = 0,
    workers: console.Workers = 2,
    force: console.Force = False,
    dry_run: console.DryRun = False,
    quiet: console.Quiet = False,
    json: console.Json = None,
    config: console.Config = None,
) -> None:
    """Train the pruned network on the train list with the mask held; an interrupted training goes on.

    Keeps the best weights and the last. Give one of --epochs and --iterations.
    """
    with screen_of(json, quiet, force) as screen:
        tuned = finetune(
            epochs=epochs,
            iterations=iterations,
            learning_rate=learning_rate,
            batch=batch,
            distill=distill,
            labels=not no_labels,
            freeze=console.layers_of(freeze, "--freeze"),
            ema=ema,
            early_stop=early_stop,
            bf16=bf16,
            workspace=workspace,
            device=device,
            seed=seed,
            workers=workers,
            force=force,
            dry_run=dry_run,
            watch=screen.watch,
        )
        files = {"weights": tuned.best, "last": tuned.last}
        networks = {"pruned": tuned.before, "finetuned": tuned.after}
        screen.answer(_figures(tuned.before, tuned.after, files, tuned.written), report.figures_table(networks))


@app.command("train", epilog="Example: yoloprune train yolo.cfg --data d.data --pretrained yolo.conv.15 -o trained")
def train_command(
    cfg: console.CfgArg,
    out: console.Out,
    data: console.Data = None,
    pretrained: Annotated[
        Path | None,
        typer.Option("--pretrained", metavar="FILE", help="Weights of all layers or the first ones, to start from."),
    ] = None,
    iterations: Annotated[
        int, typer.Option("--iterations", metavar="N", min=0, help="Updates; 0: the cfg's max_batches.")
    ] = 0,
    ema: console.Ema = None,
    early_stop: console.EarlyStop = 0,
    bf16: console.Bf16 = False,
    images: console.Images = None,
    dialect: console.DialectName = "alexeyab",
    letterbox: console.Letterbox = None,
    metric: console.Metric = None,
    device: console.Device = "cpu",
    seed: console.Seed = 0,
    workers: console.Workers = 2,
    force: console.Force = False,
    dry_run: console.DryRun = False,
    quiet: console.Quiet = False,
    json: console.Json = None,
    config: console.Config = None,
) -> None:
    """Train a network as its cfg says, from scratch or from the first layers of another; goes on if interrupted.

    Writes the best weights by accuracy on the valid list, the last ones, a log and a chart.
    """
    with screen_of(json, quiet, force) as screen:
        made = train_network(
            cfg,
            data,
            out,
            pretrained=pretrained,
            iterations=iterations,
            ema=ema,
            early_stop=early_stop,
            bf16=bf16,
            images=images,
            dialect=dialect,
            letterbox=letterbox,
            metric=metric,
            device=device,
            seed=seed,
            workers=workers,
            force=force,
            dry_run=dry_run,
            watch=screen.watch,
        )
        files = {"best": made.best, "last": made.last, "log": made.log, "chart": made.chart}
        answer = {
            "figures": made.figures.as_dict() if made.figures else None,
            "iteration": made.iteration,
            "iterations": made.iterations,
            "pretrained_layers": made.layers,
            "files": files if made.figures else {},
        }
        if made.figures is None:
            screen.answer(answer, f"{made.iterations} iterations would be done", report.file_list(files))
            return
        figures = report.figures_table({"trained": made.figures})
        screen.answer(answer, figures, f"best after iteration {made.iteration}", report.file_list(files))


@app.command("export", epilog="Example: yoloprune export -o slim --for opencv --fold-bn")
def export_command(
    out: console.Out,
    reader: console.ForReader = None,
    fold_bn: Annotated[
        bool, typer.Option("--fold-bn", help="Batch norm within the weights, so that all readers compute the same.")
    ] = False,
    keep_seen: Annotated[
        bool, typer.Option("--keep-seen", help="Keep the count of images trained on; else 0, so that training starts.")
    ] = False,
    workspace: console.WorkspaceDir = DEFAULT,
    force: console.Force = False,
    dry_run: console.DryRun = False,
    quiet: console.Quiet = False,
    json: console.Json = None,
    config: console.Config = None,
) -> None:
    """Write the slim network as .cfg, .weights and .names that stock Darknet runs.

    With --for, in the words of that reader; refuses what it would compute otherwise.
    """
    with screen_of(json, quiet, force) as screen:
        done = export(
            out,
            reader=reader,
            fold_bn=fold_bn,
            workspace=workspace,
            keep_seen=keep_seen,
            force=force,
            dry_run=dry_run,
        )
        files = {"cfg": done.cfg, "weights": done.weights} | ({"names": done.names} if done.names else {})
        networks = {"original": done.before, "slim": done.after}
        answer = _figures(done.before, done.after, files, done.written)
        screen.answer(answer, report.figures_table(networks), report.file_list(files))


@app.command("run", epilog="Example: yoloprune run y.cfg y.weights --data d.data --threshold 0.02 --epochs 20 -o slim")
def run_command(
    cfg: console.CfgArg,
    weights: console.WeightsArg,
    out: console.Out,
    threshold: console.NeededThreshold,
    epochs: console.NeededEpochs,
    data: console.Data = None,
    rounds: Annotated[int, typer.Option("--rounds", metavar="K", min=1, help="Rounds of cutting and training.")] = 1,
    workspace: console.WorkspaceDir = DEFAULT,
    dialect: console.DialectName = "alexeyab",
    letterbox: console.Letterbox = None,
    metric: console.Metric = None,
    images: console.Images = None,
    relative: console.Relative = False,
    objective: console.Objective = "bflops",
    reader: console.ReaderName = None,
    drop_branches: console.DropBranches = False,
    exclude: console.Exclude = None,
    multiple: console.Multiple = 1,
    min_keep: console.MinKeep = 1,
    criterion: console.Criterion = None,
    calibrate: console.Calibrate = CALIBRATE,
    no_compensate: console.NoCompensate = False,
    bn_recalibrate: console.BnRecalibrate = False,
    learning_rate: console.LearningRate = None,
    batch: console.BatchSize = None,
    device: console.Device = "cpu",
    seed: console.Seed = 0,
    workers: console.Workers = 2,
    force: console.Force = False,
    quiet: console.Quiet = False,
    json: console.Json = None,
    config: console.Config = None,
) -> None:
    """Do all four steps, the threshold growing from round to round to T."""
    with screen_of(json, quiet, force) as screen:
        result = run(
            cfg,
            weights,
            data,
            out,
            threshold=threshold,
            rounds=rounds,
            epochs=epochs,
            workspace=workspace,
            dialect=dialect,
            letterbox=letterbox,
            metric=metric,
            images=images,
            relative=relative,
            objective=objective,
            reader=reader,
            drop_branches=drop_branches,
            exclude=console.layers_of(exclude),
            multiple=multiple,
            min_keep=min_keep,
            criterion=criterion,
            calibrate=calibrate,
            compensation=console.compensation_of(no_compensate, bn_recalibrate),
            learning_rate=learning_rate,
            batch=batch,
            device=device,
            seed=seed,
            workers=workers,
            force=force,
            watch=screen.watch,
        )
        if result.rounds < rounds:
            screen.warn(f"{result.rounds} of {rounds} rounds: after them no group bears to lose more")
        networks = {"original": result.before, "slim": result.after}
        rounds_done = report.round_table(Workspace.load(workspace))
        answer = _figures(result.before, result.after, result.files, True)
        screen.answer(answer, rounds_done, report.figures_table(networks), report.file_list(result.files))


@app.command("status", epilog="Example: yoloprune status -w my-workspace")
def status_command(
    workspace: console.WorkspaceDir = DEFAULT,
    force: console.Force = False,
    quiet: console.Quiet = False,
    json: console.Json = None,
    config: console.Config = None,
) -> None:
    """Show the rounds of a workspace."""
    with screen_of(json, quiet, force) as screen:
        job = Workspace.load(workspace)
        screen.answer(report.round_dict(job), report.round_table(job))


@app.command("map", epilog="Example: yoloprune map yolo.cfg yolo.weights --data coco.data --points 101")
def map_command(
    cfg: console.CfgArg,
    weights: console.WeightsArg,
    data: console.Data = None,
    points: Annotated[
        int | None, typer.Option("--points", metavar="N", help="Of the curve: 0 (its area, the default), 11 or 101.")
    ] = None,
    nms: console.Nms = None,
    images: console.Images = None,
    dialect: console.DialectName = "alexeyab",
    letterbox: console.Letterbox = None,
    metric: console.Metric = None,
    device: console.Device = "cpu",
    force: console.Force = False,
    quiet: console.Quiet = False,
    json: console.Json = None,
    config: console.Config = None,
) -> None:
    """Measure accuracy by Darknet's rules on the valid list."""
    with screen_of(json, quiet, force) as screen:
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
            watch=screen.watch,
        )
        screen.answer(found, *report.accuracy_tables(found))


@app.command(
    "detect", epilog="Example: yoloprune detect yolo.cfg yolo.weights dog.jpg cat.jpg -o boxes --data coco.data"
)
def detect_command(
    cfg: console.CfgArg,
    weights: console.WeightsArg,
    pictures: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Pictures to look at.")],
    out: console.Out,
    data: console.Data = None,
    thresh: Annotated[
        float | None,
        typer.Option("--thresh", metavar="P", min=0, max=1, help="Least probability; left out, the dialect's own."),
    ] = None,
    nms: console.Nms = None,
    dialect: console.DialectName = "alexeyab",
    letterbox: console.Letterbox = None,
    device: console.Device = "cpu",
    force: console.Force = False,
    dry_run: console.DryRun = False,
    quiet: console.Quiet = False,
    json: console.Json = None,
    config: console.Config = None,
) -> None:
    """Write copies of pictures with the boxes that are found, and list these."""
    with screen_of(json, quiet, force) as screen:
        names, found = look.detect(
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
            watch=screen.watch,
        )
        screen.answer(report.detection_dict(found, names), report.detection_table(found, names))


@app.command("stat", epilog="Example: yoloprune stat yolo.cfg yolo.weights --json -")
def stat_command(
    cfg: console.CfgArg,
    weights: Annotated[
        Path | None, typer.Argument(metavar="[WEIGHTS]", help="Checked to be of this cfg, if given.")
    ] = None,
    dialect: console.DialectName = "alexeyab",
    force: console.Force = False,
    quiet: console.Quiet = False,
    json: console.Json = None,
    config: console.Config = None,
) -> None:
    """Show the layers of a network as Darknet does, and the totals."""
    with screen_of(json, quiet, force) as screen:
        stat = look.stat(cfg, weights, dialect=dialect)
        if stat.graph.unused:
            keys = ", ".join(f"{entry.key} (line {entry.line})" for entry in stat.graph.unused)
            screen.warn(f"{cfg}: nothing reads {keys}")
        screen.answer(stat.as_dict(), report.layer_table(stat))


@app.command("check", epilog="Example: yoloprune check yolo.cfg yolo.weights --for opencv")
def check_command(
    cfg: console.CfgArg,
    weights: Annotated[
        Path | None, typer.Argument(metavar="[WEIGHTS]", help="Its header and length, if given.")
    ] = None,
    reader: console.ForReader = None,
    force: console.Force = False,
    quiet: console.Quiet = False,
    json: console.Json = None,
    config: console.Config = None,
) -> None:
    """Say what breaks or silently differs in which reader, by line; exit status 1 if something breaks.

    Runs none of them: what they do is known. Also for a cfg that yoloprune itself refuses.
    """
    with screen_of(json, quiet, force) as screen:
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
    dialect: console.DialectName = "alexeyab",
    seed: console.Seed = 0,
    force: console.Force = False,
    quiet: console.Quiet = False,
    json: console.Json = None,
    config: console.Config = None,
) -> None:
    """Run two networks through every reader on this machine; exit status 1 unless they are the same in all.

    Compares what enters each head. Without stock Darknet or OpenCV the answer is not "verified".
    """
    with screen_of(json, quiet, force) as screen:
        verified = verify(
            cfg_a, weights_a, cfg_b, weights_b, image=image, dialect=dialect, tolerance=tolerance, seed=seed
        )
        screen.answer({**asdict(verified), "verified": verified.within}, report.reader_table(verified))
        if not verified.within:
            raise typer.Exit(1)


def _figures(before: Figures, after: Figures, files: Any, written: bool) -> dict[str, Any]:
    """What prune, finetune, export and run answer; `files` names what was written, nothing after a dry run."""
    return {"before": before.as_dict(), "after": after.as_dict(), "files": dict(files) if written else {}}
