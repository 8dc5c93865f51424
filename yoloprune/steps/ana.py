"""`ana`: how accuracy falls as each group of channels is pruned alone."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from yoloprune.darknet.data import load_classes, load_split
from yoloprune.detect.front import Front
from yoloprune.detect.measure import Measure, Pictures, fit_for, network_for_measuring
from yoloprune.errors import InputError
from yoloprune.prune.criteria import CRITERIA, default_criterion
from yoloprune.prune.cutter import Cutter
from yoloprune.prune.sensitivity import GRID, Curve, Point, Sensitivity, Setup, analyse, grid_counts
from yoloprune.steps.job import Job, Step, Watch, job_of, original_figures, start_job, unwatched
from yoloprune.workspace import DEFAULT, Settings

CALIBRATE = 64
"""Pictures of the train list that consumers are refitted on."""


def ana(
    cfg: Path,
    weights: Path,
    data: Path | None = None,
    *,
    workspace: Path = DEFAULT,
    dialect: str = "alexeyab",
    letterbox: bool | None = None,
    metric: str | None = None,
    images: int | None = None,
    criterion: str | None = None,
    calibrate: int = CALIBRATE,
    sparsities: Sequence[float] | None = None,
    device: str = "cpu",
    force: bool = False,
    watch: Watch = unwatched,
) -> Sensitivity:
    """Measure the loss of every channel group at `sparsities` (default: GRID), each alone, to `sensitivity.json`.

    Starts the workspace, or goes on with the one that was started with the same files and settings: after rounds of
    pruning it measures what is left. images: first so many pictures of the valid list. calibrate: first so many of the
    train list, for compensation; 0 for none. Points that are measured already are not measured again.
    """
    settings = Settings(dialect, letterbox, metric, images)
    job = start_job(cfg, weights, data, workspace, settings, force=force)
    return analyse_job(
        job, criterion=criterion, calibrate=calibrate, sparsities=sparsities, device=device, force=force, watch=watch
    )


def analyse_job(
    job: Job,
    *,
    criterion: str | None,
    calibrate: int,
    sparsities: Sequence[float] | None = None,
    device: str = "cpu",
    force: bool = False,
    watch: Watch = unwatched,
) -> Sensitivity:
    """`ana` on a workspace's newest weights, for its next round."""
    criterion = criterion or default_criterion(bool(calibrate))
    if criterion not in CRITERIA:
        raise InputError(f"--criterion: expected one of {', '.join(CRITERIA)}, found {criterion!r}")
    measure = job.measure(device)
    if calibrate:
        calibration_paths(job, calibrate)  # what is missing there is said now
    workspace, original = original_figures(job, measure, device)
    job = job_of(workspace)
    file = workspace.sensitivity_file(job.next_round)
    setup = setup_of(job, measure, criterion, calibrate)
    known = resumable(file, setup) if file.exists() and not force else None
    network = network_for_measuring(job.model, device)
    start = known.start if known else measure.accuracy(network)
    cut = cutter_of(job, calibrate, device)
    if calibrate:
        watch(Step("ana", 0, 1, f"looking at {calibrate} calibration pictures"))
    if calibrate and cut.not_refitted:
        layers = ", ".join(map(str, cut.not_refitted))
        watch(Step("cut plainly", 0, 1, f"layers {layers}, too large to refit within memory"))
    if known:
        sensitivity = replace(known, sparsities=tuple(sparsities or known.sparsities))
    else:
        curves = cut.first_curves(criterion)
        sensitivity = Sensitivity(setup, original.accuracy, start, tuple(sparsities or GRID), curves)
    sensitivity.save(file)

    missing = [
        (curve, count)
        for curve in sensitivity.curves
        for count in set(grid_counts(curve, sensitivity.sparsities)) - {point.dropped for point in curve.points}
    ]
    todo = len(missing)
    groups = len(sensitivity.curves)
    done = 0
    front = Front(measure, network)
    variant = network_for_measuring(job.model, device)

    def accuracy_of(curve: Curve, dropped: int) -> float:
        front.advance(curve.producers[0])
        variant.set_weights(cut.alone(curve.keep(job.channels, job.keep, dropped)).weights)
        return front.outcome(variant).accuracy

    if missing:  # a trial cut from the middle, refit and all, says what a point costs; it tells nothing else
        started = time.monotonic()
        accuracy_of(*missing[todo // 2])
        minutes = (time.monotonic() - started) * todo / 60
        text = f"{groups} groups, {todo} points of {len(measure.pictures)} pictures, about {minutes:.1f} min"
        watch(Step("ana", 0, todo, text))

    def on_point(so_far: Sensitivity, curve: Curve, point: Point) -> None:
        nonlocal done
        done += 1
        so_far.save(file)
        share = point.dropped / curve.atoms
        watch(Step("ana", done, todo, f"group {curve.label} at {share:.0%}: {so_far.loss(point):+.4f}"))

    return analyse(sensitivity, accuracy_of, on_point)


def cutter_of(job: Job, calibrate: int, device: str = "cpu") -> Cutter:
    """Cuts of a job's network, refitted on the first `calibrate` train pictures; plain ones for 0."""

    def pictures() -> list[Tensor]:
        return calibration(job, calibrate, device) if calibrate else []

    return Cutter(job.model, job.channels, job.keep, pictures, device=device)


def calibration(job: Job, count: int, device: str = "cpu") -> list[Tensor]:
    """The first `count` pictures of the train list as network input, in batches; no labels are needed."""
    graph = job.model.graph
    fit = fit_for(graph, job.workspace.settings.letterbox)
    paths = calibration_paths(job, count)
    return [batch.inputs for batch in Pictures(paths, graph, fit, device)]


def calibration_paths(job: Job, count: int) -> tuple[Path, ...]:
    """Which pictures those are."""
    graph = job.model.graph
    if graph.detection_heads:
        split = load_split(job.data, "train", graph.dialect, classes=graph.classes, limit=count, labels=False)
        return split.images
    return load_classes(job.data, "train", classes=graph.classes, limit=count).images


def setup_of(job: Job, measure: Measure, criterion: str, calibrate: int) -> Setup:
    """What a measurement of this job depends on."""
    return Setup(
        cfg=job.workspace.cfg.sha256,
        weights=job.weights_sha,
        data=measure.digest(),
        dialect=job.model.graph.dialect.name,
        letterbox=measure.pictures.fit == "letterbox",
        metric=measure.metric,
        images=len(measure.pictures),
        criterion=criterion,
        compensation=f"least squares, {calibrate} pictures" if calibrate else "none",
    )


def resumable(file: Path, setup: Setup) -> Sensitivity:
    """The measurements in a file. InputError if they were made with anything else than `setup`."""
    known = Sensitivity.load(file)
    for key, expected in vars(setup).items():
        found = getattr(known.setup, key)
        if found != expected:
            raise InputError(f"was made with {key} {found}, expected {expected}; -w names another workspace", file=file)
    return known
