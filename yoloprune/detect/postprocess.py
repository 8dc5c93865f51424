"""From a network's outputs to detections: decoding, letterbox correction and non-maximum suppression as Darknet does.

(network.c: get_network_boxes; yolo_layer.c: correct_yolo_boxes.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from yoloprune.darknet.model import Graph
from yoloprune.darknet.predictions import Detections, join
from yoloprune.detect.overlap import Overlap
from yoloprune.detect.resize import Fit, letterbox_size
from yoloprune.detect.runs import argsort
from yoloprune.detect.suppress import suppress

Place = tuple[float, float, float, float]
"""Of a letterboxed picture: x, y, width, height as fractions of the network's input."""


def letterbox_place(image: tuple[int, int], network: tuple[int, int]) -> Place:
    """Where a picture of (width, height) `image` lies in an input of (width, height) `network`. (correct_yolo_boxes.)

    The border is half the difference, not rounded as where the picture is pasted (resize.py): Darknet's own.
    """
    inner = letterbox_size(*image, *network)
    x, y = ((whole - part) / 2 / whole for part, whole in zip(inner, network, strict=True))
    return x, y, inner[0] / network[0], inner[1] / network[1]


def decode(
    graph: Graph, outputs: Mapping[int, Tensor], thresh: float, sizes: Sequence[tuple[int, int]], fit: Fit
) -> Detections:
    """What all heads propose for a batch, more probable than `thresh`, head after head; no gradient goes back.

    outputs: by layer, as `Network` gives them. sizes: width and height of each picture. fit: how they were brought to
    the network's size. Boxes of letterboxed pictures are corrected before they are suppressed, as in Darknet: greedynms
    and diounms measure distances, which the correction changes.
    """
    found = join(head.decode(outputs[head.index].detach(), thresh) for head in graph.detection_heads)
    if fit != "letterbox":
        return found
    net = graph.net.input
    return corrected(found, [letterbox_place(size, (net.w, net.h)) for size in sizes])


def corrected(found: Detections, places: Sequence[Place]) -> Detections:
    """Boxes as fractions of their pictures, which lie at `places`, one an image. (correct_yolo_boxes.)"""
    inner = torch.tensor(places, dtype=torch.float64, device=found.image.device).index_select(0, found.image)
    boxes = found.boxes.double()
    boxes[:, :2] -= inner[:, :2]
    boxes /= inner[:, 2:].tile(2)
    return replace(found, boxes=boxes.float())


def overlap_of(graph: Graph, nms_kind: str | None = None) -> Overlap:
    """When a network's boxes overlap too much: as its last head says, as in AlexeyAB's Darknet, or `nms_kind`."""
    last = graph.detection_heads[-1]
    kind: Any = nms_kind or last.nms_kind
    return Overlap(kind, beta=last.beta_nms)


def postprocess(found: Detections, overlap: Overlap) -> Detections:
    """What non-maximum suppression leaves, on the CPU: in order of the images, of each the most probable first.

    Equal ones are in the heads' order. Suppressed on whatever device they are.
    """
    found = found.rows(suppress(found, overlap))
    return found.rows(argsort(-found.probs, found.image)).cpu()
