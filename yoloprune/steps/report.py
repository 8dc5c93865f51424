"""`report`: a job summed up for people, what that needs measured where no step did."""

from __future__ import annotations

from pathlib import Path

from yoloprune.detect.measure import network_for_measuring
from yoloprune.errors import InputError, warn
from yoloprune.progress import OnProgress, Progress, silent
from yoloprune.steps.inputs import check_readable
from yoloprune.steps.job import Job, open_job, slim_models
from yoloprune.steps.milliseconds import Times, timed
from yoloprune.steps.summary import JobSummary, summary
from yoloprune.workspace import DEFAULT


def measured_summary(
    workspace: Path = DEFAULT, *, ms: bool = False, device: str = "cpu", progress: OnProgress = silent
) -> JobSummary:
    """The job, its original and newest network measured in detail where no step did.

    ms: and timed, in every reader on this machine. Where measuring can't be done, as the images are gone, an
    InputWarning says why. InputError where `workspace.json` can't be read.
    """
    known = summary(workspace)
    if known.workspace.original is None:
        return known
    if known.before is None or (known.after is None and known.workspace.rounds):
        try:
            _measure(workspace, known, device, progress)
        except InputError as error:
            warn(f"the report is without what can't be measured: {error}")
    if ms:
        _time(open_job(workspace), progress)
    return summary(workspace)


def _time(job: Job, progress: OnProgress) -> None:
    """The original and the newest network, in turns."""
    figures, models, rounds = {"original": job.original}, slim_models(job), job.workspace.rounds
    if rounds:
        figures[f"round {rounds[-1].number}"] = rounds[-1].newest
    ends = models[:1] + models[1:][-1:]
    known = timed(list(figures.values()), ends, progress)
    Times.keep(job.workspace.milliseconds_file, dict(zip(figures, known, strict=True)))


def _measure(folder: Path, known: JobSummary, device: str, progress: OnProgress) -> None:
    job = open_job(folder, device)
    space = job.workspace
    check_readable(job.inputs.measure.pictures.paths, job.model.graph, progress)
    if space.pictures not in ("", job.inputs.measure.digest()):
        raise InputError("the valid list holds other images or labels than were measured on", file=space.data.path)
    networks = []
    if known.before is None:
        networks.append((space.details_file(0), True))
    if known.after is None and space.rounds:
        networks.append((space.newest_details_file(), False))
    for done, (file, original) in enumerate(networks):
        progress(Progress("report", done, len(networks), f"measuring the {'original' if original else 'newest'} net"))
        _save(job, file, original, device)
    progress(Progress("report", len(networks), len(networks)))


def _save(job: Job, file: Path, original: bool, device: str) -> None:
    measure = job.inputs.measure
    predictions = job.inputs.findings if original else measure.predictions(network_for_measuring(job.model, device))
    measure.details(predictions).save(file)
