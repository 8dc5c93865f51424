"""Many small networks through libdarknet in one process, since starting one for each takes most of the time."""

from __future__ import annotations

import ctypes
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.oracles.libdarknet_image import Detection
from yoloprune.readers import libdarknet
from yoloprune.readers.base import Floats
from yoloprune.readers.libdarknet_worker import Network
from yoloprune.readers.process import Answer, Arrays, call, serve


def outputs(nets: Sequence[tuple[Path, Path]], inputs: Floats) -> list[dict[int, Floats]]:
    """For each cfg and weights, the outputs that its layers keep, [B, C, H, W]; inputs [B, C, H, W] for all.

    Each image meets a network just loaded, so recurrent layers start afresh.
    """
    job = {"library": str(libdarknet.find()), "nets": [[str(cfg), str(weights)] for cfg, weights in nets]}
    answer = call("tests.oracles.libdarknet_many", job, {"inputs": inputs})
    found: list[dict[int, Floats]] = [{} for _ in nets]
    for name, array in answer.arrays.items():
        net, layer = name.split("/")
        found[int(net)][int(layer)] = array
    return found


def boxes(nets: Sequence[tuple[Path, Path, int]], inputs: Floats, side: tuple[int, int], thresh: float) -> list[Floats]:
    """For each cfg, weights and number of classes what get_network_boxes finds in a net of that width and height.

    Rows of image, x, y, w, h, objectness, probs. Boxes are fractions of the network's input; those of [detection] are
    in pixels.
    """
    job = {
        "library": str(libdarknet.find()),
        "boxes": [[str(cfg), str(weights), classes] for cfg, weights, classes in nets],
    }
    answer = call("tests.oracles.libdarknet_many", {**job, "side": side, "thresh": thresh}, {"inputs": inputs})
    return [answer.arrays[str(number)] for number in range(len(nets))]


def resave(files: Sequence[tuple[Path, Path, Path]]) -> None:
    """For each cfg, weights and out: load_network, then save_weights."""
    nets = [[str(cfg), str(weights), str(out)] for cfg, weights, out in files]
    call("tests.oracles.libdarknet_many", {"library": str(libdarknet.find()), "resave": nets})


def sizes(cfgs: Sequence[Path]) -> list[int]:
    """For each cfg the bytes that save_weights writes."""
    with tempfile.TemporaryDirectory() as folder:
        job = {"library": str(libdarknet.find()), "sizes": [str(cfg) for cfg in cfgs], "out": f"{folder}/weights"}
        return list(call("tests.oracles.libdarknet_many", job).value)


def answer(job: dict[str, Any], arrays: Arrays) -> Answer:
    """Do all, in order."""
    for cfg, weights, out in job.get("resave", ()):
        network = Network(job["library"], cfg, weights)
        network.save(out)
        network.free()
    counted = []
    for cfg in job.get("sizes", ()):
        network = Network(job["library"], cfg, None)
        network.save(job["out"])
        network.free()
        counted.append(Path(job["out"]).stat().st_size)
    found = {}
    for number, (cfg, weights, classes) in enumerate(job.get("boxes", ())):
        rows = []
        for image_number, image in enumerate(arrays["inputs"]):
            network = Network(job["library"], cfg, weights)
            network.predict(image)
            rows += [[image_number, *row] for row in _boxes(network, classes, *job["side"], job["thresh"])]
        found[str(number)] = np.array(rows, np.float32)
    for number, (cfg, weights) in enumerate(job.get("nets", ())):
        images = []
        for image in arrays["inputs"]:
            network = Network(job["library"], cfg, weights)
            network.predict(image)
            images.append(network.outputs(None))
        for layer in images[0]:
            found[f"{number}/{layer}"] = np.stack([image[layer] for image in images])
    return Answer(counted, found)


def _boxes(network: Network, classes: int, width: int, height: int, thresh: float) -> list[list[float]]:
    function = network._library.get_network_boxes
    function.restype = ctypes.POINTER(Detection)
    number = ctypes.c_int
    function.argtypes = [ctypes.c_void_p, number, number, ctypes.c_float, ctypes.c_float, ctypes.c_void_p, number]
    function.argtypes += [ctypes.POINTER(number)]
    count = number()
    found = function(network._net, width, height, thresh, 0.5, None, 1, ctypes.byref(count))
    return [
        [each.bbox.x, each.bbox.y, each.bbox.w, each.bbox.h, each.objectness, *each.prob[:classes]]
        for each in found[: count.value]
    ]


if __name__ == "__main__":
    serve(answer)
