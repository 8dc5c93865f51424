"""What pruning is to save: operations, floats, or time in the reader that will run the network."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Final

from yoloprune.choices import BITS, LATENCY, NONZERO, OBJECTIVES
from yoloprune.darknet import cfg as cfg_file
from yoloprune.darknet import weights as weights_file
from yoloprune.darknet.model import Graph
from yoloprune.errors import InputError
from yoloprune.options import PruneOptions
from yoloprune.progress import OnProgress, Progress
from yoloprune.prune.channel_units import ChannelUnits
from yoloprune.prune.cost import PRICES, Price, flops
from yoloprune.prune.latency import Latency, Timings, readers_in
from yoloprune.readers import READERS
from yoloprune.steps.job import Job

ONE_THREAD: Final = ", one thread"
"""Behind a reader's name in a file of timings."""


def check_objective(objective: str | None, reader: str | None, timings: str | None = None) -> None:
    """InputError for what there is not. timings: a file from elsewhere, whose reader needn't be one of ours."""
    if objective is not None and objective not in OBJECTIVES:
        raise InputError(f"--objective: expected one of {', '.join(OBJECTIVES)}, found {objective!r}")
    if reader is not None and reader not in READERS and timings is None:
        raise InputError(f"--reader: expected one of {', '.join(READERS)}, found {reader!r}")
    for option, value in (("--reader", reader), ("--timings", timings)):
        if value is not None and objective != LATENCY:
            raise InputError(f"{option} is for --objective {LATENCY}")


def price_for(job: Job, options: PruneOptions, progress: OnProgress) -> Price:
    """What the layers of the job's network cost by their channels; of other units, which are counted, it isn't asked.

    By objective, None for the usual one. For time, those layers are timed that were not yet in this workspace; where
    options name a file of timings, it has them all.
    """
    graph, objective = job.model.graph, options.objective
    if not isinstance(job.units, ChannelUnits):
        if objective not in (None, job.units.saves):
            raise InputError(f"--objective {objective}: expected --granularity channel, found {job.units.name}")
        return flops(graph)
    if objective in (NONZERO, BITS):
        expected = "weight, block or n:m" if objective == NONZERO else BITS
        raise InputError(f"--objective {objective}: expected --granularity {expected}, found {job.units.name}")
    if objective != LATENCY:
        return PRICES[objective or job.units.saves](graph)
    timings = _of_here(job, options.reader) if options.timings is None else _given(options.timings, options.reader)

    def told(done: int, total: int) -> None:
        progress(Progress("timing", done, total, "layers, one by one"))

    return cache(Latency(graph, job.units.channels, timings, told))


def _given(timings: str, reader: str | None) -> Timings:
    """Of a file from elsewhere: of the reader that is named, or of the only one there."""
    file = Path(timings)
    known = [name.removesuffix(ONE_THREAD) for name in readers_in(file)]
    if reader is None and len(known) != 1:
        raise InputError(f"expected --reader, one of {', '.join(known) or 'none'}, found none", file=file)
    return Timings(file, f"{reader or known[0]}{ONE_THREAD}", None)


def _of_here(job: Job, reader: str | None) -> Timings:
    """Of a reader on this machine, the first that runs the network where none is named."""
    name = reader or _first_that_runs(job)
    reason = _why_not(job, name)
    if reason is not None:
        raise InputError(f"--reader {name}: {reason}")

    def seconds(layers: Sequence[Graph]) -> Sequence[float]:
        texts = [cfg_file.dump(each.cfg).decode("utf-8", "surrogateescape") for each in layers]
        return READERS[name].layer_seconds(texts, [each.parameters for each in layers])

    return Timings(job.workspace.folder / "latency.json", f"{name}{ONE_THREAD}", seconds)


def _first_that_runs(job: Job) -> str:
    reasons = {name: _why_not(job, name) for name in READERS}
    for name, reason in reasons.items():
        if reason is None:
            return name
    listed = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
    raise InputError(f"--objective {LATENCY}: no reader runs this network ({listed})")


def _why_not(job: Job, name: str) -> str | None:
    """None if the reader is there and loads the network, else its reason."""
    reason = READERS[name].available()
    if reason is not None:
        return reason
    with tempfile.TemporaryDirectory(prefix="yoloprune-timing-") as folder:
        cfg, weights = Path(folder) / "net.cfg", Path(folder) / "net.weights"
        cfg_file.write(cfg, cfg_file.legal(job.model.graph.cfg))
        weights_file.write(weights, job.model.weights, job.model.graph.layers)
        return READERS[name].loads(cfg, weights)
