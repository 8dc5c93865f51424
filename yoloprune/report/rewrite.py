"""When the report is written: after each step, out of what is there, and on its own, with all that it lacks."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from inspect import signature
from pathlib import Path
from typing import ParamSpec, TypeVar

from yoloprune.errors import InputError, warn
from yoloprune.progress import OnProgress, Progress, silent
from yoloprune.report.html import write_report
from yoloprune.shown import Shown
from yoloprune.steps.report import measured_summary
from yoloprune.steps.summary import JobSummary, summary
from yoloprune.train.ranks import rank_of
from yoloprune.workspace import DEFAULT

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


@dataclass(frozen=True, repr=False)
class Reported(Shown, os.PathLike[str]):
    """A report that is written; a path to it."""

    file: Path
    job: JobSummary

    def __fspath__(self) -> str:
        return str(self.file)

    def rows(self) -> Mapping[str, Mapping[str, object]]:
        """Figures of the networks, and the file."""
        networks = {"original": self.job.workspace.original, "newest": self.job.newest}
        return {name: each.as_dict() for name, each in networks.items() if each} | {"file": {"": self.file}}


def report(
    workspace: Path = DEFAULT, *, ms: bool = False, device: str = "cpu", progress: OnProgress = silent
) -> Reported:
    """Write `report.html` into the workspace: figures, charts and pictures of the job in one file.

    It needs no other file and no network, so it can be mailed. What no step has measured in detail is measured now.
    ms: time the original and the newest network, too, in every reader on this machine.
    """
    job = measured_summary(workspace, ms=ms, device=device, progress=progress)
    return Reported(write_report(job), job)


def rewrite(workspace: Path) -> None:
    """The report as the workspace is now, after a step; where it can't be, an InputWarning says why."""
    if rank_of():
        return
    try:
        write_report(summary(workspace))
    except InputError as error:
        warn(f"the report is not rewritten: {error}")


def in_rounds(workspace: Path, progress: OnProgress) -> OnProgress:
    """Tells `progress`, and rewrites the report as each round of `run` but the first begins."""

    def tell(step: Progress) -> None:
        if step.stage == "round" and step.done > 1:
            rewrite(workspace)
        progress(step)

    return tell


def rewriting(step: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """A step of a workspace, behind which its report is rewritten, unless it is a dry run."""
    own = signature(step)

    @wraps(step)
    def call(*args: _Arguments.args, **named: _Arguments.kwargs) -> _Result:
        result = step(*args, **named)
        given = own.bind(*args, **named)
        given.apply_defaults()
        if not given.arguments.get("dry_run", False):
            rewrite(given.arguments["workspace"])
        return result

    return call
