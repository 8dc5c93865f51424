"""A made `.onnx` in onnxruntime, in this process: a worker for each of a hundred would take a minute."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from onnx import ModelProto


def outputs_in_onnxruntime(proto: ModelProto, x: np.ndarray) -> dict[str, np.ndarray]:
    """Outputs by name for an input [1, C, H, W], on one thread."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"input": x}), strict=True))
