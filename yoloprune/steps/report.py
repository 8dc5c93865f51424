"""`report`: a job summed up for people, what that needs measured where no step did."""

from __future__ import annotations

from pathlib import Path

from yoloprune.detect.measure import network_for_measuring
from yoloprune.errors import InputError, warn
from yoloprune.progress import OnProgress, Progress, silent
from yoloprune.steps.inputs import check_readable
from yoloprune.steps.job import Job, open_job
from yoloprune.steps.summary import JobSummary, summary
from yoloprune.workspace import DEFAULT


def measured_summary(workspace: Path = DEFAULT, *, device: str = "cpu", progress: OnProgress = silent) -> JobSummary:
    """The job, its original and newest network measured in detail where no step did.

    Where that can't be done, as the images are gone, an InputWarning says why. InputError where `workspace.json` can't
    be read.
    """
    known = summary(workspace)
    missing = known.before is None or (known.after is None and bool(known.workspace.rounds))
    if not missing or known.workspace.original is None:
        return known
    try:
        _measure(workspace, known, device, progress)
    except InputError as error:
        warn(f"the report is without what can't be measured: {error}")
    return summary(workspace)


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
