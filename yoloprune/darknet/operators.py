"""What layers are written into, to be run by other programs: operators by ONNX's names, values by names of their own.

A layer says what it computes twice, side by side: to PyTorch, and here. Which file comes of it is not its business.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[np.float32]]
"""A layer's arrays by name."""
Value = str
"""Name of a tensor; maps are [1, C, H, W]."""
Operand = Value | float | NDArray[Any]
"""What operators read: a value, or a constant; of several numbers float32 [...] or int64 [...]."""


class UnconvertibleError(Exception):
    """A layer can't be written in operators; its text says why."""


class Operators(ABC):
    """The operators of ONNX's opset 13, in the order in which they run."""

    @abstractmethod
    def op(self, kind: str, *operands: Operand, **attributes: Any) -> Value:
        """Add an operator with one output, of that name in ONNX; attributes as its own."""

    def conv(
        self,
        x: Value,
        weight: NDArray[np.float32],
        bias: NDArray[np.float32] | None = None,
        *,
        stride: tuple[int, int] = (1, 1),
        padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
    ) -> Value:
        """x [1,C,H,W], weight [N,C/groups,k,k], bias [N] -> [1,N,H',W']; stride: down, across."""
        return self.op(
            "Conv",
            x,
            weight,
            *(() if bias is None else (bias,)),
            kernel_shape=list(weight.shape[2:]),
            strides=list(stride),
            pads=[padding] * 4,
            dilations=[dilation] * 2,
            group=groups,
        )

    def reshape(self, x: Value, *shape: int) -> Value:
        """The same values in another shape."""
        return self.op("Reshape", x, np.array(shape, np.int64))

    def slice(self, x: Value, axis: int, start: int, stop: int, step: int = 1) -> Value:
        """Part of a value along an axis."""
        return self.op("Slice", x, *(np.array([number], np.int64) for number in (start, stop, axis, step)))

    def concat(self, values: Sequence[Value], axis: int = 1) -> Value:
        """Values joined along an axis; one alone stays as it is."""
        return values[0] if len(values) == 1 else self.op("Concat", *values, axis=axis)

    def repeat(self, x: Value, times: int) -> Value:
        """[1,C,H,W] -> [1,C,H*times,W*times]: each value so many times down and across."""
        how = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        return self.op("Resize", x, "", np.array([1, 1, times, times], np.float32), **how)

    def clip(self, x: Value, least: float, most: float) -> Value:
        """x within bounds."""
        return self.op("Clip", x, least, most)

    def affine(self, x: Value, factor: float | NDArray[np.float32], offset: float | NDArray[np.float32]) -> Value:
        """x * factor + offset."""
        return self.op("Add", self.op("Mul", x, factor), offset)
