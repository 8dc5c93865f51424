"""Commands that change something: the steps of a job, and training.

Each loads its step, and PyTorch with it, when what was typed is right: help and mistakes take no time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from yoloprune import report
from yoloprune.choices import CALIBRATE, EPOCHS, GRID, REFERENCE_LOSS, REFIT
from yoloprune.cli import options
from yoloprune.cli.app import app
from yoloprune.console import Screen, screen_of
from yoloprune.errors import InputError
from yoloprune.steps.goal import Goal, check_loss
from yoloprune.workspace import DEFAULT, Figures, Settings, Workspace


@app.command("ana", epilog="Example: yoloprune ana yolo.cfg yolo.weights --data coco.data --images 500")
def ana_command(
    cfg: options.CfgArg,
    weights: options.WeightsArg,
    data: options.Data = None,
    workspace: options.WorkspaceDir = DEFAULT,
    dialect: options.DialectName = "alexeyab",
    letterbox: options.Letterbox = None,
    metric: options.Metric = None,
    images: options.Images = None,
    labels: options.Labels = True,
    allow_partial: options.AllowPartial = False,
    criterion: options.Criterion = None,
    calibrate: options.Calibrate = CALIBRATE,
    no_compensate: options.NoCompensate = False,
    bn_recalibrate: options.BnRecalibrate = False,
    losses: options.Losses = None,
    grid: options.Grid = False,
    sparsities: options.Sparsities = None,
    device: options.Device = "cpu",
    seed: options.Seed = 0,
    force: options.Force = False,
    dry_run: options.DryRun = False,
    quiet: options.Quiet = False,
    json: options.Json = None,
    config: options.Config = None,
) -> None:
    """Measure how accuracy falls as each group of channels is pruned alone.

    Starts a workspace, or goes on where an interrupted analysis was. Writes sensitivity.json, a table and a plot.
    """
    with screen_of(json, quiet, force) as screen:
        settings = Settings(dialect, letterbox, metric, images, labels, allow_partial)
        if [losses is not None, grid, sparsities is not None].count(True) > 1:
            raise InputError("expected at most one of --losses, --grid and --sparsities")
        wanted = options.shares_of("--losses", losses)
        shares = GRID if grid else options.shares_of("--sparsities", sparsities)
        compensation = options.compensation_of(no_compensate, bn_recalibrate) or REFIT
        from yoloprune.plots import plot_sensitivity
        from yoloprune.prune.certainty import cautions
        from yoloprune.steps import look
        from yoloprune.steps.ana import ana
        from yoloprune.steps.job import open_job
        from yoloprune.steps.method import Method

        if dry_run:
            Method.of(criterion, calibrate, compensation)
            ahead = look.forecast(
                cfg, weights, data, workspace=workspace, settings=settings, sparsities=shares, device=device
            )
            screen.answer(asdict(ahead), report.forecast_line(ahead))
            return
        result = ana(
            cfg,
            weights,
            data,
            workspace=workspace,
            **asdict(settings),
            criterion=criterion,
            calibrate=calibrate,
            compensation=compensation,
            losses=wanted,
            sparsities=shares,
            device=device,
            seed=seed,
            force=force,
            progress=screen.progress,
        )
        job = open_job(workspace)
        file = job.workspace.sensitivity_file(job.next_round)
        files = {"sensitivity": file, "plot": file.with_suffix(".png")}
        doubts = cautions(result, wanted or [REFERENCE_LOSS])
        gains = look.gains(job, result)
        plot_sensitivity(result, gains, look.frontier(job, result), files["plot"])
        answer = {**report.sensitivity_dict(result, gains), "warnings": doubts, "files": files}
        screen.answer(answer, report.sensitivity_table(result, gains))
        _warn(screen, doubts)


@app.command("prune", epilog="Example: yoloprune prune --threshold 0.01 --exclude 12,30")
def prune_command(
    threshold: options.Threshold = None,
    ratio: options.Ratio = None,
    total_loss: options.TotalLoss = None,
    relative: options.Relative = False,
    rule: options.Rule = "interpolated",
    objective: options.Objective = "bflops",
    reader: options.ReaderName = None,
    drop_branches: options.DropBranches = False,
    exclude: options.Exclude = None,
    multiple: options.Multiple = None,
    min_keep: options.MinKeep = None,
    criterion: options.CriterionAsBefore = None,
    calibrate: options.CalibrateAsBefore = None,
    no_compensate: options.NoCompensate = False,
    bn_recalibrate: options.BnRecalibrate = False,
    reuse_analysis: Annotated[
        bool, typer.Option("--reuse-analysis", help="Choose by the curves of the round before.")
    ] = False,
    workspace: options.WorkspaceDir = DEFAULT,
    device: options.Device = "cpu",
    force: options.Force = False,
    dry_run: options.DryRun = False,
    quiet: options.Quiet = False,
    json: options.Json = None,
    config: options.Config = None,
) -> None:
    """Choose how much of each group goes, cut all together, and measure before and after.

    Writes plan.json and masked weights of unchanged shape to the workspace. Give one of --threshold, --ratio
    and --total-loss.
    """
    with screen_of(json, quiet, force) as screen:
        Goal.of(threshold, ratio, total_loss, relative=relative)
        excluded = None if exclude is None else options.layers_of(exclude)
        compensation = options.compensation_of(no_compensate, bn_recalibrate)
        from yoloprune.steps.prune import prune

        pruned = prune(
            threshold,
            ratio=ratio,
            total_loss=total_loss,
            relative=relative,
            rule=rule,
            objective=objective,
            reader=reader,
            drop_branches=drop_branches,
            exclude=excluded,
            multiple=multiple,
            min_keep=min_keep,
            criterion=criterion,
            calibrate=calibrate,
            compensation=compensation,
            reuse_analysis=reuse_analysis,
            workspace=workspace,
            device=device,
            force=force,
            dry_run=dry_run,
            progress=screen.progress,
        )
        files = {"plan": pruned.plan, "weights": pruned.weights}
        answer = {
            **_figures(pruned.before, pruned.after, files, pruned.written),
            "threshold": pruned.threshold,
            "joint_loss": pruned.joint_loss,
            "warnings": pruned.cautions,
            "branches_gone": [branch.sum for branch in pruned.channels.branches],
        }
        networks = {"original": pruned.original, "before": pruned.before, "pruned": pruned.after}
        screen.answer(
            answer,
            report.group_table(pruned.channels, pruned.keep),
            *(f"branch {each.inside[0]}..{each.sum} is gone" for each in pruned.channels.branches),
            report.figures_table(networks),
            f"all groups together lose {pruned.joint_loss:.4f}; "
            f"each alone {'may lose' if threshold is not None else 'loses at most'} {pruned.threshold:.4f}",
        )
        _warn(screen, pruned.cautions)
        if threshold is not None:
            _warn_of_sum(screen, pruned.joint_loss, pruned.threshold)


@app.command("finetune", epilog="Example: yoloprune finetune --epochs 30 --batch 64")
def finetune_command(
    epochs: options.Epochs = None,
    iterations: Annotated[
        int | None, typer.Option("--iterations", metavar="N", min=1, help="Instead: updates of the weights.")
    ] = None,
    learning_rate: options.LearningRate = None,
    batch: options.BatchSize = None,
    distill: Annotated[
        bool, typer.Option("--distill", help="Let the unpruned network teach, too: its outputs, and features at cuts.")
    ] = False,
    no_labels: Annotated[
        bool, typer.Option("--no-labels", help="With --distill: let it teach alone; train pictures need no labels.")
    ] = False,
    freeze: Annotated[
        str | None, typer.Option("--freeze", metavar="LAYERS", help="Layers that stay as they are, like 0-4,8.")
    ] = None,
    ema: options.Ema = None,
    early_stop: options.EarlyStop = 0,
    bf16: options.Bf16 = False,
    workspace: options.WorkspaceDir = DEFAULT,
    device: options.Device = "cpu",
    seed: options.Seed = 0,
    workers: options.Workers = 2,
    force: options.Force = False,
    dry_run: options.DryRun = False,
    quiet: options.Quiet = False,
    json: options.Json = None,
    config: options.Config = None,
) -> None:
    """Train the pruned network on the train list with the mask held; an interrupted training goes on.

    Keeps the best weights and the last. Give one of --epochs and --iterations.
    """
    with screen_of(json, quiet, force) as screen:
        frozen = options.layers_of(freeze, "--freeze")
        from yoloprune.steps.finetune import finetune

        tuned = finetune(
            epochs=epochs,
            iterations=iterations,
            learning_rate=learning_rate,
            batch=batch,
            distill=distill,
            labels=not no_labels,
            freeze=frozen,
            ema=ema,
            early_stop=early_stop,
            bf16=bf16,
            workspace=workspace,
            device=device,
            seed=seed,
            workers=workers,
            force=force,
            dry_run=dry_run,
            progress=screen.progress,
        )
        files = {"weights": tuned.best, "last": tuned.last}
        networks = {"pruned": tuned.before} | ({"finetuned": tuned.after} if tuned.written else {})
        screen.answer(_figures(tuned.before, tuned.after, files, tuned.written), report.figures_table(networks))


@app.command("train", epilog="Example: yoloprune train yolo.cfg --data d.data --pretrained yolo.conv.15 -o trained")
def train_command(
    cfg: options.CfgArg,
    data: options.Data = None,
    out: options.OutOrBackup = None,
    pretrained: Annotated[
        Path | None,
        typer.Option("--pretrained", metavar="FILE", help="Weights whose first layers are this network's."),
    ] = None,
    pretrained_layers: Annotated[
        int | None,
        typer.Option("--pretrained-layers", metavar="N", min=1, help="Take so many; left out, as many as fit."),
    ] = None,
    iterations: Annotated[
        int, typer.Option("--iterations", metavar="N", min=0, help="Updates; 0: the cfg's max_batches.")
    ] = 0,
    ema: options.Ema = None,
    early_stop: options.EarlyStop = 0,
    bf16: options.Bf16 = False,
    images: options.Images = None,
    dialect: options.DialectName = "alexeyab",
    letterbox: options.Letterbox = None,
    metric: options.Metric = None,
    device: options.Device = "cpu",
    seed: options.Seed = 0,
    workers: options.Workers = 2,
    force: options.Force = False,
    dry_run: options.DryRun = False,
    quiet: options.Quiet = False,
    json: options.Json = None,
    config: options.Config = None,
) -> None:
    """Train a network as its cfg says, from scratch or from the first layers of another; goes on if interrupted.

    Writes the best weights by accuracy on the valid list, the last ones, a log and a chart.
    """
    with screen_of(json, quiet, force) as screen:
        from yoloprune.steps.train import train_network

        made = train_network(
            cfg,
            data,
            out,
            pretrained=pretrained,
            pretrained_layers=pretrained_layers,
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
            progress=screen.progress,
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
            start = f", from the first {made.layers} layers of {pretrained}" if pretrained else ""
            screen.answer(answer, f"{made.iterations} iterations would be done{start}", report.file_list(files))
            return
        figures = report.figures_table({"trained": made.figures})
        screen.answer(answer, figures, f"best after iteration {made.iteration}", report.file_list(files))


@app.command("export", epilog="Example: yoloprune export -o slim --for opencv --fold-bn")
def export_command(
    out: options.Out,
    reader: options.ForReader = None,
    fold_bn: Annotated[
        bool, typer.Option("--fold-bn", help="Batch norm within the weights, so that all readers compute the same.")
    ] = False,
    keep_seen: Annotated[
        bool, typer.Option("--keep-seen", help="Keep the count of images trained on; else 0, so that training starts.")
    ] = False,
    workspace: options.WorkspaceDir = DEFAULT,
    force: options.Force = False,
    dry_run: options.DryRun = False,
    quiet: options.Quiet = False,
    json: options.Json = None,
    config: options.Config = None,
) -> None:
    """Write the slim network as .cfg, .weights and .names that stock Darknet runs.

    With --for, in the words of that reader; refuses what it would compute otherwise.
    """
    with screen_of(json, quiet, force) as screen:
        from yoloprune.steps.export import export

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
    cfg: options.CfgArg,
    weights: options.WeightsArg,
    out: options.Out,
    threshold: options.NeededThreshold,
    data: options.Data = None,
    epochs: options.RoundEpochs = EPOCHS,
    rounds: Annotated[int, typer.Option("--rounds", metavar="K", min=1, help="Rounds of cutting and training.")] = 1,
    workspace: options.WorkspaceDir = DEFAULT,
    dialect: options.DialectName = "alexeyab",
    letterbox: options.Letterbox = None,
    metric: options.Metric = None,
    images: options.Images = None,
    relative: options.Relative = False,
    objective: options.Objective = "bflops",
    reader: options.ReaderName = None,
    drop_branches: options.DropBranches = False,
    exclude: options.Exclude = None,
    multiple: options.Multiple = None,
    min_keep: options.MinKeep = None,
    criterion: options.Criterion = None,
    calibrate: options.Calibrate = CALIBRATE,
    no_compensate: options.NoCompensate = False,
    bn_recalibrate: options.BnRecalibrate = False,
    learning_rate: options.LearningRate = None,
    batch: options.BatchSize = None,
    device: options.Device = "cpu",
    seed: options.Seed = 0,
    workers: options.Workers = 2,
    force: options.Force = False,
    dry_run: options.DryRun = False,
    quiet: options.Quiet = False,
    json: options.Json = None,
    config: options.Config = None,
) -> None:
    """Do all four steps, the threshold growing from round to round to T."""
    with screen_of(json, quiet, force) as screen:
        check_loss("--threshold", threshold)
        excluded = None if exclude is None else options.layers_of(exclude)
        compensation = options.compensation_of(no_compensate, bn_recalibrate) or REFIT
        from yoloprune.steps import look
        from yoloprune.steps.finetune import check_epochs
        from yoloprune.steps.method import Method
        from yoloprune.steps.objective import check_objective
        from yoloprune.steps.run import run, thresholds_of

        if dry_run:
            thresholds = thresholds_of(threshold, rounds)
            check_epochs(epochs)
            check_objective(objective, reader)
            Method.of(criterion, calibrate, compensation)
            settings = Settings(dialect, letterbox, metric, images)
            ahead = look.forecast(cfg, weights, data, workspace=workspace, settings=settings, device=device)
            listed = ", ".join(f"{each:g}" for each in thresholds)
            trained = f"after it, cut at {listed}, each time trained for {epochs:g} epochs"
            screen.answer({**asdict(ahead), "thresholds": thresholds}, report.forecast_line(ahead), trained)
            return
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
            exclude=excluded,
            multiple=multiple,
            min_keep=min_keep,
            criterion=criterion,
            calibrate=calibrate,
            compensation=compensation,
            learning_rate=learning_rate,
            batch=batch,
            device=device,
            seed=seed,
            workers=workers,
            force=force,
            progress=screen.progress,
        )
        if result.rounds < rounds:
            screen.warn(f"{result.rounds} of {rounds} rounds: at the other thresholds nothing more could go")
        _warn(screen, result.cautions)
        done = Workspace.load(workspace)
        for each in done.rounds:
            joint = result.before.accuracy - each.pruned.accuracy
            _warn_of_sum(screen, joint, each.chosen_by["threshold"], f"round {each.number}: ")
        networks = {"original": result.before, "slim": result.after}
        rounds_done = report.round_table(done)
        answer = _figures(result.before, result.after, result.files, True) | report.round_dict(done)
        answer |= {"warnings": result.cautions}
        screen.answer(answer, rounds_done, report.figures_table(networks), report.file_list(result.files))


def _figures(before: Figures, after: Figures, files: Any, written: bool) -> dict[str, Any]:
    """What prune, finetune, export and run answer; `files` names what was written, nothing after a dry run."""
    return {"before": before.as_dict(), "after": after.as_dict(), "files": dict(files) if written else {}}


def _warn(screen: Screen, cautions: Sequence[str]) -> None:
    """Why what was measured is little to go by."""
    for text in cautions:
        screen.warn(text)


def _warn_of_sum(screen: Screen, joint_loss: float, threshold: float, cut: str = "") -> None:
    """Where all groups together lose more than each alone was allowed."""
    if joint_loss > threshold:
        screen.warn(
            f"{cut}many small losses add up to {joint_loss:.4f}, over the threshold of {threshold:.4f}; "
            "prune --force --total-loss holds all of it within a bound, finetune wins back"
        )
