"""Steps that look and change nothing: accuracy, detections, a cfg's layers, and what an analysis says can be won."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

import torch

from yoloprune.choices import BEARABLE, NOTHING
from yoloprune.darknet.data import DataFile, load_names, read_data
from yoloprune.darknet.dialect import dialect_named
from yoloprune.darknet.layers.base import Layer, Shape
from yoloprune.darknet.model import Graph, load, load_graph
from yoloprune.darknet.network import build
from yoloprune.darknet.weights import Header
from yoloprune.detect.boxes import Detections
from yoloprune.detect.draw import draw
from yoloprune.detect.evaluate import Points
from yoloprune.detect.image import network_input, read_pixels, write_pixels
from yoloprune.detect.measure import decoded, fit_for, load_measure, network_for_measuring, suppressed
from yoloprune.detect.overlap import NmsKind
from yoloprune.errors import InputError
from yoloprune.prune.cost import Costs, flops
from yoloprune.prune.plan import bearable
from yoloprune.prune.sensitivity import Sensitivity, grid_counts
from yoloprune.steps.job import Job, Step, Watch, check_readable, data_candidates, find_data, job_of, unwatched
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
class Found:
    """What was found in a picture."""

    image: Path
    size: tuple[int, int]
    """Width and height in pixels."""
    detections: Detections
    picture: Path
    """The copy with boxes."""


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
    watch: Watch = unwatched,
) -> Mapping[str, Any]:
    """A network's accuracy on the valid list, as `Measure.summary` gives it.

    points: of the precision-recall curve, 0 for the area under it (the default). nms: a kind of `NmsKind`, else the
    cfg's. Both are for detectors.
    """
    model = load(cfg, weights, dialect_named(dialect))
    if not model.graph.detection_heads and (points is not None or nms is not None):
        raise InputError("--points and --nms are for detectors, and this network is none", file=cfg)
    _expect("--points", points, get_args(Points))
    _expect("--nms", nms, get_args(NmsKind))
    options: Any = {"points": points or 0, "nms_kind": nms}
    file = read_data(find_data(cfg, data))
    measure = load_measure(
        model.graph, file, metric=metric, letterbox=letterbox, limit=images, device=device, **options
    )
    check_readable(measure.pictures.paths, model.graph, watch)
    found: list[Any] = []
    for batch in measure.run(network_for_measuring(model, device)):
        found += batch
        watch(Step("map", len(found), len(measure.pictures)))
    return measure.summary(found)


def detect(
    cfg: Path,
    weights: Path,
    images: Sequence[Path],
    out: Path,
    *,
    data: Path | None = None,
    thresh: float | None = None,
    dialect: str = "alexeyab",
    letterbox: bool | None = None,
    nms: str | None = None,
    device: str = "cpu",
    force: bool = False,
    dry_run: bool = False,
    watch: Watch = unwatched,
) -> tuple[tuple[str, ...], list[Found]]:
    """Write a copy with boxes of each image to the folder `out`; the class names and what was found.

    All copies appear, or none does; none after a dry run. thresh: least probability, by default the dialect's. Names
    come from the .data file; where none is given, and none or several of this network's classes lie around, classes
    are called by their numbers.
    """
    model = load(cfg, weights, dialect_named(dialect))
    graph = model.graph
    if not graph.detection_heads:
        raise InputError("expected a detector, found a network without detection heads", file=cfg)
    _expect("--nms", nms, get_args(NmsKind))
    names = class_names(graph, cfg, data)
    pictures = _pictures(images, out, force=force)
    network, fit, (c, h, w) = build(model, device), fit_for(graph, letterbox), graph.net.input
    thresh = graph.dialect.display_thresh if thresh is None else thresh
    found: list[Found] = []
    with nullcontext() if dry_run else _appearing(out) as drafts, torch.inference_mode():
        for image, picture in zip(images, pictures, strict=True):
            pixels = read_pixels(image, c)
            inputs = torch.from_numpy(network_input(pixels, w, h, fit)).unsqueeze(0).to(device)
            size = (pixels.shape[1], pixels.shape[0])
            candidates = decoded(graph, network(inputs), thresh)
            (boxes,) = suppressed(graph, candidates, [size], fit == "letterbox", nms_kind=nms)
            found.append(Found(image, size, boxes, picture))
            if drafts is not None:
                canvas = pixels if c == 3 else read_pixels(image)
                write_pixels(drafts / picture.name, draw(canvas, boxes, names))
            watch(Step("detect", len(found), len(images)))
    return names, found


def class_names(graph: Graph, cfg: Path, data: Path | None) -> tuple[str, ...]:
    """Names of the classes: of the .data file that is given or the only one around for as many, else their numbers."""
    if data is not None:
        return load_names(read_data(data), graph.classes)
    fitting = [
        each for each in map(_understood, data_candidates(cfg)) if each and each.classes in (None, graph.classes)
    ]
    return load_names(fitting[0], graph.classes) if len(fitting) == 1 else tuple(map(str, range(graph.classes)))


def _understood(file: Path) -> DataFile | None:
    """None for what only has the name of a .data file, like perf.data."""
    try:
        return read_data(file)
    except InputError:
        return None


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
    curves = plain.cutter(job).first_curves(plain.criterion)  # any criterion: same counts
    points = sum(len(grid_counts(curve, sparsities)) if sparsities else _TYPICAL for curve in curves)
    return Forecast(len(curves), points, len(measure.pictures), once * points)


def gains(job: Job, sensitivity: Sensitivity, loss: float = BEARABLE) -> dict[str, float]:
    """For each group, the share of the original's BFLOPs that goes if it alone is cut as far as it bears `loss`."""
    costs = _bflops(job)
    now = costs.total(job.keep)
    cuts = {
        curve.label: curve.keep(job.channels, job.keep, bearable(sensitivity, curve, loss))
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
            keep = curve.keep(job.channels, keep, sensitivity.holds(curve, loss))
        result.append((loss, 1 - costs.total(keep) / costs.whole))
    return result


def _bflops(job: Job) -> Costs:
    graph = job.model.graph
    return Costs(graph, job.channels, flops(graph))


@contextmanager
def _appearing(out: Path) -> Iterator[Path]:
    """A temporary folder whose files move to the folder `out` when the block ends well; else nothing is left."""
    existed = out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot be made: {error.strerror}", file=out) from error
    try:
        with tempfile.TemporaryDirectory(prefix=".drafts-", dir=out) as drafts:
            yield Path(drafts)
            for file in sorted(Path(drafts).iterdir()):
                file.replace(out / file.name)
    finally:
        if not existed and not any(out.iterdir()):
            out.rmdir()


def _pictures(images: Sequence[Path], out: Path, *, force: bool) -> list[Path]:
    """Where the copies go. InputError if two are one file, if one is an input, or if one exists."""
    for image in images:
        if not image.is_file():
            raise InputError("no such picture", file=image)
    pictures = [out / image.name for image in images]
    inputs = {image.resolve() for image in images}
    for index, picture in enumerate(pictures):
        if picture in pictures[:index]:
            raise InputError(f"two pictures would be written as this one: {images[index]} has the name", file=picture)
        if picture.resolve() in inputs:
            raise InputError("is a picture to look at; -o names another folder", file=picture)
        if picture.exists() and not force:
            raise InputError("exists already; --force replaces it", file=picture)
    return pictures


def _expect(option: str, found: object, known: Sequence[object]) -> None:
    if found is not None and found not in known:
        raise InputError(f"{option}: expected one of {', '.join(map(str, known))}, found {found}")


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
