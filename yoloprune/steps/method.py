"""How groups are pruned: the options with what was left out filled in, by what is best or as it was before."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from yoloprune.choices import CALIBRATE, COMPENSATIONS, MULTIPLE, NOTHING, RECALIBRATE, REFIT
from yoloprune.errors import InputError
from yoloprune.options import AnalysisOptions, PruneOptions
from yoloprune.progress import OnProgress, Progress
from yoloprune.prune.criteria import CRITERIA, WITHOUT_IMAGES, default_criterion
from yoloprune.prune.limits import Limits
from yoloprune.prune.sensitivity import Sensitivity
from yoloprune.steps.job import Job
from yoloprune.workspace import Workspace

_USUAL: Final = PruneOptions(exclude=(), multiple=MULTIPLE, min_keep=1)


def resolved(options: AnalysisOptions) -> AnalysisOptions:
    """The options with the criterion named, left out the best there is, and no images where nothing looks at them.

    InputError for what isn't known, or lacks the calibration images that it needs.
    """
    compensation, calibrate = options.compensation, options.calibrate
    if compensation not in COMPENSATIONS:
        raise InputError(f"compensation: expected one of {', '.join(COMPENSATIONS)}, found {compensation!r}")
    if compensation == RECALIBRATE and not calibrate:
        raise InputError("--bn-recalibrate: expected calibration images, found --calibrate 0")
    compensation = compensation if calibrate else NOTHING
    criterion = options.criterion or default_criterion(compensation == REFIT)
    if criterion not in CRITERIA:
        raise InputError(f"--criterion: expected one of {', '.join(CRITERIA)}, found {criterion!r}")
    if not calibrate and criterion not in WITHOUT_IMAGES:
        raise InputError(f"--criterion {criterion}: expected calibration images, found --calibrate 0")
    looks = compensation != NOTHING or criterion not in WITHOUT_IMAGES
    return replace(options, criterion=criterion, compensation=compensation, calibrate=calibrate if looks else 0)


def as_before(job: Job, options: PruneOptions) -> AnalysisOptions:
    """What the options say of the method; the rest as the analysis of the round to come has it, else the last round."""
    before: AnalysisOptions | PruneOptions | None = job.workspace.last.options if job.workspace.rounds else None
    file = job.workspace.sensitivity_file(job.next_round)
    granularity, criterion = job.units.name, options.criterion
    if file.exists():
        before = Sensitivity.load(file).options
        granularity = before.granularity
    was, had = (REFIT, CALIBRATE) if before is None else (before.compensation or REFIT, before.calibrate or 0)
    if was not in COMPENSATIONS:
        known = ", ".join(COMPENSATIONS)
        raise InputError(f"compensation: expected one of {known}, found {was!r}; ana --force measures anew", file=file)
    # Without images nothing can be refitted: where there are some now, or they are needed, that was no choice.
    compensation = options.compensation or (REFIT if options.calibrate and not had else was)
    calibrate = options.calibrate
    if calibrate is None:
        needed = compensation != was or criterion not in (None, *WITHOUT_IMAGES)
        calibrate = CALIBRATE if needed and not had else had
    if before is not None and (compensation, calibrate) == (before.compensation, before.calibrate):
        criterion = criterion or before.criterion
    return resolved(AnalysisOptions(criterion, calibrate, compensation, granularity=granularity))


def with_limits(options: PruneOptions, workspace: Workspace, progress: OnProgress) -> PruneOptions:
    """The options with limits that are left out as the last round had them, else as usual.

    What that round says is told in a line. InputError for what can't be a limit.
    """
    before = workspace.last.options if workspace.rounds else _USUAL
    names = ("exclude", "multiple", "min_keep")
    left_out = {name: getattr(before, name) for name in names if getattr(options, name) is None}
    known = replace(options, **left_out)
    if (known.multiple or 0) < 1 or (known.min_keep or 0) < 1:
        raise InputError("--multiple and --min-keep: expected at least 1")
    remembered = {name: value for name, value in left_out.items() if value != getattr(_USUAL, name)}
    if remembered:
        said = (f"--{name.replace('_', '-')} {_written(value)}" for name, value in remembered.items())
        number = workspace.last.number
        progress(Progress("limits", 0, 1, f"{' '.join(said)}, as in round {number}; the options change that"))
    return replace(known, exclude=tuple(sorted(known.exclude or ())))


def limits_of(options: PruneOptions) -> Limits:
    """The limits of options in which none is left out."""
    return Limits(frozenset(options.exclude or ()), options.multiple or 1, options.min_keep or 1)


def _written(value: int | tuple[int, ...]) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
