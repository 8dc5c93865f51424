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
from yoloprune.readers.board import (
    LAYER_ROUNDS,
    OPENCV_ACTIVATIONS,
    in_turns,
    opencv_is_of,
    opencv_run,
    opencv_section_run,
)
from yoloprune.readers.process import Answer, Arrays, RefusalError, race, serve

Bytes = NDArray[np.uint8]


def answer(job: dict[str, Any], arrays: Arrays) -> Answer:
    """Do one job: load, head_inputs, head_outputs, race or layer_seconds."""
    try:
        match job["do"]:
            case "race":
                return race(job, arrays, _ready)
            case "layer_seconds":
                runs = [opencv_section_run(*each) for each in zip(job["cfgs"], job["floats"], strict=True)]
                return Answer([min(each) for each in in_turns(runs, LAYER_ROUNDS)])
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


def _ready(cfg: str, weights: str, image: Floats, threads: int) -> Callable[[], object]:
    return opencv_run(_bytes(cfg).tobytes(), _bytes(weights).tobytes(), image[None], threads)


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
        if index == str(head) and kind not in OPENCV_ACTIVATIONS and at:
            return names[at - 1]
    if not any(opencv_is_of(name, head) for name in names):
        return names[-1]
    raise RefusalError(f"found no layer {head} in OpenCV's net")


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
