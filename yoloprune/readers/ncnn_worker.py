"""The process in which ncnn runs what `ncnn_convert` makes of Darknet's files; see `ncnn`, which starts it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ncnn
import numpy as np

from yoloprune.readers.base import Floats
from yoloprune.readers.ncnn_convert import Converted, convert
from yoloprune.readers.process import (
    Answer,
    Arrays,
    RefusalError,
    last_section_seconds,
    processor_seconds,
    serve,
    timing,
)


class Network:
    """One loaded network, on one thread. exact: float32 and no kernel that transforms what it multiplies."""

    def __init__(self, cfg: bytes, weights: bytes, *, exact: bool) -> None:
        self.converted: Converted = convert(cfg, weights)
        self._net = ncnn.Net()
        self._net.opt.num_threads = 1
        if exact:
            for option in ("winograd_convolution", "fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage"):
                setattr(self._net.opt, f"use_{option}", False)
        with tempfile.TemporaryDirectory(prefix="yoloprune-ncnn-") as name:
            param, model = Path(name) / "net.param", Path(name) / "net.bin"
            param.write_text(self.converted.param, encoding="utf-8")
            model.write_bytes(self.converted.model)
            if self._net.load_param(str(param)) or self._net.load_model(str(model)):
                raise RefusalError("ncnn can't load the converted network")

    def run(self, image: Floats, blobs: Sequence[str], *, light: bool = True) -> list[Floats]:
        """Values of blobs for an image [C, H, W]. light: what is read is let go, as ncnn does by itself."""
        if image.shape != self.converted.input:
            shapes = ("x".join(map(str, shape)) for shape in (image.shape, self.converted.input))
            raise RefusalError("input {}, the net takes {}".format(*shapes))
        extractor = self._net.create_extractor()
        extractor.set_light_mode(light)
        extractor.input("data", ncnn.Mat(np.ascontiguousarray(image)).clone())
        found = []
        for blob in blobs:
            status, value = extractor.extract(blob)
            if status:
                raise RefusalError(f"ncnn can't compute {blob}: status {status}")
            found.append(np.array(value, np.float32))
        return found

    def timed(self, image: Floats) -> Callable[[], float]:
        """What runs the network and says how many seconds of the processor that took."""
        return processor_seconds(lambda: self.run(image, self.converted.ends))


def answer(job: dict[str, Any], arrays: Arrays) -> Answer:
    """Do one job: load, head_inputs, seconds, race or layer_seconds."""
    match job["do"]:
        case "race" | "seconds":
            return timing(job, lambda *files: _loaded(*files).timed(arrays["inputs"][0]))
        case "layer_seconds":
            return Answer(_layer_seconds(job["cfgs"], job["floats"]))
    network = _loaded(job["cfg"], job["weights"], exact=job["do"] == "head_inputs")
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
        return network.timed(rng.random(network.converted.input, np.float32))

    return last_section_seconds(texts, timed)


def _loaded(cfg: str, weights: str, *, exact: bool = False) -> Network:
    try:
        return Network(Path(cfg).read_bytes(), Path(weights).read_bytes(), exact=exact)
    except OSError as error:
        raise RefusalError(f"{error.filename}: {error.strerror}") from error


if __name__ == "__main__":
    serve(answer)
