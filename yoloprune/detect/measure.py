"""A network's accuracy on a set of pictures: the loop over batches, from files to one figure."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from yoloprune.darknet.data import ClassSplit, DataFile, Split, Which, load_classes, load_split
from yoloprune.darknet.layers.candidates import Candidates
from yoloprune.darknet.model import Graph, Model
from yoloprune.darknet.network import Network, build
from yoloprune.detect.boxes import Correction, Detections, letterbox_correction, postprocess
from yoloprune.detect.classify import ClassOutcome, evaluate_classes, hits
from yoloprune.detect.evaluate import (
    DISPLAY_THRESH,
    MAP_THRESH,
    DetectionOutcome,
    MapResult,
    Points,
    summarize,
)
from yoloprune.detect.image import Fit
from yoloprune.detect.match import claims, match, objects_of
from yoloprune.detect.outcome import Outcome
from yoloprune.detect.overlap import NMS_THRESH
from yoloprune.detect.pictures import Batch, Pictures
from yoloprune.errors import InputError

SUPPRESSED: Final = 32
SUPPRESSED_ELSEWHERE: Final = 256
"""Pictures whose boxes are suppressed together, on a CPU and on other devices: they share what starting each operation
takes."""
CROWD: Final = 1 << 12
"""Boxes of each of these, on average, at the most, but for those of one batch: ruined networks find that many."""
DETECTION_METRICS: Final = ("map50", "map75", "map50-95")
CLASS_METRICS: Final = ("top1", "top5")


class Measure(ABC):
    """What a network is measured by."""

    metric: str
    labels: bool = True
    """Whether the truth is people's; else it is what another network finds."""

    @property
    def steering(self) -> str:
        """What the figure is called that steers pruning."""
        return steering_key(self.metric, self.labels)

    @property
    @abstractmethod
    def pictures(self) -> Pictures:
        """What is looked at."""

    @abstractmethod
    def look(self, outputs: Iterable[tuple[Batch, Mapping[int, Tensor]]]) -> Iterator[list[Any]]:
        """What the network's outputs, batch by batch, say of each picture; of one batch or several at a time."""

    @abstractmethod
    def outcome(self, found: Sequence[Any]) -> Outcome:
        """What steers pruning, from what `look` said of all pictures."""

    @abstractmethod
    def summary(self, found: Sequence[Any]) -> Mapping[str, Any]:
        """All figures, as `map` reports them, from what `look` said of all pictures."""

    @abstractmethod
    def supervised_by(self, teacher: Network) -> Measure:
        """The same pictures, and as truth what `teacher` finds in them."""

    @abstractmethod
    def digest(self) -> str:
        """SHA-256 of what is measured on: the pictures' names, and people's truth.

        What a network finds differs in the last bit from machine to machine.
        """

    def run(self, network: Network) -> Iterator[list[Any]]:
        """What a network finds, some pictures at a time."""
        network = network.eval()
        with torch.inference_mode():
            yield from self.look((batch, network(batch.inputs)) for batch in self.pictures)

    def accuracy(self, network: Network) -> float:
        """The figure that steers pruning, of a network."""
        return self.outcome(self.found(network)).accuracy

    def found(self, network: Network) -> list[Any]:
        """What a network finds in each picture."""
        return [each for some in self.run(network) for each in some]


class DetectionMeasure(Measure):
    """Mean average precision by Darknet's rules."""

    def __init__(
        self,
        graph: Graph,
        split: Split,
        pictures: Pictures,
        metric: str = "map50",
        points: Points = 0,
        nms_kind: str | None = None,
    ) -> None:
        self.graph, self.split, self.metric, self.points, self.nms_kind = graph, split, metric, points, nms_kind
        self._pictures = pictures

    @property
    def pictures(self) -> Pictures:
        return self._pictures

    def look(self, outputs: Iterable[tuple[Batch, Mapping[int, Tensor]]]) -> Iterator[list[Any]]:
        parts: list[Candidates] = []
        batches: list[Batch] = []
        images = 0
        together = SUPPRESSED if self.pictures.device.type == "cpu" else SUPPRESSED_ELSEWHERE
        for batch, output in outputs:
            part = decoded(self.graph, output, MAP_THRESH)
            parts.append(replace(part, image=part.image + images))
            batches.append(batch)
            images += len(batch.sizes)
            crowded = sum(len(part.probs) for part in parts) > CROWD * together
            if crowded or images >= min(together, self.pictures.part):
                yield self._claims(parts, batches)
                parts, batches, images = [], [], 0
        if batches:
            yield self._claims(parts, batches)

    def outcome(self, found: Sequence[Any]) -> DetectionOutcome:
        metric: Any = self.metric
        return DetectionOutcome(match(found, self._objects), metric, self.points)

    def summary(self, found: Sequence[Any]) -> Mapping[str, Any]:
        return _as_dict(summarize(match(found, self._objects), self.points), self.split.names, self.metric)

    def digest(self) -> str:
        truths = (*self.split.truths, *self.split.difficult) if self.labels else ()
        return digest_of(self.split.images, (truth.tobytes() for truth in truths))

    def supervised_by(self, teacher: Network) -> Measure:
        sure = [each.detections.over(DISPLAY_THRESH) for each in self.found(teacher)]
        truths = tuple(np.column_stack([each.classes, each.boxes]).astype(np.float32) for each in sure)
        if not any(len(truth) for truth in truths):
            raise InputError(f"--no-labels: the network finds nothing over {DISPLAY_THRESH} in {len(truths)} pictures")
        split = replace(self.split, truths=truths)
        measure = DetectionMeasure(self.graph, split, self.pictures, self.metric, self.points, self.nms_kind)
        measure.labels = False
        return measure

    def _claims(self, parts: Sequence[Candidates], batches: Sequence[Batch]) -> list[Any]:
        """What is left of all that the heads propose for some batches, and which objects it is of."""
        letterboxed = self.pictures.fit == "letterbox"
        sizes = [size for batch in batches for size in batch.sizes]
        found = suppressed(self.graph, Candidates.join(parts), sizes, letterboxed, nms_kind=self.nms_kind)
        numbers = [number for batch in batches for number in batch.numbers]
        truths, difficult = ([each[number] for number in numbers] for each in (self.split.truths, self.split.difficult))
        return claims(found, truths, self.graph.classes, difficult)

    @cached_property
    def _objects(self) -> np.typing.NDArray[np.int64]:
        return objects_of(self.split.truths, self.graph.classes)


class ClassMeasure(Measure):
    """Top-1 and top-5 by Darknet's rules."""

    def __init__(self, graph: Graph, split: ClassSplit, pictures: Pictures, metric: str = "top1") -> None:
        self.graph, self.split, self.metric = graph, split, metric
        self._pictures = pictures

    @property
    def pictures(self) -> Pictures:
        return self._pictures

    def look(self, outputs: Iterable[tuple[Batch, Mapping[int, Tensor]]]) -> Iterator[list[Any]]:
        head = self.graph.layers[self.graph.outputs[-1]]
        for _, output in outputs:
            yield list(head.scores(output[head.index]).cpu().numpy())

    def outcome(self, found: Sequence[Any]) -> ClassOutcome:
        k = 1 if self.metric == "top1" else 5
        return ClassOutcome(hits(np.stack(found), self._truths, k))

    def summary(self, found: Sequence[Any]) -> Mapping[str, Any]:
        result = evaluate_classes([(np.stack(found), self._truths)])
        return {"top1": result.top1, "top5": result.top5, "metric": self.metric, "images": result.images}

    def digest(self) -> str:
        classes = self.split.classes if self.labels else ()
        return digest_of(self.split.images, (str(number).encode() for number in classes))

    def supervised_by(self, teacher: Network) -> Measure:
        best = tuple(int(np.argmax(scores)) for scores in self.found(teacher))
        measure = ClassMeasure(self.graph, replace(self.split, classes=best), self.pictures, self.metric)
        measure.labels = False
        return measure

    @property
    def _truths(self) -> np.typing.NDArray[np.int64]:
        return np.array(self.split.classes, np.int64)


def decoded(graph: Graph, output: Mapping[int, Tensor], thresh: float) -> Candidates:
    """What all heads propose for a batch, more probable than `thresh`."""
    return Candidates.join([head.decode(output[head.index], thresh) for head in graph.detection_heads])


def suppressed(
    graph: Graph,
    candidates: Candidates,
    sizes: Sequence[tuple[int, int]],
    letterboxed: bool,
    *,
    nms_kind: str | None = None,
    nms_thresh: float = NMS_THRESH,
) -> list[Detections]:
    """What is left after non-maximum suppression in each picture, of width and height `sizes`.

    NMS is the kind of the last head, as in AlexeyAB's Darknet.
    """
    last = graph.detection_heads[-1]
    correction: list[Correction] | None = None
    if letterboxed:
        network = (graph.net.input.w, graph.net.input.h)
        correction = [letterbox_correction(size, network) for size in sizes]
    kind: Any = nms_kind or last.nms_kind
    return postprocess(
        candidates,
        len(sizes),
        nms_kind=kind,
        nms_thresh=nms_thresh,
        beta=last.beta_nms,
        correction=correction,
    )


def network_for_measuring(model: Model, device: str | torch.device = "cpu") -> Network:
    """A network laid out in memory as `Pictures` gives its input."""
    network = build(model, device)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's types lack it
    return network


def default_metric(graph: Graph) -> str:
    """`map50` for detectors, `top1` for classifiers."""
    return "map50" if graph.detection_heads else "top1"


def steering_key(metric: str, labels: bool = True) -> str:
    """What the steering figure is called in reports: over the classes that are present."""
    if not labels:
        return f"{metric}_agreement"
    return metric if metric in CLASS_METRICS else f"{metric}_present"


def fit_for(graph: Graph, letterbox: bool | None) -> Fit:
    """How pictures are brought to the network's size: what the user says, else the cfg, else the dialect."""
    if not graph.detection_heads:
        if letterbox is not None:
            raise InputError("--letterbox and --stretch are for detectors, and this network is none")
        return "short_side" if graph.dialect.extended else "centre_square"
    if letterbox is None:
        letterbox = graph.dialect.letterbox if graph.net.letter_box is None else graph.net.letter_box
    return "letterbox" if letterbox else "stretch"


def load_measure(
    graph: Graph,
    data: DataFile,
    *,
    which: Which = "valid",
    metric: str | None = None,
    letterbox: bool | None = None,
    limit: int | None = None,
    device: str | torch.device = "cpu",
    points: Points = 0,
    nms_kind: str | None = None,
    teacher: Network | None = None,
) -> Measure:
    """Pictures and truth of a .data file, ready to measure networks of this graph's shape.

    teacher: what this network finds is the truth, by its display threshold or most probable class; no labels are read.
    InputError for what is wrong with the data, and for a metric that the network does not have.
    """
    metric = metric or default_metric(graph)
    known = DETECTION_METRICS if graph.detection_heads else CLASS_METRICS
    if metric not in known:
        raise InputError(f"--metric: expected one of {', '.join(known)} for this network, found {metric!r}")
    fit = fit_for(graph, letterbox)
    labelled = teacher is None
    if graph.detection_heads or not labelled:
        split = load_split(data, which, graph.dialect, classes=graph.classes, limit=limit, labels=labelled)
        pictures = Pictures(split.images, graph, fit, device)
    if graph.detection_heads:
        measure: Measure = DetectionMeasure(graph, split, pictures, metric, points, nms_kind)
    elif labelled:
        classes = load_classes(data, which, classes=graph.classes, limit=limit)
        measure = ClassMeasure(graph, classes, Pictures(classes.images, graph, fit, device), metric)
    else:
        nothing = ClassSplit(split.names, split.images, (-1,) * len(split.images))
        measure = ClassMeasure(graph, nothing, pictures, metric)
    return measure if teacher is None else measure.supervised_by(teacher)


def _as_dict(result: MapResult, names: Sequence[str], metric: str) -> dict[str, Any]:
    return {
        "map50": result.map50,
        "map50_present": result.map50_present,
        "map75": result.map75,
        "map75_present": result.map75_present,
        "map50-95": result.map50_95,
        "map50-95_present": result.map50_95_present,
        "metric": metric,
        "images": result.images,
        "precision": result.precision,
        "recall": result.recall,
        "f1": result.f1,
        "average_iou": result.average_iou,
        "ap": _by_name(names, result.ap),
    }


def _by_name(names: Sequence[str], values: Sequence[float | None]) -> dict[str, float | None]:
    """Values of classes; a name that comes again, which Darknet doesn't mind, has the class's number behind it."""
    found: dict[str, float | None] = {}
    for number, (name, value) in enumerate(zip(names, values, strict=True)):
        key = name
        while key in found:
            key = f"{key} ({number})"
        found[key] = value
    return found


def digest_of(images: Sequence[Path], truths: Iterable[bytes] = ()) -> str:
    """SHA-256 of pictures' file names and of what is true of them."""
    hashed = hashlib.sha256()
    for image in images:
        hashed.update(image.name.encode("utf-8", "surrogateescape") + b"\0")
    for truth in truths:
        hashed.update(truth + b"\0")
    return hashed.hexdigest()
