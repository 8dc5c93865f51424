"""Steps that look and change nothing: accuracy, a cfg's layers, and what an analysis says can be won."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

from yoloprune.choices import NOTHING, REFERENCE_LOSS
from yoloprune.darknet.data import read_data
from yoloprune.darknet.dialect import dialect_named
from yoloprune.darknet.layers.base import Layer, Shape
from yoloprune.darknet.model import Graph, load, load_graph
from yoloprune.darknet.network import build
from yoloprune.darknet.weights import Header
from yoloprune.detect.evaluate import Points
from yoloprune.detect.measure import load_measure, network_for_measuring
from yoloprune.detect.overlap import NmsKind
from yoloprune.errors import InputError
from yoloprune.progress import OnProgress, Progress, silent
from yoloprune.prune.cost import Costs, flops
from yoloprune.prune.plan import prunable_count
from yoloprune.prune.sensitivity import Sensitivity, grid_counts
from yoloprune.steps.job import Job, check_readable, expect_one_of, find_data, job_of
from yoloprune.steps.method import Method
from yoloprune.workspace import DEFAULT, Input, Settings, Workspace

_MOST_LOST: Final = 0.1
"""Loss at which `frontier` ends."""
_TYPICAL: Final = 4
"""Measurements of a group without a grid."""


@dataclass(frozen=True)
class Stat:
    """A cfg's layers and sizes."""

    graph: Graph
    bytes: int
    """Of the .weights file."""

    def as_dict(self) -> dict[str, Any]:
        """As reports show it."""
        totals = {"bflops": self.graph.bflops, "parameters": self.graph.parameters, "bytes": self.bytes}
        return {**totals, "layers": [_layer_dict(layer) for layer in self.graph.layers]}


@dataclass(frozen=True)
class Forecast:
    """What an analysis would do."""

    groups: int
    points: int
    """Measurements; without a grid about as many as are usual."""
    images: int
    """Pictures of each."""
    seconds: float
    """An estimate, from one measurement: refitting comes on top."""


def stat(cfg: Path, weights: Path | None = None, *, dialect: str = "alexeyab") -> Stat:
    """A cfg's layers; weights, if given, are checked to be of this cfg."""
    if weights is None:
        graph = load_graph(cfg, dialect_named(dialect))
        return Stat(graph, Header().size + 4 * graph.parameters)
    model = load(cfg, weights, dialect_named(dialect))
    return Stat(model.graph, model.weights.header.size + 4 * model.graph.parameters)


def accuracy(
    cfg: Path,
    weights: Path,
    data: Path | None = None,
    *,
    dialect: str = "alexeyab",
    letterbox: bool | None = None,
    metric: str | None = None,
    images: int | None = None,
    points: int | None = None,
    nms: str | None = None,
    device: str = "cpu",
    progress: OnProgress = silent,
) -> Mapping[str, Any]:
    """A network's accuracy on the valid list, as `Measure.summary` gives it.

    points: of the precision-recall curve, 0 for the area under it (the default). nms: a kind of `NmsKind`, else the
    cfg's. Both are for detectors.
    """
    model = load(cfg, weights, dialect_named(dialect))
    if not model.graph.detection_heads and (points is not None or nms is not None):
        raise InputError("--points and --nms are for detectors, and this network is none", file=cfg)
    expect_one_of("--points", points, get_args(Points))
    expect_one_of("--nms", nms, get_args(NmsKind))
    options: Any = {"points": points or 0, "nms_kind": nms}
    file = read_data(find_data(cfg, data))
    measure = load_measure(
        model.graph, file, metric=metric, letterbox=letterbox, limit=images, device=device, **options
    )
    check_readable(measure.pictures.paths, model.graph, progress)
    found: list[Any] = []
    for batch in measure.run(network_for_measuring(model, device)):
        found += batch
        progress(Progress("map", len(found), len(measure.pictures)))
    return measure.summary(found)


def forecast(
    cfg: Path,
    weights: Path,
    data: Path | None = None,
    *,
    workspace: Path = DEFAULT,
    settings: Settings,
    sparsities: Sequence[float] | None = None,
    device: str = "cpu",
) -> Forecast:
    """What `ana` would measure from the start, and how long one measurement takes; nothing is written."""
    found = find_data(cfg, data)
    job = job_of(Workspace(workspace, Input.of(cfg), Input.of(weights), Input.of(found), settings))
    measure = job.measure(device)
    network = build(job.model, device)
    started = time.monotonic()
    measure.accuracy(network)
    once = time.monotonic() - started
    plain = Method.of(None, 0, NOTHING)
    curves = plain.pruner(job).first_curves(plain.criterion)  # any criterion: same counts
    points = sum(len(grid_counts(curve, sparsities)) if sparsities else _TYPICAL for curve in curves)
    return Forecast(len(curves), points, len(measure.pictures), once * points)


def gains(job: Job, sensitivity: Sensitivity, loss: float = REFERENCE_LOSS) -> dict[str, float]:
    """For each group, the share of the original's BFLOPs that goes if it alone is cut as far as it bears `loss`."""
    costs = _bflops(job)
    now = costs.total(job.keep)
    cuts = {
        curve.label: curve.keep(job.channels, job.keep, prunable_count(sensitivity, curve, loss))
        for curve in sensitivity.curves
    }
    return {label: (now - costs.total(keep)) / costs.whole for label, keep in cuts.items()}


def frontier(job: Job, sensitivity: Sensitivity) -> list[tuple[float, float]]:
    """For losses that each group alone may have, the share of the original's BFLOPs that is gone then."""
    costs = _bflops(job)
    now = sensitivity.baseline - sensitivity.start
    losses = sorted({now, *(sensitivity.loss(point) for curve in sensitivity.curves for point in curve.points)})
    result = []
    for loss in [loss for loss in losses if now <= loss <= _MOST_LOST]:
        keep = job.keep
        for curve in sensitivity.curves:
            keep = curve.keep(job.channels, keep, sensitivity.prunable_within(curve, loss))
        result.append((loss, 1 - costs.total(keep) / costs.whole))
    return result


def _bflops(job: Job) -> Costs:
    graph = job.model.graph
    return Costs(graph, job.channels, flops(graph))


def _layer_dict(layer: Layer) -> dict[str, Any]:
    parts = layer.described()
    return {
        "index": layer.index,
        "type": layer.name,
        "filters": parts.get("filters"),
        "size": parts.get("size"),
        "stride": parts.get("stride"),
        "from": list(layer.sources),
        "input": _whc(layer.source_shapes[0]),
        "output": _whc(layer.out),
        "bflops": layer.flops / 1e9,
        "parameters": sum(spec.size for spec in layer.tensors()),
    }


def _whc(shape: Shape) -> list[int]:
    return [shape.w, shape.h, shape.c]
