"""From a .data file to a measure: pictures, truth, and how pictures are brought to the network's size."""

from __future__ import annotations

import torch

from yoloprune.darknet.data import ClassSplit, DataFile, Split, Which, load_classes, load_split
from yoloprune.darknet.model import Graph
from yoloprune.darknet.network import Network
from yoloprune.detect import classify, evaluate
from yoloprune.detect.class_measure import ClassMeasure
from yoloprune.detect.detection_measure import DetectionMeasure
from yoloprune.detect.evaluate import Points
from yoloprune.detect.measure import Measure
from yoloprune.detect.pictures import Pictures
from yoloprune.detect.resize import Fit
from yoloprune.errors import InputError


def default_metric(graph: Graph) -> str:
    """`map50` for detectors, `top1` for classifiers."""
    return _metrics(graph)[0]


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

    InputError for what is wrong with the data, and for a metric that the network does not have.

    Parameters
    ----------
    graph, data
        What is measured, and on what.
    which
        The list.
    metric
        One of the `METRICS` of evaluate.py or classify.py; by default their first.
    letterbox
        See `fit_for`.
    limit
        Only the first so many pictures.
    device
        Where networks are measured.
    points, nms_kind
        Of `DetectionMeasure`.
    teacher
        What this network finds is the truth, by its display threshold or most probable class; no labels are read.
    """
    metric = metric or default_metric(graph)
    if metric not in _metrics(graph):
        expected = ", ".join(_metrics(graph))
        raise InputError(f"--metric: expected one of {expected} for this network, found {metric!r}")
    split = load_images(data, which, graph, limit=limit, labels=teacher is None)
    pictures = Pictures(split.images, graph, fit_for(graph, letterbox), device)
    measure: Measure
    if isinstance(split, ClassSplit):
        measure = ClassMeasure(graph, split, pictures, metric)
    else:
        measure = DetectionMeasure(graph, split, pictures, metric, points, nms_kind)
    return measure if teacher is None else measure.supervised_by(teacher)


def load_images(
    data: DataFile, which: Which, graph: Graph, *, limit: int | None = None, labels: bool = True
) -> Split | ClassSplit:
    """A list as the network learns from it or is measured on it; without labels only its pictures, of class -1."""
    if labels and not graph.detection_heads:
        return load_classes(data, which, classes=graph.classes, limit=limit)
    split = load_split(data, which, graph.dialect, classes=graph.classes, limit=limit, labels=labels)
    return split if graph.detection_heads else ClassSplit(split.names, split.images, (-1,) * len(split.images))


def _metrics(graph: Graph) -> tuple[str, ...]:
    return tuple(evaluate.METRICS if graph.detection_heads else classify.METRICS)
