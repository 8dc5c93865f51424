"""`run`: all four steps, round after round with a growing threshold."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yoloprune.artefacts import ready
from yoloprune.choices import CALIBRATE, EPOCHS, REFIT
from yoloprune.errors import InputError
from yoloprune.progress import OnProgress, Progress, silent
from yoloprune.prune.sensitivity import ROUNDING
from yoloprune.steps.export import export, targets
from yoloprune.steps.finetune import check_epochs, finetune
from yoloprune.steps.goal import check_loss
from yoloprune.steps.job import check_readable, original_figures, original_findings, start_job
from yoloprune.steps.limits import limits_for
from yoloprune.steps.method import Method
from yoloprune.steps.objective import check_objective
from yoloprune.steps.prune import NothingGoesError, prune
from yoloprune.steps.training import train_images
from yoloprune.train.ranks import world_size
from yoloprune.workspace import DEFAULT, Figures, Settings, Workspace


@dataclass(frozen=True)
class RunResult:
    """The network before and after all rounds, and the files written."""

    before: Figures
    after: Figures
    files: Mapping[str, Path]
    rounds: int
    """Rounds done: fewer than asked for where at some thresholds nothing more could go."""
    cautions: tuple[str, ...] = ()
    """Why the losses asked for are little to go by, as `Pruned` has it."""


def run(
    cfg: Path,
    weights: Path,
    data: Path | None,
    out: Path,
    *,
    threshold: float,
    rounds: int = 1,
    epochs: float = EPOCHS,
    workspace: Path = DEFAULT,
    dialect: str = "alexeyab",
    letterbox: bool | None = None,
    metric: str | None = None,
    images: int | None = None,
    criterion: str | None = None,
    calibrate: int = CALIBRATE,
    compensation: str = REFIT,
    relative: bool = False,
    objective: str = "bflops",
    reader: str | None = None,
    drop_branches: bool = False,
    exclude: Collection[int] | None = None,
    multiple: int | None = None,
    min_keep: int | None = None,
    learning_rate: float | None = None,
    batch: int | None = None,
    device: str = "cpu",
    seed: int = 0,
    workers: int = 2,
    force: bool = False,
    progress: OnProgress = silent,
) -> RunResult:
    """ana, then `rounds` times prune and finetune, then export to `out`.

    Round k of K prunes at threshold * k / K, each group against the original network, and is left out where nothing
    more can go at that. epochs: of each round. An interrupted run goes on where it was. All else as the steps have it.
    """
    thresholds = thresholds_of(threshold, rounds)
    check_epochs(epochs)
    if world_size() > 1:
        raise InputError("run: expected one process, found several of torchrun, which is for ana, finetune and train")
    job = start_job(cfg, weights, data, workspace, Settings(dialect, letterbox, metric, images), force=force)
    check_objective(objective, reader)
    targets(job, out, force=force)  # refused now, not after hours
    ready(out)
    check_readable(
        train_images(job.data, job.model.graph).images, job.model.graph, progress
    )  # now, not after the analysis
    if job.workspace.original is None:
        measure = job.measure(device)
        original_figures(job, measure.outcome(original_findings(job, measure, device)).accuracy, measure)
    known = Workspace.load(workspace)
    how: dict[str, Any] = {
        "objective": objective,
        "reader": reader,
        "drop_branches": drop_branches,
        **limits_for(known, exclude, multiple, min_keep, progress).as_dict(),
        **vars(Method.of(criterion, calibrate, compensation)),
    }
    _check_same(known, how)
    refused: NothingGoesError | None = None
    cautions: dict[str, None] = {}
    for number, share in enumerate(thresholds, start=1):
        progress(Progress("round", number, rounds))
        if not _reached(Workspace.load(workspace), number, share, relative=relative):
            try:
                cut = prune(share, relative=relative, **how, workspace=workspace, device=device, progress=progress)
            except NothingGoesError as error:
                refused = error  # a later round may lose more
                continue
            cautions |= dict.fromkeys(cut.cautions)
        if not Workspace.load(workspace).last.finetuned:
            finetune(
                epochs=epochs,
                learning_rate=learning_rate,
                batch=batch,
                workspace=workspace,
                device=device,
                seed=seed,
                workers=workers,
                progress=progress,
            )
    if refused and not Workspace.load(workspace).rounds:
        raise refused
    exported = export(out, workspace=workspace, force=force)
    files = {"cfg": exported.cfg, "weights": exported.weights}
    if exported.names is not None:
        files["names"] = exported.names
    return RunResult(exported.before, exported.after, files, len(Workspace.load(workspace).rounds), tuple(cautions))


def thresholds_of(threshold: float, rounds: int) -> list[float]:
    """Of each round; it grows evenly. InputError without a round, and for what can't be lost."""
    check_loss("--threshold", threshold)
    if rounds < 1:
        raise InputError(f"--rounds: expected at least 1, found {rounds}")
    return [threshold * number / rounds for number in range(1, rounds + 1)]


def _check_same(workspace: Workspace, how: Mapping[str, Any]) -> None:
    """InputError if a round that is there was cut otherwise."""
    for done in workspace.rounds:
        for key, expected in how.items():
            found = done.chosen_by.get(key)
            if found != expected:
                reason = f"round {done.number} was cut with {key} {found}, expected {expected}"
                raise InputError(f"{reason}; -w names another workspace", file=workspace.folder)


def _reached(workspace: Workspace, number: int, threshold: float, *, relative: bool) -> bool:
    """Whether a round is there, or one that was allowed as much: where nothing could go, there is none."""
    if not workspace.rounds:
        return False
    assert workspace.original is not None
    allowed = threshold * (workspace.original.accuracy if relative else 1.0)
    return number <= len(workspace.rounds) or allowed <= workspace.last.chosen_by["threshold"] + ROUNDING
