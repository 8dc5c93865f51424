"""The least squares that a layer's weights answer, once some of them may not be there.

With z the layer's inputs as its columns, t what the dense layer gave, both centred over the samples,

    min over W of  sum |W z - t|^2 / var(t)  +  |(W - W_dense) L|^2,    L^2 a ridge.

Each output is divided by its own deviation and each column scaled to one diagonal, so magnitudes of weights can be
compared over the layer. The ridge is what noise on the inputs adds (compensate.py: NOISE), on the change alone, so that
training can bear it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final, Self

import torch
from torch import Tensor

from yoloprune.prune.compensate import noise_ridge
from yoloprune.prune.moments import Moments

_QUIET: Final = 1e-3
"""Of the mean variance of the outputs: what each has at least, so that a dead one counts for no more than others."""

Support = tuple[Tensor, Tensor]
"""Which weights stay [G, D, n] bool, and values near which their fit starts [G, D, n], scaled as the problem is."""


@dataclass(frozen=True, eq=False)
class LayerProblem:
    """Least squares, scaled so that the diagonal is 1 and each output has variance 1."""

    a: Tensor
    """[G, D, D]: of the columns, ridge included."""
    b: Tensor
    """[G, D, n]: of columns and outputs."""
    dense: Tensor
    """[G, D, n]: the weights before."""
    weight: Tensor
    """The same as a layer has them [G, n, D], unscaled."""
    alive: Tensor
    """[G, D, n] bool: weights that are not gone already."""
    columns: Tensor
    """[G, D, 1]: a weight times this, and ..."""
    outputs: Tensor
    """[G, 1, n]: ... divided by this is what `dense` holds."""
    means: tuple[Tensor, Tensor]
    """Of the columns [G, D, 1] and of the outputs [G, 1, n], unscaled."""
    squares: Tensor
    """[G, D, 1]: mean square of each column, unscaled."""

    @classmethod
    def of(cls, weight: Tensor, moments: Moments, alive: Tensor) -> Self:
        """Of a layer that is no mixed consumer.

        Parameters
        ----------
        weight
            The dense one [groups, n, D], float64.
        moments
            Of the inputs as they are now. Without targets, the outputs that the weights make of them are wanted.
        alive
            [groups, n, D] bool.
        """
        gram = moments.gram
        cross = moments.crosses.sum(0) if moments.crosses.shape[-1] else gram[:, :, :-1] @ weight.mT
        count = gram[:, -1:, -1:].clamp(min=1)
        means = gram[:, :-1, -1:] / count, cross[:, -1:] / count
        squares = gram.diagonal(dim1=1, dim2=2)[:, :-1, None] / count
        a = gram[:, :-1, :-1] / count - means[0] @ means[0].mT
        b = cross[:, :-1] / count - means[0] @ means[1]
        dense = weight.mT
        variances = a.diagonal(dim1=1, dim2=2).clamp(min=0)
        tiny = torch.finfo(a.dtype).tiny
        ridge = noise_ridge(variances) + tiny
        a, b = a + torch.diag_embed(ridge), b + ridge[:, :, None] * dense
        given = (b * dense).sum(1, keepdim=True).clamp(min=0)
        outputs = (given + _QUIET * given.mean(2, keepdim=True) + tiny).sqrt()
        columns = a.diagonal(dim1=1, dim2=2)[:, :, None].sqrt()
        scaled = a / columns / columns.mT, b / columns / outputs, dense * columns / outputs
        return cls(*scaled, weight, alive.mT, columns, outputs, means, squares)

    @cached_property
    def tells(self) -> bool:
        """Whether the moments are numbers: where activations overflow, they say nothing."""
        return all(bool(each.isfinite().all()) for each in (self.a, self.b, self.dense))

    @cached_property
    def eigen(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues [G, D, 1], 0 or more, and eigenvectors [G, D, D] of `a`."""
        values, basis = torch.linalg.eigh(self.a)
        return values.clamp(min=0)[:, :, None], basis

    def weights(self, scaled: Tensor) -> Tensor:
        """[G, D, n] -> as a layer has them [G, n, D]."""
        return (scaled / self.columns * self.outputs).mT

    def constant(self, weights: Tensor) -> Tensor:
        """What is to be added to each output [G, n], for weights as a layer has them."""
        return (self.means[1] - (weights @ self.means[0]).mT)[:, 0]

    def solved(self, kept: Tensor, near: Tensor, steps: int) -> Tensor:
        """The solution that is 0 but where `kept` [G, D, n], each output by itself, from values near it.

        Conjugate gradients (Hestenes and Stiefel 1952; Meng et al. 2024, ALPS, algorithm 2).
        """
        tiny = torch.finfo(near.dtype).tiny
        x = near * kept
        residual = (self.b - self.a @ x) * kept
        direction, square = residual, residual.square().sum(1, keepdim=True)
        for _ in range(steps):
            ahead = (self.a @ direction) * kept
            far = square / ((direction * ahead).sum(1, keepdim=True) + tiny)
            x, residual = x + far * direction, residual - far * ahead
            last, square = square, residual.square().sum(1, keepdim=True)
            direction = residual + square / (last + tiny) * direction
        return x
