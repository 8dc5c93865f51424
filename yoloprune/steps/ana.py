"""`ana`: how accuracy falls as each group of channels is pruned alone."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import torch

from yoloprune.choices import CALIBRATE, REFIT
from yoloprune.detect.measure import Measure, digest_of, network_for_measuring
from yoloprune.errors import InputError
from yoloprune.progress import OnProgress, Progress, silent
from yoloprune.prune.group_evaluator import GroupEvaluator
from yoloprune.prune.search import analyse
from yoloprune.prune.sensitivity import Curve, Sensitivity, Setup
from yoloprune.steps.job import Job, check_readable, job_of, original_figures, original_findings, start_job
from yoloprune.steps.method import Method
from yoloprune.train.processes import Processes, joined
from yoloprune.workspace import DEFAULT, Settings

_PART = "sensitivity.part-"
SAVE_EVERY: Final = 1.0
"""Seconds of work that a kill may cost."""


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
    labels: bool = True,
    allow_partial: bool = False,
    criterion: str | None = None,
    calibrate: int = CALIBRATE,
    compensation: str = REFIT,
    losses: Sequence[float] | None = None,
    sparsities: Sequence[float] | None = None,
    device: str = "cpu",
    seed: int = 0,
    force: bool = False,
    progress: OnProgress = silent,
) -> Sensitivity:
    """Measure how far every channel group may go, each alone, at each of `losses` (default: LOSSES).

    Writes `sensitivity.json`. Starts the workspace, or goes on with the one that was started with the same files and
    settings: after rounds of pruning it measures what is left. sparsities: measure all of these instead, the classic
    way. images: first so many pictures of the valid list. labels: False to measure agreement with the original
    network's own findings instead of accuracy. allow_partial: weights of the first layers will do. calibrate: first so
    many of the train list, for criterion and compensation; 0 for none. compensation: one of COMPENSATIONS. seed: of the
    bootstrap. Points that are measured already are not measured again.
    """
    settings = Settings(dialect, letterbox, metric, images, labels, allow_partial)
    job = start_job(cfg, weights, data, workspace, settings, force=force)
    return analyse_job(
        job,
        Method.of(criterion, calibrate, compensation),
        losses=losses,
        sparsities=sparsities,
        device=device,
        seed=seed,
        force=force,
        progress=progress,
    )


def analyse_job(
    job: Job,
    method: Method,
    *,
    losses: Sequence[float] | None = None,
    sparsities: Sequence[float] | None = None,
    also: Sequence[float] = (),
    device: str = "cpu",
    seed: int = 0,
    force: bool = False,
    progress: OnProgress = silent,
) -> Sensitivity:
    """`ana` on a workspace's newest weights, for its next round. An analysis that is there is only added to.

    also: as `Sensitivity.asked_for` has it.
    """
    if losses and sparsities:
        raise InputError("expected --losses or --sparsities, found both")
    if not all(0 < each < 1 for each in (*(losses or ()), *(sparsities or ()))):
        raise InputError(f"expected losses and sparsities between 0 and 1, found {losses or sparsities}")
    with joined(device) as place:
        analysis = _Analysis(job, method, place, seed, progress)
        analysis.begin(losses, sparsities, also, force=force)
        return analysis.run()


class _Analysis:
    """An analysis of a job's newest weights. Of several processes, k of N measures groups k, k+N ..."""

    def __init__(self, job: Job, method: Method, device: str, seed: int, progress: OnProgress) -> None:
        self.job, self.method, self.device = job, method, device
        self.seed, self.progress = seed, progress
        self.processes = Processes()
        self.measure = job.measure(device)
        check_readable(self.measure.pictures.paths, job.model.graph, progress)
        self.file = job.workspace.sensitivity_file(job.next_round)
        self.setup = setup_of(job, self.measure, method)
        self.pruner = method.pruner(job, device)

    @cached_property
    def original(self) -> list[Any]:
        """What the original network finds."""
        return original_findings(self.job, self.measure, self.device)

    @cached_property
    def uncut(self) -> list[Any]:
        """What the network finds that is cut: the original in the first round."""
        if not self.job.workspace.rounds:
            return self.original
        return self.measure.found(network_for_measuring(self.job.model, self.device))

    def begin(
        self,
        losses: Sequence[float] | None,
        sparsities: Sequence[float] | None,
        also: Sequence[float],
        *,
        force: bool,
    ) -> None:
        """Start the workspace and `sensitivity.json` where they are missing, and write down what is asked for."""
        first = self.processes.rank == 0
        if first:
            if self.job.workspace.original is None:
                accuracy = self.measure.outcome(self.original).accuracy
                self.job = job_of(original_figures(self.job, accuracy, self.measure))
            known = None if force else self._known()
            if self.method.calibrate:
                self.progress(Progress("ana", 0, 1, f"looking at {self.method.calibrate} calibration pictures"))
            if self.method.compensation == REFIT and self.pruner.not_refitted:
                layers = ", ".join(map(str, self.pruner.not_refitted))
                self.progress(Progress("cut plainly", 0, 1, f"layers {layers}, too large to refit within memory"))
        curves = self._first_curves() if self.processes.broadcast(first and known is None) else ()
        if first:
            if known is None:
                assert self.job.workspace.original is not None
                baseline = start = self.job.workspace.original.accuracy
                if self.job.workspace.rounds:
                    start = self.measure.outcome(self.uncut).accuracy
                known = Sensitivity(self.setup, baseline, start, (), (), curves)
            known.asked_for(losses, sparsities, also).save(self.file)
            for part in self._parts():
                part.unlink()
        self.processes.barrier()

    def _first_curves(self) -> tuple[Curve, ...]:
        """Curves without points; the orders of groups k, k+N ... are this process's work."""
        groups = self.pruner.cuttable
        orders = torch.zeros(len(groups), max((len(group.units) for group in groups), default=0), dtype=torch.int64)
        for number in range(self.processes.rank, len(groups), self.processes.count):
            order = self.pruner.order(self.method.criterion, groups[number])
            orders[number, : len(order)] = torch.tensor(order)
        orders = self.processes.all_reduce(orders.to(self.device)).cpu()
        return tuple(
            self.pruner.curve(group, tuple(order[: len(group.units)].tolist()))
            for group, order in zip(groups, orders, strict=True)
        )

    def run(self) -> Sensitivity:
        """Measure what is missing, each process its groups."""
        whole = resumable(self.file, self.setup, self.job)
        processes = self.processes
        mine = replace(whole, curves=whole.curves[processes.rank :: processes.count])
        file = self.file if processes.count == 1 else self.file.with_name(f"{_PART}{processes.rank}.json")
        latest, groups = mine, len(mine.curves)
        started = saved = time.monotonic()
        first: int | None = None  # group of this session: earlier ones took no time of it
        self.progress(Progress("ana", 0, groups, f"{len(whole.curves)} groups, {len(self.measure.pictures)} pictures"))

        def on_change(so_far: Sensitivity, curve: Curve) -> None:
            nonlocal latest, saved, first
            latest = so_far
            if time.monotonic() - saved > SAVE_EVERY:
                latest.save(file)
                saved = time.monotonic()
            done = [each.label for each in so_far.curves].index(curve.label)
            first = done if first is None else first
            left = (time.monotonic() - started) / (done - first + 0.5) * (groups - done - 0.5) / 60
            self.progress(Progress("ana", done, groups, f"{_latest(so_far, curve)}, about {left:.1f} min left"))

        evaluator = GroupEvaluator(self.pruner, self.measure, lambda: self.uncut, lambda: self.original, self.seed)
        try:
            analyse(mine, evaluator, on_change)
        finally:
            latest.save(file)
        self.progress(Progress("ana", groups, groups))
        if processes.count == 1:
            return latest
        processes.barrier()
        if processes.rank == 0:
            merged = self._known()
            assert merged is not None
            merged.save(self.file)
            for part in self._parts():
                part.unlink()
        processes.barrier()
        return resumable(self.file, self.setup, self.job)

    def _known(self) -> Sensitivity | None:
        """What is in the file and in what several processes left beside it."""
        if not self.file.exists():
            return None
        known = resumable(self.file, self.setup, self.job)
        for part in self._parts():
            for curve in resumable(part, self.setup, self.job).curves:
                known = known.with_curve(curve)
        return known

    def _parts(self) -> list[Path]:
        return sorted(self.file.parent.glob(f"{_PART}*.json"))


def _latest(sensitivity: Sensitivity, curve: Curve) -> str:
    if not curve.points:
        return f"group {curve.label}"
    shown = ", ".join(f"{p.dropped / curve.units:.0%}: {sensitivity.loss(p):+.4f}" for p in curve.points)
    return f"group {curve.label} loses {shown}"


def setup_of(job: Job, measure: Measure, method: Method) -> Setup:
    """What a measurement of this job depends on. InputError where calibration pictures are missing."""
    return Setup(
        cfg=job.workspace.cfg.sha256,
        weights=job.weights_sha,
        data=measure.digest(),
        dialect=job.model.graph.dialect.name,
        letterbox=measure.pictures.fit == "letterbox",
        metric=measure.metric,
        images=len(measure.pictures),
        criterion=method.criterion,
        compensation=method.compensation,
        calibrate=method.calibrate,
        calibration=digest_of(method.paths(job)),
    )


def resumable(file: Path, setup: Setup, job: Job) -> Sensitivity:
    """The measurements in a file. InputError if they were made with anything else than `setup` or of other groups."""
    known = Sensitivity.load(file)
    for key, expected in vars(setup).items():
        found = getattr(known.setup, key)
        if found != expected:
            raise InputError(f"was made with {key} {found}, expected {expected}; ana --force measures anew", file=file)
    known.check_groups(job.channels, job.keep, file)
    return known
