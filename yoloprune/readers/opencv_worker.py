"""The process in which OpenCV reads Darknet's files; see `opencv`, which starts it.

OpenCV names its layers type_index by the cfg's index, except activations, which carry the index after their layer's
(darknet_io.cpp). A [yolo] or [region] at i becomes permute_i (NCHW to NHWC), then yolo_i or detection_out.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from yoloprune.readers.base import Floats
from yoloprune.readers.process import (
    LAYER_ROUNDS,
    Answer,
    Arrays,
    RefusalError,
    in_turns,
    processor_seconds,
    serve,
    timing,
)

Bytes = NDArray[np.uint8]
_ACTIVATIONS = frozenset({"relu", "leaky", "swish", "mish", "logistic", "tanh"})


def answer(job: dict[str, Any], arrays: Arrays) -> Answer:
    """Do one job: load, head_inputs, head_outputs, seconds, race or layer_seconds."""
    try:
        match job["do"]:
            case "race" | "seconds":
                return timing(job, lambda cfg, weights: _timed(_bytes(cfg), _bytes(weights), arrays["inputs"]))
            case "layer_seconds":
                return Answer(_layer_seconds(job["cfgs"], job["floats"]))
        cfg, weights = _bytes(job["cfg"]), _bytes(job["weights"])
        match job["do"]:
            case "load":
                _check(cfg, weights)
                return Answer()
            case "head_inputs":
                return Answer(arrays=_head_inputs(cfg, weights, arrays["inputs"], job["heads"]))
            case "head_outputs":
                return Answer(arrays=_head_outputs(_uncut(cfg), weights, arrays["inputs"]))
            case unknown:
                raise ValueError(unknown)
    except cv2.error as error:
        raise RefusalError(_reason(error)) from error


def _check(cfg: Bytes, weights: Bytes) -> None:
    """Read the files and ask for the work, which goes through every layer's shapes; reading alone does not."""
    sides = dict.fromkeys((b"channels", b"height", b"width"), 0)
    for line in cfg.tobytes().splitlines():
        key, _, value = b"".join(line.split()).partition(b"=")
        if key in sides and value.isdigit():
            sides[key] = int(value)
    cv2.dnn.readNetFromDarknet(cfg, weights).getFLOPS([1, *sides.values()])


def _head_inputs(cfg: Bytes, weights: Bytes, inputs: Floats, heads: list[int]) -> dict[str, Floats]:
    net = cv2.dnn.readNetFromDarknet(cfg, weights)
    names = list(net.getLayerNames())
    found = _run(net, inputs, [_entering(names, head) for head in heads])
    maps = (array[:, 0].reshape(len(inputs), array.shape[2], *(array.shape[3:] or (1, 1))) for array in found)
    return {str(head): array for head, array in zip(heads, maps, strict=True)}


def _head_outputs(cfg: Bytes, weights: Bytes, inputs: Floats) -> dict[str, Floats]:
    net = cv2.dnn.readNetFromDarknet(cfg, weights)
    names = list(net.getLayerNames())
    heads = [(int(name.removeprefix("permute_")), at) for at, name in enumerate(names) if name.startswith("permute_")]
    found = _run(net, inputs, [names[at + 1] for _, at in heads])
    rows = (array.reshape(len(inputs), -1, array.shape[-1]) for array in found)
    return {str(head): array for (head, _), array in zip(heads, rows, strict=True)}


def _timed(cfg: Bytes, weights: Bytes, inputs: Floats) -> Callable[[], float]:
    """What runs the network on one thread and says how many seconds of the processor that took."""
    cv2.setNumThreads(1)
    net = cv2.dnn.readNetFromDarknet(cfg, weights)
    last = net.getUnconnectedOutLayersNames()

    def run() -> None:
        net.setInput(inputs)
        net.forward(last)

    return processor_seconds(run)


def _layer_seconds(texts: list[str], floats: list[int]) -> list[float]:
    """Least time of each net's last section. What OpenCV fuses into the layer before it takes no time of its own."""
    cv2.setNumThreads(1)
    runs = [_timed_section(text, count) for text, count in zip(texts, floats, strict=True)]
    return [min(each) for each in in_turns(runs, LAYER_ROUNDS)]


def _timed_section(text: str, floats: int) -> Callable[[], float]:
    """What runs the net and says how many seconds its last section took, by OpenCV's clock: the map that is handed over
    is copied, which takes longer than small layers do, and is not in it.
    """
    rng = np.random.default_rng(0)
    header = np.array([0, 2, 5, 0, 0], np.int32)
    weights = np.frombuffer(header.tobytes() + rng.random(floats, np.float32).tobytes(), np.uint8)
    net = cv2.dnn.readNetFromDarknet(np.frombuffer(text.encode("utf-8", "surrogateescape"), np.uint8), weights)
    net.setInput(rng.random((1, *_input(text)), np.float32))
    names, last = net.getLayerNames(), net.getUnconnectedOutLayersNames()
    own = [_is_after(name, text.count("[") - 2) for name in names]

    def run() -> float:
        net.forward(last)
        return float(np.array(net.getPerfProfile()[1]).ravel()[own].sum()) / cv2.getTickFrequency()

    return run


def _input(text: str) -> list[int]:
    """channels, height, width of a cfg."""
    values = dict(line.split("=", 1) for line in reversed(text.splitlines()) if "=" in line)
    return [int(values[key]) for key in ("channels", "height", "width")]


def _run(net: cv2.dnn.Net, inputs: Floats, names: list[str]) -> list[Floats]:
    """Outputs of OpenCV's layers `names`, each image run alone: [B, *shape of the blob for one image]."""
    unique = list(dict.fromkeys(names))
    images = []
    for image in inputs:
        net.setInput(image[None])
        images.append({name: np.array(blob) for name, blob in zip(unique, net.forward(unique), strict=True)})
    return [np.stack([image[name] for image in images]) for name in names]


def _entering(names: list[str], head: int) -> str:
    """OpenCV's name for what enters the cfg's layer `head`: its layers stand in the cfg's order."""
    for at, name in enumerate(names):
        kind, _, index = name.rpartition("_")
        if index == str(head) and kind not in _ACTIVATIONS and at:
            return names[at - 1]
    if not any(_is_after(name, head) for name in names):
        return names[-1]
    raise RefusalError(f"found no layer {head} in OpenCV's net")


def _is_after(name: str, head: int) -> bool:
    kind, _, index = name.rpartition("_")
    return index.isdigit() and kind not in _ACTIVATIONS and int(index) >= head


def _uncut(cfg: Bytes) -> Bytes:
    """The cfg with thresh=0 as the last key of each head; of equal keys OpenCV takes the last."""
    out: list[bytes] = []
    in_head = False
    for line in [*cfg.tobytes().splitlines(), b"["]:
        section = b"".join(line.split())
        if section.startswith(b"["):
            if in_head:
                out.append(b"thresh=0")
            in_head = section in (b"[yolo]", b"[region]")
        out.append(line)
    return np.frombuffer(b"\n".join(out[:-1]) + b"\n", np.uint8)


def _bytes(file: str) -> Bytes:
    try:
        return np.fromfile(file, np.uint8)
    except OSError as error:
        raise RefusalError(f"{file}: {error.strerror}") from error


def _reason(error: cv2.error) -> str:
    """OpenCV's message on one line, without its version and source place."""
    text = " ".join(str(error).split())
    return re.sub(r"^OpenCV\([^)]*\) \S+ error: ", "", text)[:300]


if __name__ == "__main__":
    serve(answer)
