"""Commands of a job: the four steps, all of them at once, and its rounds.

Each loads its step, and PyTorch with it, when what was typed is right: help and mistakes take no time.
"""

from __future__ import annotations

import webbrowser
from dataclasses import replace
from typing import Annotated

import typer

from yoloprune.choices import BITS
from yoloprune.cli import params
from yoloprune.cli.command import command
from yoloprune.console import Screen
from yoloprune.errors import InputError
from yoloprune.options import AnalysisOptions, ExportOptions, FinetuneOptions, ProcessOptions, PruneOptions, Settings
from yoloprune.report import answers
from yoloprune.run_options import RunOptions
from yoloprune.steps.goal import Goal, goals_of_rounds
from yoloprune.workspace import DEFAULT


@command("ana", "yolo.cfg yolo.weights --data coco.data --images 500")
def ana_command(
    screen: Screen,
    cfg: params.CfgArg,
    weights: params.WeightsArg,
    settings: Settings,
    options: AnalysisOptions,
    where: ProcessOptions,  # the decorator sees to it
    data: params.Data = None,
    workspace: params.WorkspaceDir = DEFAULT,
    device: params.Device = "cpu",
    force: params.Force = False,
    dry_run: params.DryRun = False,
    bits: Annotated[bool, typer.Option("--bits", help="Short for --granularity bits.")] = False,
) -> None:
    """Measure how accuracy falls as each group of channels, or each layer's weights, is pruned alone.

    Starts a workspace, or goes on where an interrupted analysis was. Writes sensitivity.json, a table and a plot.
    """
    if options.tolerances and options.sparsities:
        raise InputError("expected at most one of --tolerances, --grid and --sparsities")
    if bits:
        options = replace(options, granularity=BITS)
    from yoloprune.report.plots import plot_sensitivity
    from yoloprune.report.rewrite import rewrite
    from yoloprune.steps.ana import ana
    from yoloprune.steps.forecast import forecast

    if dry_run:
        screen.show(answers.forecast(forecast(cfg, weights, data, options, settings=settings, device=device)))
        return
    done = ana(
        cfg, weights, data, options, settings=settings, workspace=workspace, device=device, force=force,
        progress=screen.progress,
    )  # fmt: skip
    plot_sensitivity(done, done.file.with_suffix(".png"))
    rewrite(workspace)
    screen.show(answers.analysed(done, workspace))


@command("prune", "--threshold 0.01 --exclude 12,30")
def prune_command(
    screen: Screen,
    options: PruneOptions,
    workspace: params.WorkspaceDir = DEFAULT,
    device: params.Device = "cpu",
    force: params.Force = False,
    dry_run: params.DryRun = False,
    ms: params.Ms = False,
) -> None:
    """Choose how much of each group goes, prune all together, and measure before and after.

    Writes plan.json and masked weights of unchanged shape to the workspace. Give one of --threshold, --ratio,
    --total-loss, --sparsity, --global-sparsity and --magnitude.
    """
    Goal.of(options)
    from yoloprune.report.rewrite import rewriting
    from yoloprune.steps.prune import prune

    done = rewriting(prune)(
        options, workspace=workspace, device=device, force=force, dry_run=dry_run, ms=ms, progress=screen.progress
    )
    screen.show(answers.pruned(done, options, workspace))


@command("finetune", "--epochs 30 --batch 64")
def finetune_command(
    screen: Screen,
    options: FinetuneOptions,
    where: ProcessOptions,  # the decorator sees to it
    workspace: params.WorkspaceDir = DEFAULT,
    device: params.Device = "cpu",
    force: params.Force = False,
    dry_run: params.DryRun = False,
) -> None:
    """Train the pruned network on the train list with the mask held; an interrupted training goes on.

    Keeps the best weights and the last. Give one of --epochs and --iterations.
    """
    from yoloprune.report.rewrite import rewriting
    from yoloprune.steps.finetune import finetune

    done = rewriting(finetune)(
        options, workspace=workspace, device=device, force=force, dry_run=dry_run, progress=screen.progress
    )
    screen.show(answers.finetuned(done, workspace))


@command("export", "-o slim --for opencv --fold-bn")
def export_command(
    screen: Screen,
    out: params.Out,
    options: ExportOptions,
    workspace: params.WorkspaceDir = DEFAULT,
    force: params.Force = False,
    dry_run: params.DryRun = False,
    ms: params.Ms = False,
) -> None:
    """Write the slim network as .cfg, .weights and .names that stock Darknet runs.

    With --for, in the words of that reader; refuses what it would compute otherwise.
    """
    from yoloprune.report.rewrite import rewriting
    from yoloprune.steps.export import export

    done = rewriting(export)(
        out, options, workspace=workspace, force=force, dry_run=dry_run, ms=ms, progress=screen.progress
    )
    screen.show(answers.exported(done))


@command(
    "run",
    "y.cfg y.weights --data d.data --threshold 0.02 --epochs 20 -o slim",
    omit={
        *("labels", "allow_partial", "tolerances", "sparsities", "threshold", "ratio", "total_loss", "sparsity"),
        *("global_sparsity", "magnitude", "rule", "reuse_analysis"),
        *("freeze", "ema", "early_stop"),
    },
)
def run_command(
    screen: Screen,
    cfg: params.CfgArg,
    weights: params.WeightsArg,
    out: params.Out,
    settings: Settings,
    options: RunOptions,
    data: params.Data = None,
    workspace: params.WorkspaceDir = DEFAULT,
    device: params.Device = "cpu",
    force: params.Force = False,
    dry_run: params.DryRun = False,
) -> None:
    """Do all four steps, what may be lost or is to go growing from round to round.

    Give one of --threshold, --total-loss, --ratio, --sparsity, --global-sparsity and --target-map; with
    --layer-by-layer, --keep or --ratio. Each round trains for 30 epochs where neither --epochs nor --iterations is
    given.
    """
    goals_of_rounds(options)
    from yoloprune.report.rewrite import in_rounds, rewriting
    from yoloprune.steps.forecast import forecast
    from yoloprune.steps.run import check, run

    if dry_run and options.layered.layer_by_layer:
        from yoloprune.steps.layer_by_layer import layers_ahead

        check(options)
        listed = layers_ahead(cfg, weights, data, options, workspace, settings, device)
        screen.show(answers.layers_ahead(listed))
        return
    if dry_run:
        goals = check(options)
        ahead = forecast(
            cfg, weights, data, options.analysis, settings=settings, training=options.training, device=device
        )
        screen.show(answers.run_forecast(ahead, goals, options))
        return
    done = rewriting(run)(
        cfg, weights, data, out, options, settings=settings, workspace=workspace, device=device, force=force,
        progress=in_rounds(workspace, screen.progress),
    )  # fmt: skip
    screen.show(answers.ran(done))


@command("status", "-w my-workspace")
def status_command(screen: Screen, workspace: params.WorkspaceDir = DEFAULT, ms: params.Ms = False) -> None:
    """Show how far a job is: inputs, rounds, what was interrupted, which files changed or are gone, what comes next."""
    from yoloprune.steps.status import status

    screen.show(answers.status(status(workspace, ms=ms, progress=screen.progress)))


@command("report", "-w my-workspace --open")
def report_command(
    screen: Screen,
    workspace: params.WorkspaceDir = DEFAULT,
    device: params.Device = "cpu",
    ms: params.Ms = False,
    browser: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
) -> None:
    """Write report.html: figures, charts and pictures of the job in one file that can be mailed.

    Every step rewrites it, too. What no step has measured in detail is measured now.
    """
    from yoloprune.report.rewrite import report

    done = report(workspace, ms=ms, device=device, progress=screen.progress)
    screen.show(answers.reported(done))
    if browser:
        webbrowser.open(done.file.resolve().as_uri())


@command("undo", "-w my-workspace")
def undo_command(screen: Screen, workspace: params.WorkspaceDir = DEFAULT, dry_run: params.DryRun = False) -> None:
    """Take the last round back: its pruning and what was trained in it go, the analysis that it chose by stays."""
    from yoloprune.report.rewrite import rewriting
    from yoloprune.steps.undo import undo

    screen.show(answers.undone(*rewriting(undo)(workspace, dry_run=dry_run), dry_run=dry_run))
