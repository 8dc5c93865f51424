"""A network's accuracy on a set of pictures: the loop over batches, from files to one figure."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from yoloprune.darknet.data import ClassSplit, DataFile, Split, Which, load_classes, load_split
from yoloprune.darknet.layers.candidates import Candidates
from yoloprune.darknet.model import Graph, Model
from yoloprune.darknet.network import Network, build
from yoloprune.detect.boxes import NMS_THRESH, Correction, Detections, letterbox_correction, postprocess
from yoloprune.detect.classify import evaluate_classes
from yoloprune.detect.evaluate import MAP_THRESH, MapResult, Points, evaluate
from yoloprune.detect.image import Fit, load_batches
from yoloprune.errors import InputError

BATCH: Final = 8
"""Pictures at a time: on CPUs larger ones fall out of the cache and are slower a picture."""
MEMORY: Final = 2 << 30
"""Bytes of decoded input that are kept for the next measurement; beyond that pictures are decoded anew."""
DETECTION_METRICS: Final = ("map50", "map75", "map50-95")
CLASS_METRICS: Final = ("top1", "top5")


@dataclass(frozen=True)
class Batch:
    """Network input of some pictures."""

    inputs: Tensor
    """[B, C, H, W], 0..1."""
    sizes: Sequence[tuple[int, int]]
    """Width and height of each picture before it was resized."""


class Pictures:
    """Pictures as network input; decoded once where they fit in memory."""

    def __init__(
        self, paths: Sequence[Path], graph: Graph, fit: Fit, device: str | torch.device = "cpu", batch: int = BATCH
    ) -> None:
        self.paths = tuple(paths)
        self.fit = fit
        self._shape = graph.net.input
        self._device = device
        self._batch = batch
        self._kept: list[Batch] | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[Batch]:
        if self._kept is not None:
            yield from self._kept
            return
        keep = len(self) * self._shape.size * 4 <= MEMORY
        kept = []
        c, h, w = self._shape
        for inputs, sizes in load_batches(self.paths, w, h, c, self.fit, batch=self._batch):
            batch = Batch(inputs.to(self._device, memory_format=torch.channels_last), sizes)
            if keep:
                kept.append(batch)
            yield batch
        if keep:
            self._kept = kept


class Measure(ABC):
    """What a network is measured by."""

    metric: str

    @property
    @abstractmethod
    def pictures(self) -> Pictures:
        """What is looked at."""

    @abstractmethod
    def summary(self, outputs: Iterable[tuple[Batch, Mapping[int, Tensor]]]) -> Mapping[str, Any]:
        """All figures, as `map` reports them, from the network's outputs for each batch."""

    @abstractmethod
    def digest(self) -> str:
        """SHA-256 of what is measured on: the pictures' names and their truth."""

    def steering(self, summary: Mapping[str, Any]) -> float:
        """The figure that steers pruning, of a summary."""
        return float(summary[steering_key(self.metric)])

    def run(self, network: Network) -> Iterator[tuple[Batch, Mapping[int, Tensor]]]:
        """The network's outputs, batch by batch."""
        network = network.eval()
        with torch.inference_mode():
            for batch in self.pictures:
                yield batch, network(batch.inputs)

    def report(self, network: Network) -> Mapping[str, Any]:
        """All figures of a network."""
        return self.summary(self.run(network))

    def accuracy(self, network: Network) -> float:
        """The figure that steers pruning, of a network."""
        return self.steering(self.report(network))


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

    def summary(self, outputs: Iterable[tuple[Batch, Mapping[int, Tensor]]]) -> Mapping[str, Any]:
        found: list[Detections] = []
        for batch, output in outputs:
            found += detections(
                self.graph, output, batch, self.pictures.fit == "letterbox", MAP_THRESH, nms_kind=self.nms_kind
            )
        result = evaluate(
            found, self.split.truths, self.graph.classes, difficult=self.split.difficult, points=self.points
        )
        return _as_dict(result, self.split.names, self.metric)

    def digest(self) -> str:
        truths = (truth.tobytes() for truth in (*self.split.truths, *self.split.difficult))
        return _digest(self.split.images, truths)


class ClassMeasure(Measure):
    """Top-1 and top-5 by Darknet's rules."""

    def __init__(self, graph: Graph, split: ClassSplit, pictures: Pictures, metric: str = "top1") -> None:
        self.graph, self.split, self.metric = graph, split, metric
        self._pictures = pictures

    @property
    def pictures(self) -> Pictures:
        return self._pictures

    def summary(self, outputs: Iterable[tuple[Batch, Mapping[int, Tensor]]]) -> Mapping[str, Any]:
        head = self.graph.outputs[-1]
        layer = self.graph.layers[head]
        scores = np.concatenate([layer.scores(output[head]).cpu().numpy() for _, output in outputs])
        result = evaluate_classes([(scores, np.array(self.split.classes, np.int64))])
        return {"top1": result.top1, "top5": result.top5, "metric": self.metric, "images": result.images}

    def digest(self) -> str:
        return _digest(self.split.images, (str(number).encode() for number in self.split.classes))


def detections(
    graph: Graph,
    output: Mapping[int, Tensor],
    batch: Batch,
    letterboxed: bool,
    thresh: float,
    *,
    nms_kind: str | None = None,
    nms_thresh: float = NMS_THRESH,
) -> list[Detections]:
    """What the heads found in each picture of a batch. NMS is the kind of the last head, as in AlexeyAB's Darknet."""
    heads = graph.detection_heads
    candidates = Candidates.join([head.decode(output[head.index], thresh) for head in heads])
    correction: list[Correction] | None = None
    if letterboxed:
        network = (graph.net.input.w, graph.net.input.h)
        correction = [letterbox_correction(size, network) for size in batch.sizes]
    kind: Any = nms_kind or heads[-1].nms_kind
    return postprocess(
        candidates,
        len(batch.sizes),
        nms_kind=kind,
        nms_thresh=nms_thresh,
        beta=heads[-1].beta_nms,
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


def steering_key(metric: str) -> str:
    """The key of the steering figure in a summary: over the classes that are present."""
    return metric if metric in CLASS_METRICS else f"{metric}_present"


def fit_for(graph: Graph, letterbox: bool | None) -> Fit:
    """How pictures are brought to the network's size: what the user says, else the cfg, else the dialect."""
    if not graph.detection_heads:
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
) -> Measure:
    """Pictures and truth of a .data file, ready to measure networks of this graph's shape.

    InputError for what is wrong with the data, and for a metric that the network does not have.
    """
    metric = metric or default_metric(graph)
    known = DETECTION_METRICS if graph.detection_heads else CLASS_METRICS
    if metric not in known:
        raise InputError(f"--metric: expected one of {', '.join(known)} for this network, found {metric!r}")
    fit = fit_for(graph, letterbox)
    if graph.detection_heads:
        split = load_split(data, which, graph.dialect, classes=graph.classes, limit=limit)
        pictures = Pictures(split.images, graph, fit, device)
        return DetectionMeasure(graph, split, pictures, metric, points, nms_kind)
    classes = load_classes(data, which, classes=graph.classes, limit=limit)
    return ClassMeasure(graph, classes, Pictures(classes.images, graph, fit, device), metric)


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
        "ap": dict(zip(names, result.ap, strict=True)),
    }


def _digest(images: Sequence[Path], truths: Iterable[bytes]) -> str:
    hashed = hashlib.sha256()
    for image in images:
        hashed.update(image.name.encode("utf-8", "surrogateescape") + b"\0")
    for truth in truths:
        hashed.update(truth + b"\0")
    return hashed.hexdigest()
