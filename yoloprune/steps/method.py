"""How groups are pruned: the options with what was left out filled in, by what is best or as it was before."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from yoloprune.choices import (
    BITS,
    CALIBRATE,
    CHANNEL,
    COMPENSATIONS,
    MULTIPLE,
    NOTHING,
    POOLINGS,
    RECALIBRATE,
    REFIT,
    SCALE,
    WITHOUT_IMAGES,
)
from yoloprune.errors import InputError
from yoloprune.options import AnalysisOptions, PruneOptions, UnitOptions
from yoloprune.progress import OnProgress, Progress
from yoloprune.prune.granularities import granularity_named
from yoloprune.prune.limits import Limits
from yoloprune.prune.sensitivity import Sensitivity
from yoloprune.steps.job import Job
from yoloprune.workspace import Workspace

_USUAL: Final = PruneOptions(exclude=(), multiple=MULTIPLE, min_keep=1)
_CHANNELS: Final = UnitOptions(CHANNEL)
_OF_BLOCKS: Final = {"block": ("block", "1x2"), "block_pooling": ("block", POOLINGS[0]), "n_of_m": ("n:m", "2:4")}
"""Options that say more of a granularity: of which, and what they are when left out."""


def resolved_units(options: UnitOptions, before: UnitOptions = _CHANNELS) -> UnitOptions:
    """What a unit is: as the options say, the rest as before, or as usual. InputError for what contradicts itself."""
    said = [option for option in ("block", "n_of_m") if getattr(options, option)]
    kinds = {granularity for option in said for granularity in _OF_BLOCKS[option][:1]}
    name = options.granularity or (next(iter(kinds)) if len(kinds) == 1 else before.granularity)
    granularity_named(name)
    known = before if before.granularity == name else UnitOptions(name)
    found: dict[str, str] = {}
    for option, (granularity, usual) in _OF_BLOCKS.items():
        value = getattr(options, option)
        if value and granularity != name:
            flag = option.replace("_", "-")
            raise InputError(f"--{flag}: expected --granularity {granularity}, found {name}")
        if granularity == name:
            found[option] = value or getattr(known, option) or usual
    if found.get("block_pooling", POOLINGS[0]) not in POOLINGS:
        raise InputError(f"--block-pooling: expected one of {', '.join(POOLINGS)}, found {found['block_pooling']!r}")
    if name == CHANNEL and options.only:
        raise InputError("--only: expected --granularity weight, block, n:m or bits, found channel")
    only = known.only if options.only is None else options.only
    return UnitOptions(name, only=only or None, **found)


def resolved(options: AnalysisOptions, before: UnitOptions = _CHANNELS) -> AnalysisOptions:
    """The options with unit and criterion named, left out the best there is, and no images where nothing looks at them.

    before: what a unit is where that is left out. InputError for what isn't known, or lacks the calibration images that
    it needs.
    """
    units = resolved_units(options.units, before)
    kind = granularity_named(units.granularity)
    compensation, calibrate = options.compensation, options.calibrate
    if compensation not in COMPENSATIONS:
        raise InputError(f"compensation: expected one of {', '.join(COMPENSATIONS)}, found {compensation!r}")
    if compensation in (RECALIBRATE, SCALE) and not calibrate:
        flag = "bn-recalibrate" if compensation == RECALIBRATE else "scale"
        raise InputError(f"--{flag}: expected calibration images, found --calibrate 0")
    if compensation == SCALE and kind.name != CHANNEL:
        raise InputError(f"--scale: expected --granularity channel, found {kind.name}")
    if compensation == RECALIBRATE and kind.name == BITS:
        raise InputError("--bn-recalibrate: expected channels or weights, found --granularity bits")
    compensation = compensation if calibrate else NOTHING
    criterion = options.criterion or kind.default_criterion(compensation == REFIT)
    if criterion not in kind.criteria:
        known = ", ".join(kind.criteria)
        raise InputError(f"--criterion: expected of --granularity {kind.name} one of {known}, found {criterion!r}")
    if units.block_pooling == "max" and criterion not in ("magnitude", "wanda"):
        raise InputError(f"--block-pooling max: expected --criterion magnitude or wanda, found {criterion}")
    if not calibrate and criterion not in WITHOUT_IMAGES:
        raise InputError(f"--criterion {criterion}: expected calibration images, found --calibrate 0")
    looks = compensation != NOTHING or criterion not in WITHOUT_IMAGES
    seen = calibrate if looks else 0
    return replace(options, criterion=criterion, compensation=compensation, calibrate=seen, **vars(units))


def as_before(job: Job, options: PruneOptions) -> AnalysisOptions:
    """What the options say of the method; the rest as the analysis of the round to come has it, else the last round."""
    before: AnalysisOptions | PruneOptions | None = job.workspace.last.options if job.workspace.rounds else None
    file = job.workspace.sensitivity_file(job.next_round)
    units, criterion = resolved_units(options.units, job.units.options), options.criterion
    if file.exists():
        analysed = Sensitivity.load(file).options
        units = resolved_units(options.units, analysed.units)
        before = analysed if analysed.units == units else before
    if options.magnitude is not None and units.granularity != CHANNEL:
        criterion = criterion or "magnitude"  # a goal that says which go
    if criterion is None and before is not None and before.units != units:
        before = replace(before, criterion=None)  # what chose other units is none for these
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
    wanted = AnalysisOptions(criterion=criterion, calibrate=calibrate, compensation=compensation, **vars(units))
    return resolved(wanted, units)


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
    """The limits of options in which none is left out; only channels go by multiples."""
    multiple = (options.multiple or 1) if options.granularity in (None, CHANNEL) else 1
    return Limits(frozenset(options.exclude or ()), multiple, options.min_keep or 1)


def _written(value: int | tuple[int, ...]) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
