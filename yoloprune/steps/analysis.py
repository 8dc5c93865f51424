"""The analysis of a job's newest weights, for its next round: sensitivity curves, each group pruned alone."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import torch

from yoloprune.choices import REFIT
from yoloprune.detect.measure import digest_of, network_for_measuring
from yoloprune.errors import InputError
from yoloprune.options import AnalysisOptions, UnitOptions
from yoloprune.progress import OnProgress, Progress, silent
from yoloprune.prune.group_evaluator import GroupEvaluator
from yoloprune.prune.search import analyse
from yoloprune.prune.sensitivity import Curve, Sensitivity, Setup
from yoloprune.steps.inputs import check_readable
from yoloprune.steps.job import Job
from yoloprune.train.processes import Processes, process_group

_PART = "sensitivity.part-"
_METHOD: Final = (*vars(UnitOptions()), "criterion", "compensation", "calibrate")
"""Options that a curve is of use only for the same of."""
SAVE_EVERY: Final = 1.0
"""Seconds of work that a kill may cost."""


def analyse_job(
    job: Job,
    options: AnalysisOptions,
    *,
    also: Sequence[float] = (),
    device: str = "cpu",
    force: bool = False,
    progress: OnProgress = silent,
) -> tuple[Job, Sensitivity]:
    """The job, with the original measured, and its sensitivity curves. An analysis that is there is only added to.

    options: resolved. also: as `Sensitivity.asked_for` has it.
    """
    if options.tolerances and options.sparsities:
        raise InputError("expected --tolerances or --sparsities, found both")
    asked = (*(options.tolerances or ()), *(options.sparsities or ()))
    if not all(0 < each < 1 for each in asked):
        raise InputError(f"expected tolerances and sparsities between 0 and 1, found {asked}")
    with process_group(device) as place:
        job = replace(job.in_units(options.units), inputs=job.inputs.on(place))
        analysis = _Analysis(job, options, place, progress)
        analysis.begin(also, force=force)
        return analysis.job, analysis.run()


class _Analysis:
    """An analysis as it runs. Of several processes, k of N measures groups k, k+N ..."""

    def __init__(self, job: Job, options: AnalysisOptions, device: str, progress: OnProgress) -> None:
        self.job, self.options, self.device, self.progress = job, options, device, progress
        self.processes = Processes()
        self.measure = job.inputs.measure
        check_readable(self.measure.pictures.paths, job.model.graph, progress)
        self.file = job.workspace.sensitivity_file(job.next_round)
        self.setup = setup_of(job, options)
        self.pruner = job.pruner(options, device)

    @cached_property
    def unpruned(self) -> Any:
        """What the network predicts that is pruned here: the original in the first round."""
        if not self.job.workspace.rounds:
            return self.job.inputs.findings
        return self.measure.predictions(network_for_measuring(self.job.model, self.device))

    def begin(self, also: Sequence[float], *, force: bool) -> None:
        """Start the workspace and `sensitivity.json` where they are missing, and write down what is asked for."""
        known = None
        first = self.processes.rank == 0
        if first:
            self.job = self.job.measured_originally()
            known = None if force else self._known()
            self._announce()
        curves = self._first_curves() if self.processes.broadcast(first and known is None) else ()
        if first:
            if known is None:
                baseline = start = self.job.original.accuracy
                if self.job.workspace.rounds:
                    start = self.measure.outcome(self.unpruned).accuracy
                nothing_yet = replace(self.options, tolerances=(), sparsities=())
                known = Sensitivity(self.setup, nothing_yet, baseline, start, curves)
            known.asked_for(self.options, also).save(self.file)
            for part in self._parts():
                part.unlink()
        self.processes.barrier()

    def _announce(self) -> None:
        if self.options.calibrate:
            self.progress(Progress("ana", 0, 1, f"looking at {self.options.calibrate} calibration images"))
        if self.options.compensation == REFIT and (plain := self.job.units.not_compensated):
            layers = ", ".join(map(str, plain))
            self.progress(Progress("only masked", 0, 1, f"layers {layers}, too large to refit within memory"))

    def _first_curves(self) -> tuple[Curve, ...]:
        """Curves without points; the orders of groups k, k+N ... are this process's work."""
        groups = self.pruner.prunable
        mine = {
            number: self.pruner.order(str(self.options.criterion), groups[number])
            for number in range(self.processes.rank, len(groups), self.processes.count)
        }
        lengths = torch.zeros(len(groups), dtype=torch.int64)
        for number, order in mine.items():
            lengths[number] = len(order)
        lengths = self.processes.all_reduce(lengths.to(self.device)).cpu()
        found = torch.zeros(len(groups), int(lengths.max()) if len(groups) else 0, dtype=torch.int64)
        for number, order in mine.items():
            found[number, : len(order)] = torch.tensor(order)
        found = self.processes.all_reduce(found.to(self.device)).cpu()
        return tuple(
            self.pruner.curve(group, tuple(order[:length].tolist()))
            for group, order, length in zip(groups, found, lengths, strict=True)
        )

    def run(self) -> Sensitivity:
        """Measure what is missing, each process its groups."""
        whole = resumable(self.file, self.setup, self.options, self.job)
        processes = self.processes
        mine = replace(whole, curves=whole.curves[processes.rank :: processes.count])
        file = self.file if processes.count == 1 else self.file.with_name(f"{_PART}{processes.rank}.json")
        groups = len(mine.curves)
        self.progress(Progress("ana", 0, groups, f"{len(whole.curves)} groups, {len(self.measure.pictures)} pictures"))
        told = _Told(mine, file, self.progress)
        evaluator = GroupEvaluator(
            self.pruner, self.measure, lambda: self.unpruned, lambda: self.job.inputs.findings, self.options.seed
        )
        try:
            analyse(mine, evaluator, told)
        finally:
            told.latest.save(file)
        self.progress(Progress("ana", groups, groups))
        if processes.count == 1:
            return told.latest
        processes.barrier()
        if processes.rank == 0:
            merged = self._known()
            assert merged is not None
            merged.save(self.file)
            for part in self._parts():
                part.unlink()
        processes.barrier()
        return resumable(self.file, self.setup, self.options, self.job)

    def _known(self) -> Sensitivity | None:
        """What is in the file and in what several processes left beside it."""
        if not self.file.exists():
            return None
        known = resumable(self.file, self.setup, self.options, self.job)
        for part in self._parts():
            for curve in resumable(part, self.setup, self.options, self.job).curves:
                known = known.with_curve(curve)
        return known

    def _parts(self) -> list[Path]:
        return sorted(self.file.parent.glob(f"{_PART}*.json"))


class _Told:
    """Hears of every new measurement: saves now and then, and says how far the analysis is."""

    def __init__(self, sensitivity: Sensitivity, file: Path, progress: OnProgress) -> None:
        self.latest, self._file, self._progress = sensitivity, file, progress
        self._started = self._saved = time.monotonic()
        self._first: int | None = None  # group of this session: earlier ones took no time of it

    def __call__(self, so_far: Sensitivity, curve: Curve) -> None:
        self.latest = so_far
        if time.monotonic() - self._saved > SAVE_EVERY:
            so_far.save(self._file)
            self._saved = time.monotonic()
        groups, done = len(so_far.curves), [each.label for each in so_far.curves].index(curve.label)
        self._first = done if self._first is None else self._first
        left = (time.monotonic() - self._started) / (done - self._first + 0.5) * (groups - done - 0.5) / 60
        self._progress(Progress("ana", done, groups, f"about {left:.1f} min left, {_latest(so_far, curve)}"))


def _latest(sensitivity: Sensitivity, curve: Curve) -> str:
    if not curve.points:
        return f"group {curve.label}"
    shown = ", ".join(f"{p.dropped / curve.size:.0%}: {sensitivity.loss(p):+.4f}" for p in curve.points)
    return f"group {curve.label} loses {shown}"


def setup_of(job: Job, options: AnalysisOptions) -> Setup:
    """What a measurement of this job depends on. InputError where calibration images are missing."""
    measure = job.inputs.measure
    return Setup(
        cfg=job.workspace.cfg.sha256,
        weights=job.weights_sha,
        data=measure.digest(),
        dialect=job.model.graph.dialect.name,
        letterbox=measure.pictures.fit == "letterbox",
        metric=measure.metric,
        images=len(measure.pictures),
        calibration=digest_of(job.inputs.calibration_images(options.calibrate)),
    )


def resumable(file: Path, setup: Setup, options: AnalysisOptions, job: Job) -> Sensitivity:
    """The measurements in a file. InputError if they were made with anything else than these, or of other groups."""
    known = Sensitivity.load(file)
    wanted = {key: getattr(options, key) for key in _METHOD} | vars(setup)
    for key, expected in wanted.items():
        found = getattr(known.options if key in _METHOD else known.setup, key)
        if found != expected:
            raise InputError(f"was made with {key} {found}, expected {expected}; ana --force measures anew", file=file)
    known.check_groups(job.units, file)
    return known
