"""ONNX in 8 bits: made by calibration pictures, measured against the float network in accuracy and time."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from torch import Tensor

from yoloprune.darknet.model import Graph, Model
from yoloprune.darknet.network import Network
from yoloprune.detect.measure import network_for_measuring
from yoloprune.formats.onnx import convert
from yoloprune.formats.onnx_int8 import quantize
from yoloprune.options import OnnxOptions
from yoloprune.readers import onnxruntime as runtime
from yoloprune.steps.inputs import Inputs

if TYPE_CHECKING:
    from onnx import ModelProto

_ROUNDS: Final = 15


@dataclass(frozen=True)
class Int8:
    """What 8 bits cost and gain, in onnxruntime."""

    metric: str
    """Key of the accuracy."""
    accuracy: tuple[float, float]
    """Of float32 and of int8, on the valid list."""
    seconds: tuple[float, float]
    """Median of a forward pass on one thread, likewise."""


def to_int8(model: Model, proto: ModelProto, inputs: Inputs, options: OnnxOptions) -> tuple[ModelProto, Int8]:
    """The network in 8 bits, and what it is worth; heads stay in float.

    proto: `model` converted; its last outputs are `raw_outputs`. InputError where the data has no images.
    """
    batches = inputs.calibration_batches(options.int8_images)
    images = [image for batch in batches for image in batch.cpu().numpy()]
    heads = (*(f"{head.index}_{head.name}" for head in model.graph.layers if head.is_output), "boxes")
    fewer = quantize(proto, images, [node.name for node in proto.graph.node if node.name.startswith(heads)])
    with tempfile.TemporaryDirectory(prefix="yoloprune-int8-") as folder:
        files = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        for file, each in zip(files, (convert(model), fewer), strict=True):
            file.write_bytes(each.SerializeToString())
        measure = inputs.measure
        before = measure.accuracy(network_for_measuring(model))
        after = measure.accuracy(InOnnxruntime(model, files[1], measure.graph))
        times = runtime.race([(file, file) for file in files], images[:1] * 2, _ROUNDS)
    return fewer, Int8(measure.steering, (before, after), (median(times[0]), median(times[1])))


class InOnnxruntime(Network):
    """What enters the heads comes from a `.onnx` file; results by the indexes of `like`, a graph with as many heads."""

    def __init__(self, model: Model, file: Path, like: Graph) -> None:
        super().__init__(model.graph)
        self.set_weights(model.weights)
        self._file, self._raw, self._like = file, model.graph.raw_outputs, like

    def forward(
        self, x: Tensor, want: Collection[int] | None = None, resume: Mapping[int, Tensor] | None = None
    ) -> dict[int, Tensor]:
        found = list(runtime.outputs(self._file, np.ascontiguousarray(x.cpu().numpy())).values())
        raw = map(torch.from_numpy, found[-len(self._raw) :])
        results = super().forward(x, resume=dict(zip(self._raw, raw, strict=True)))
        pairs = zip(self._like.outputs, self.graph.outputs, strict=True)
        return {theirs: results[index] for theirs, index in pairs}
