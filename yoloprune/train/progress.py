"""What a run tells while it goes, and the log that stays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from yoloprune.artefacts import atomic_path, read_bytes
from yoloprune.errors import InputError


@dataclass(frozen=True)
class Record:
    """One update."""

    iteration: int
    """From 1."""
    loss: float
    """Darknet's loss: the mean over heads and images of their costs."""
    average: float
    """.9 of the last average and .1 of this loss."""
    rate: float
    """Learning rate."""
    metric: float | None = None
    """What `evaluate` gave after this update, where it was asked."""


@dataclass(frozen=True)
class TrainingProgress:
    """An update and how fast they come."""

    record: Record
    iterations: int
    """Updates of the whole run."""
    images_per_second: float
    """Since the run was started or resumed, with making the pictures, without measuring accuracy."""
    seconds_left: float
    """Of training alone, at that speed."""
    best: float | None
    """Best metric so far."""


def write_log(path: Path, records: Sequence[Record], *, more: bool) -> None:
    """CSV with a line for each update; the metric is empty where none was taken. more: these go behind what is there.

    InputError if the disk is full or the folder can't be written.
    """
    lines = [] if more else ["iteration,loss,average,rate,metric\n"]
    for record in records:
        metric = "" if record.metric is None else f"{record.metric:.6f}"
        lines.append(f"{record.iteration},{record.loss:.6g},{record.average:.6g},{record.rate:.6g},{metric}\n")
    if not more:
        with atomic_path(path) as temporary:
            temporary.write_text("".join(lines))
        return
    try:
        with path.open("a") as stream:
            stream.writelines(lines)
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror}", file=path) from error


def read_log(path: Path) -> list[Record]:
    """What `write_log` wrote, up to the first line that is none of it. InputError if the file can't be read."""
    records = []
    for line in read_bytes(path).decode("utf-8", "replace").splitlines()[1:]:
        try:
            iteration, loss, average, rate, metric = line.split(",")
            numbers = (float(loss), float(average), float(rate))
            records.append(Record(int(iteration), *numbers, float(metric) if metric else None))
        except ValueError:
            break
    return records
