"""The process in which onnxruntime runs `.onnx` files; see `onnxruntime`, which starts it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime as ort

from yoloprune.readers.base import Floats
from yoloprune.readers.board import LAYER_ROUNDS, in_turns, processor_seconds
from yoloprune.readers.process import Answer, Arrays, RefusalError, race, serve

_ERRORS_ONLY = 3


class Network:
    """One loaded network."""

    def __init__(self, file: str, threads: int = 1) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
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

    def ready(self, image: Floats) -> Callable[[], object]:
        """What runs the network."""
        return lambda: self.run(image)

    def random_image(self) -> Floats:
        """Of the size that it takes."""
        image: Floats = np.random.default_rng(0).random(self._input.shape[1:], np.float32)
        return image


def answer(job: dict[str, Any], arrays: Arrays) -> Answer:
    """Do one job: load, outputs, race or layer_seconds."""
    if job["do"] == "race":
        return race(job, arrays, lambda file, _, image, threads: Network(file, threads).ready(image))
    networks = [Network(file) for file in job["files"]]
    match job["do"]:
        case "load":
            return Answer()
        case "outputs":
            (network,) = networks
            images = [network.run(image) for image in arrays["inputs"]]
            joined = (np.concatenate(parts) for parts in zip(*images, strict=True))
            return Answer(network.names, {str(number): array for number, array in enumerate(joined)})
        case "layer_seconds":
            runs = [processor_seconds(network.ready(network.random_image())) for network in networks]
            return Answer([min(each) for each in in_turns(runs, LAYER_ROUNDS)])
        case unknown:
            raise ValueError(unknown)


if __name__ == "__main__":
    serve(answer)
