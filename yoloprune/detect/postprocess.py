"""From a network's outputs to detections: decoding, letterbox correction and non-maximum suppression as Darknet does.

(network.c: get_network_boxes; yolo_layer.c: correct_yolo_boxes.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from yoloprune.darknet.model import Graph
from yoloprune.darknet.predictions import Detections, join
from yoloprune.detect.overlap import Overlap
from yoloprune.detect.resize import Fit, letterbox_size
from yoloprune.detect.runs import argsort
from yoloprune.detect.suppress import suppress


class Correction(NamedTuple):
    """How a letterboxed picture lies in the network's input: fractions of the input's width and height."""

    x: float
    y: float
    width: float
    height: float


def letterbox_correction(image: tuple[int, int], network: tuple[int, int]) -> Correction:
    """Where a picture of (width, height) `image` lies in an input of (width, height) `network`. (correct_yolo_boxes.)

    The border is half the difference, not rounded as where the picture is pasted (`resize`): Darknet's own.
    """
    inner_width, inner_height = letterbox_size(*image, *network)
    return Correction(
        x=(network[0] - inner_width) / 2 / network[0],
        y=(network[1] - inner_height) / 2 / network[1],
        width=inner_width / network[0],
        height=inner_height / network[1],
    )


def decode(graph: Graph, outputs: Mapping[int, Tensor], thresh: float) -> Detections:
    """What all heads propose for a batch, more probable than `thresh`, head after head; no gradient goes back.

    outputs: by layer, as `Network` gives them.
    """
    return join(head.decode(outputs[head.index].detach(), thresh) for head in graph.detection_heads)


def detections(
    graph: Graph, found: Detections, sizes: Sequence[tuple[int, int]], fit: Fit, nms_kind: str | None = None
) -> Detections:
    """What is left of all that the heads found: `postprocess` as a network and its pictures ask for.

    The last head says when boxes overlap too much, as in AlexeyAB's Darknet, unless `nms_kind` does. found: of
    `decode`. sizes: width and height of each picture. fit: how they were brought to the network's size.
    """
    last, net = graph.detection_heads[-1], graph.net.input
    kind: Any = nms_kind or last.nms_kind
    correction = [letterbox_correction(size, (net.w, net.h)) for size in sizes] if fit == "letterbox" else None
    return postprocess(found, Overlap(kind, beta=last.beta_nms), correction)


def postprocess(found: Detections, overlap: Overlap, correction: Sequence[Correction] | None = None) -> Detections:
    """What non-maximum suppression leaves, on the CPU: in order of the images, of each the most probable first.

    Equal ones are in the heads' order. Suppressed on whatever device they are.

    correction: one an image for letterboxed pictures, None for stretched ones. Darknet corrects before it suppresses,
    and so do we: greedynms and diounms measure distances, which the correction changes.
    """
    if correction is not None:
        found = replace(found, boxes=_corrected(found, correction))
    found = found.rows(suppress(found, overlap))
    return found.rows(argsort(-found.probs, found.image)).cpu()


def _corrected(found: Detections, correction: Sequence[Correction]) -> Tensor:
    inner = torch.tensor(correction, dtype=torch.float64, device=found.image.device).index_select(0, found.image)
    corrected = found.boxes.double()
    corrected[:, :2] -= inner[:, :2]
    corrected /= inner[:, 2:].tile(2)
    return corrected.float()
