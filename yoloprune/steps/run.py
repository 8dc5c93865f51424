"""`run`: all four steps, round after round with a growing threshold."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from yoloprune.errors import InputError
from yoloprune.prune.cutter import REFIT
from yoloprune.steps.export import export, targets
from yoloprune.steps.finetune import finetune
from yoloprune.steps.job import Step, Watch, original_figures, original_findings, start_job, unwatched
from yoloprune.steps.method import CALIBRATE
from yoloprune.steps.objective import check_objective
from yoloprune.steps.prune import NothingGoesError, prune
from yoloprune.workspace import DEFAULT, Figures, Settings, Workspace


@dataclass(frozen=True)
class RunResult:
    """The network before and after all rounds, and the files written."""

    before: Figures
    after: Figures
    files: Mapping[str, Path]
    rounds: int
    """Rounds done: fewer than asked for where no group bears to lose more."""


def run(
    cfg: Path,
    weights: Path,
    data: Path | None,
    out: Path,
    *,
    threshold: float,
    rounds: int = 1,
    epochs: float,
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
    exclude: Collection[int] = (),
    multiple: int = 1,
    min_keep: int = 1,
    learning_rate: float | None = None,
    batch: int | None = None,
    device: str = "cpu",
    seed: int = 0,
    workers: int = 2,
    force: bool = False,
    watch: Watch = unwatched,
) -> RunResult:
    """ana, then `rounds` times prune and finetune, then export to `out`.

    Round k of K prunes at threshold * k / K, each group against the original network. epochs: of each round. An
    interrupted run goes on where it was. All else as the steps have it.
    """
    if rounds < 1:
        raise InputError(f"--rounds: expected at least 1, found {rounds}")
    job = start_job(cfg, weights, data, workspace, Settings(dialect, letterbox, metric, images), force=force)
    check_objective(objective, reader)
    targets(job, out, force=force)  # refused now, not after hours
    if job.workspace.original is None:
        measure = job.measure(device)
        original_figures(job, measure.outcome(original_findings(job, measure, device)).accuracy, measure)
    for number in range(1, rounds + 1):
        done = {each.number: each for each in Workspace.load(workspace).rounds}
        watch(Step("round", number, rounds))
        if number not in done:
            try:
                prune(
                    threshold * number / rounds,
                    relative=relative,
                    objective=objective,
                    reader=reader,
                    drop_branches=drop_branches,
                    exclude=exclude,
                    multiple=multiple,
                    min_keep=min_keep,
                    criterion=criterion,
                    calibrate=calibrate,
                    compensation=compensation,
                    workspace=workspace,
                    device=device,
                    watch=watch,
                )
            except NothingGoesError:
                if number == 1:
                    raise
                break
        if number not in done or not done[number].finetuned:
            finetune(
                epochs=epochs,
                learning_rate=learning_rate,
                batch=batch,
                workspace=workspace,
                device=device,
                seed=seed,
                workers=workers,
                watch=watch,
            )
    exported = export(out, workspace=workspace, force=force)
    files = {"cfg": exported.cfg, "weights": exported.weights}
    if exported.names is not None:
        files["names"] = exported.names
    return RunResult(exported.before, exported.after, files, len(Workspace.load(workspace).rounds))
