"""What convolution and connected compute alike: a weighted sum, batch norm, the activation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from yoloprune.darknet.dialect import Dialect
from yoloprune.darknet.layers.activations import ACTIVATIONS
from yoloprune.darknet.layers.base import (
    TensorSpec,
    add_tensors,
)
from yoloprune.darknet.layers.norm import fold, normalize

State = tuple[tuple[Tensor, int, int], ...]
"""Arrays, how often each has changed, and where it lies, which is another place when a module was moved."""


def state_of(*arrays: Tensor) -> State:
    """Of arrays as they are now; those made without counting changes have never changed."""
    return tuple((array, 0 if array.is_inference() else array._version, array.data_ptr()) for array in arrays)


def same(a: State, b: State) -> bool:
    """Whether arrays are what they were."""
    return all(x is y and was == now for (x, *was), (y, *now) in zip(a, b, strict=True))


class Affine(nn.Module):
    """Tensors by name, batch norm of its own statistics in training and folded at inference, activation."""

    bias: Tensor
    scale: Tensor
    mean: Tensor
    variance: Tensor
    weight: Tensor

    def __init__(
        self, specs: Sequence[TensorSpec], batch_normalize: bool, activation: str, dialect: Dialect, momentum: float
    ) -> None:
        super().__init__()
        add_tensors(self, specs)
        self.normalized = batch_normalize
        self.activate = ACTIVATIONS[activation]
        self.dialect = dialect
        self.momentum = momentum
        self._folded: tuple[State, tuple[Tensor, Tensor]] | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.normalized and self.training:
            raw = self.linear(x, self.weight, None)
            statistics = (self.mean, self.variance)
            return self.activate(normalize(raw, self.scale, self.bias, *statistics, self.dialect, self.momentum))
        weight, bias = self.folded() if self.normalized else (self.weight, self.bias)
        return self.activated(x, weight, bias)

    def folded(self) -> tuple[Tensor, Tensor]:
        """Weight and bias with batch norm in them.

        Kept until an array changes, as on a GPU making them takes as long as the convolution of a small network; where
        gradients are wanted, or PyTorch doesn't count the changes, they are made each time.
        """
        arrays = self.weight, self.scale, self.bias, self.mean, self.variance
        if torch.is_grad_enabled() or any(array.is_inference() for array in arrays):
            return self._fold()
        state = state_of(*arrays)
        if self._folded is None or not same(self._folded[0], state):
            self._folded = state, self._fold()
        return self._folded[1]

    def _fold(self) -> tuple[Tensor, Tensor]:
        factor, bias = fold(self.scale, self.bias, self.mean, self.variance, self.dialect)
        return self.weight * factor.view(-1, *[1] * (self.weight.dim() - 1)), bias

    def activated(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """The activation of the weighted sum: x [B,C,H,W] -> [B,N,H',W']."""
        return self.activate(self.linear(x, weight, bias))

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The weighted sum alone: x [B,C,H,W] -> [B,N,H',W']."""
        raise NotImplementedError

    def columns(self, x: Tensor) -> Tensor:
        """What the weights multiply, zeros of the padding included: x [B,C,H,W] -> [groups, D, M] for M = B H' W'.

        With the weight as [groups, N/groups, D], `linear` is their product.
        """
        raise NotImplementedError
