"""The process in which ncnn runs what `ncnn_convert` makes of Darknet's files; see `ncnn`, which starts it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from yoloprune.readers.base import Floats
from yoloprune.readers.board import ncnn_loaded, ncnn_values, processor_seconds
from yoloprune.readers.ncnn_convert import Converted, convert
from yoloprune.readers.process import Answer, Arrays, RefusalError, last_section_seconds, race, serve


class Network:
    """One loaded network. exact: as converted, in float32 and without kernels that transform what they multiply; else
    to be timed.
    """

    def __init__(self, cfg: bytes, weights: bytes, *, exact: bool, threads: int = 1) -> None:
        self.converted: Converted = convert(cfg, weights, own_windows=exact)
        try:
            self._net = ncnn_loaded(self.converted.param, self.converted.model, threads, exact)
        except OSError as error:
            raise RefusalError(str(error)) from error

    def run(self, image: Floats, blobs: Sequence[str], *, light: bool = True) -> list[Floats]:
        """Values of blobs for an image [C, H, W]. light: what is read is let go, as ncnn does by itself."""
        if image.shape != self.converted.input:
            shapes = ("x".join(map(str, shape)) for shape in (image.shape, self.converted.input))
            raise RefusalError("input {}, the net takes {}".format(*shapes))
        try:
            return ncnn_values(self._net, image, blobs, light)
        except OSError as error:
            raise RefusalError(str(error)) from error

    def ready(self, image: Floats) -> Callable[[], object]:
        """What runs all of the network."""
        return lambda: self.run(image, self.converted.ends)


def answer(job: dict[str, Any], arrays: Arrays) -> Answer:
    """Do one job: load, head_inputs, race or layer_seconds."""
    match job["do"]:
        case "race":
            return race(
                job, arrays, lambda cfg, weights, image, threads: _loaded(cfg, weights, threads=threads).ready(image)
            )
        case "layer_seconds":
            return Answer(_layer_seconds(job["cfgs"], job["floats"]))
    network = _loaded(job["cfg"], job["weights"], exact=True)
    match job["do"]:
        case "load":
            return Answer()
        case "head_inputs":
            return Answer(arrays=_head_inputs(network, arrays["inputs"], job["heads"]))
        case unknown:
            raise ValueError(unknown)


def _head_inputs(network: Network, inputs: Floats, heads: list[int]) -> dict[str, Floats]:
    known = network.converted.blobs
    for head in heads:
        if not 0 < head <= len(known) or known[head - 1] is None:
            raise RefusalError(f"found nothing that enters layer {head}")
    blobs = [str(known[head - 1]) for head in heads]
    images = [network.run(image, blobs, light=False) for image in inputs]
    return {str(head): np.stack([image[at] for image in images]) for at, head in enumerate(heads)}


def _layer_seconds(texts: list[str], floats: list[int]) -> list[float]:
    """Weights are random, as many as any of the nets takes."""
    rng = np.random.default_rng(0)
    weights = np.array([0, 2, 5, 0, 0], np.int32).tobytes() + rng.random(max(floats), np.float32).tobytes()

    def timed(text: str) -> Callable[[], float]:
        network = Network(text.encode("utf-8", "surrogateescape"), weights, exact=False)
        return processor_seconds(network.ready(rng.random(network.converted.input, np.float32)))

    return last_section_seconds(texts, timed)


def _loaded(cfg: str, weights: str, *, exact: bool = False, threads: int = 1) -> Network:
    try:
        return Network(Path(cfg).read_bytes(), Path(weights).read_bytes(), exact=exact, threads=threads)
    except OSError as error:
        raise RefusalError(f"{error.filename}: {error.strerror}") from error


if __name__ == "__main__":
    serve(answer)
