"""Which weights of a layer stay, and what they become: least squares under a sparsity pattern.

With z the layer's inputs as its columns, t what the dense layer gave, both centred over the samples,

    min over W of  sum |W z - t|^2 / var(t)  +  |(W - W_dense) L|^2,    W within the pattern,    L^2 a ridge,

by ADMM (Meng et al. 2024, ALPS, algorithm 1): one eigendecomposition; then W is the solution near the last pattern, the
pattern is the best near W, and their difference is carried on, ever stiffer until the pattern stays. Last, the values
are refitted on the pattern that was found, by conjugate gradients (algorithm 2). As each output is divided by its own
deviation and each column scaled to one diagonal, magnitudes of weights can be compared over the layer.

The ridge is what noise on the inputs adds (compensate.py: NOISE), on the change alone, so that training can bear it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

import torch
from torch import Tensor

from yoloprune.prune.compensate import Fit, noise_ridge
from yoloprune.prune.moments import Moments
from yoloprune.prune.patterns import Pattern

_PENALTY: Final = 0.1
"""ADMM's rho at first, where the diagonal is 1 ..."""
_STIFFER: Final = ((0.1, 1.3), (0.005, 1.2), (0.0, 1.1))
"""... and what it is multiplied with where more than such a share of the kept weights changed since the last look
(as in ALPS)."""
_LOOK: Final = 3
"""Steps between two looks."""
_STEPS: Final = 300
_REFITTING: Final = 30
"""Steps of conjugate gradients."""
_QUIET: Final = 1e-3
"""Of the mean variance of the outputs: what each has at least, so that a dead one counts for no more than others."""


def sparse_fit(weight: Tensor, moments: Moments, kept: int, pattern: Pattern) -> Fit:
    """Weights within the pattern, about `kept` of them, that give what `moments.crosses` asks for.

    weight: [groups, n, D] float64, the dense one. moments: with targets, those of the dense layer; not of a mixed
    consumer. Where activations overflow, which no moments tell of, the largest weights stay as they are.
    """
    problem = _Problem.of(weight, moments)
    if not all(bool(each.isfinite().all()) for each in (problem.a, problem.b, problem.dense)):
        return magnitude_fit(weight, kept, pattern)
    there, near = _support(problem, kept, pattern)
    fitted = problem.weights(_refitted(problem, there, near))
    return Fit(fitted, problem.constant(fitted))


def magnitude_fit(weight: Tensor, kept: int, pattern: Pattern) -> Fit:
    """The largest weights as they are (Han et al. 2015)."""
    return Fit(weight * pattern.keep(weight.abs(), kept), torch.zeros_like(weight[:, :, 0]))


@dataclass(frozen=True)
class _Problem:
    """Least squares, scaled so that the diagonal is 1 and each output has variance 1."""

    a: Tensor
    """[G, D, D]: of the columns, ridge included."""
    b: Tensor
    """[G, D, n]: of columns and outputs."""
    dense: Tensor
    """[G, D, n]: the weights before."""
    columns: Tensor
    """[G, D, 1]: a weight times this, and ..."""
    outputs: Tensor
    """[G, 1, n]: ... divided by this is what `dense` holds."""
    means: tuple[Tensor, Tensor]
    """Of the columns [G, D, 1] and of the outputs [G, 1, n], unscaled."""

    @classmethod
    def of(cls, weight: Tensor, moments: Moments) -> Self:
        gram, cross = moments.gram, moments.crosses.sum(0)
        count = gram[:, -1:, -1:].clamp(min=1)
        means = gram[:, :-1, -1:] / count, cross[:, -1:] / count
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
        return cls(a / columns / columns.mT, b / columns / outputs, dense * columns / outputs, columns, outputs, means)

    def weights(self, scaled: Tensor) -> Tensor:
        """[G, D, n] -> as a layer has them [G, n, D]."""
        return (scaled / self.columns * self.outputs).mT

    def constant(self, weights: Tensor) -> Tensor:
        """What is to be added to each output [G, n]."""
        return (self.means[1] - (weights @ self.means[0]).mT)[:, 0]


def _support(problem: _Problem, kept: int, pattern: Pattern) -> tuple[Tensor, Tensor]:
    """Which weights stay [G, D, n], and values near which the refit starts."""
    values, basis = torch.linalg.eigh(problem.a)
    values, aimed, penalty = values.clamp(min=0)[:, :, None], basis.mT @ problem.b, _PENALTY
    there = before = pattern.keep(problem.dense.mT.square(), kept).mT
    sparse, carried = problem.dense * there, torch.zeros_like(problem.dense)
    for step in range(1, _STEPS + 1):
        free = basis @ ((aimed + basis.mT @ (penalty * sparse - carried)) / (values + penalty))
        wanted = free + carried / penalty
        there = pattern.keep(wanted.mT.square(), kept).mT
        sparse = wanted * there
        carried = carried + penalty * (free - sparse)
        if step % _LOOK == 0:
            changed = int((there ^ before).sum()) / max(int(there.sum()), 1)
            if not changed:
                break
            penalty *= next(factor for share, factor in _STIFFER if changed > share)
            before = there
    return there, sparse


def _refitted(problem: _Problem, there: Tensor, near: Tensor) -> Tensor:
    """The least squares solution that is 0 but `there` [G, D, n], each output by itself (Hestenes and Stiefel 1952)."""
    tiny = torch.finfo(near.dtype).tiny
    x = near * there
    residual = (problem.b - problem.a @ x) * there
    direction, square = residual, residual.square().sum(1, keepdim=True)
    for _ in range(_REFITTING):
        ahead = (problem.a @ direction) * there
        far = square / ((direction * ahead).sum(1, keepdim=True) + tiny)
        x, residual = x + far * direction, residual - far * ahead
        last, square = square, residual.square().sum(1, keepdim=True)
        direction = residual + square / (last + tiny) * direction
    return x
