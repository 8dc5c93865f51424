"""The process in which onnxruntime runs `.onnx` files; see `onnxruntime`, which starts it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime as ort

from yoloprune.readers.base import Floats
from yoloprune.readers.process import (
    LAYER_ROUNDS,
    Answer,
    Arrays,
    RefusalError,
    in_turns,
    processor_seconds,
    serve,
)

_ERRORS_ONLY = 3


class Network:
    """One loaded network, on one thread."""

    def __init__(self, file: str) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = _ERRORS_ONLY
        try:
            self._session = ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # of onnxruntime's own kinds, which have no base of theirs
            raise RefusalError(" ".join(str(error).split())[:300]) from error
        self._input = self._session.get_inputs()[0]
        self.names = [output.name for output in self._session.get_outputs()]

    def run(self, image: Floats) -> list[Floats]:
        """What it gives for an image [C, H, W], each of one image."""
        shape = [1, *image.shape]
        if shape != self._input.shape:
            raise RefusalError(f"input {shape}, the net takes {self._input.shape}")
        try:
            return list(self._session.run(None, {self._input.name: image[None]}))
        except Exception as error:
            raise RefusalError(" ".join(str(error).split())[:300]) from error

    def timed(self, image: Floats) -> Callable[[], float]:
        """What runs the network and says how many seconds of the processor that took."""
        return processor_seconds(lambda: self.run(image))

    def random_image(self) -> Floats:
        """Of the size that it takes."""
        image: Floats = np.random.default_rng(0).random(self._input.shape[1:], np.float32)
        return image


def answer(job: dict[str, Any], arrays: Arrays) -> Answer:
    """Do one job: load, outputs, race or layer_seconds."""
    networks = [Network(file) for file in job["files"]]
    match job["do"]:
        case "load":
            return Answer()
        case "outputs":
            (network,) = networks
            images = [network.run(image) for image in arrays["inputs"]]
            joined = (np.concatenate(parts) for parts in zip(*images, strict=True))
            return Answer(network.names, {str(number): array for number, array in enumerate(joined)})
        case "race":
            return Answer(in_turns([network.timed(arrays["inputs"][0]) for network in networks], job["rounds"]))
        case "layer_seconds":
            runs = [network.timed(network.random_image()) for network in networks]
            return Answer([min(each) for each in in_turns(runs, LAYER_ROUNDS)])
        case unknown:
            raise ValueError(unknown)


if __name__ == "__main__":
    serve(answer)
