"""Many small networks through libdarknet in one process, since starting one for each takes most of the time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

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


def resave(files: Sequence[tuple[Path, Path | None, Path]]) -> None:
    """For each cfg, weights (None: Darknet's random start) and out: load_network, then save_weights."""
    nets = [[str(cfg), None if weights is None else str(weights), str(out)] for cfg, weights, out in files]
    call("tests.oracles.libdarknet_many", {"library": str(libdarknet.find()), "resave": nets})


def answer(job: dict[str, Any], arrays: Arrays) -> Answer:
    """Do all, in order."""
    for cfg, weights, out in job.get("resave", ()):
        network = Network(job["library"], cfg, weights)
        network.save(out)
        network.free()
    found = {}
    for number, (cfg, weights) in enumerate(job.get("nets", ())):
        images = []
        for image in arrays["inputs"]:
            network = Network(job["library"], cfg, weights)
            network.predict(image)
            images.append(network.outputs(None))
        for layer in images[0]:
            found[f"{number}/{layer}"] = np.stack([image[layer] for image in images])
    return Answer(arrays=found)


if __name__ == "__main__":
    serve(answer)
