"""ONNX with 8-bit weights and activations in QDQ form, by onnxruntime's own quantization."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

from yoloprune.formats.onnx import INPUT

_QUANTIZED: Final = ("Conv", "Gemm", "MatMul", "Add", "Mul", "MaxPool", "Concat", "Resize", "LeakyRelu", "Sigmoid")
"""Operators that compute in 8 bits; what lies between two of them must, too, or values go back and forth."""


class _Images(CalibrationDataReader):  # type: ignore[misc]  # the package has no types
    """One after another."""

    def __init__(self, images: Iterable[NDArray[np.float32]]) -> None:
        self._images = iter(images)

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        return next(({INPUT: image[None]} for image in self._images), None)


def quantize(proto: onnx.ModelProto, images: Iterable[NDArray[np.float32]], spared: Iterable[str]) -> onnx.ModelProto:
    """The network in 8 bits: weights symmetric for each filter, activations in the range that `images` take.

    Parameters
    ----------
    proto
        What `convert` made.
    images
        Calibration images, [C, H, W] each, as the network takes them; at least one.
    spared
        Names of nodes that stay in float.
    """
    with tempfile.TemporaryDirectory(prefix="yoloprune-int8-") as folder:
        before, after = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        before.write_bytes(_named_ready(proto).SerializeToString())
        quantize_static(
            before,
            after,
            _Images(images),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            op_types_to_quantize=list(_QUANTIZED),
            nodes_to_exclude=list(spared),
        )
        return onnx.load(after)


def _named_ready(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that says that onnxruntime's own preparation is done, as it warns otherwise; `convert` leaves it none."""
    ready = onnx.ModelProto()
    ready.CopyFrom(proto)
    ready.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")
    return ready
