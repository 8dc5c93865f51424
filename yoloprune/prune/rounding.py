"""A layer's weights on a grid, so that its outputs change least: each column's error is made up for further right.

Frantar et al. 2023, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers", algorithm 1:
the update of Optimal Brain Surgeon with all columns on the left held, as in sparsegpt.py. Weights that are 0 stay 0 and
make up for nothing, so each output of a sparse layer has equations of its own.

Then coordinate descent over the columns (Behdin et al. 2023, "QuantEase"), as single weights may still be better
elsewhere on the grid.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from yoloprune.darknet.rounder import Rounder
from yoloprune.prune.layer_problem import LayerProblem
from yoloprune.prune.sparsegpt import inverse_factor

_TOGETHER: Final = 64
"""Columns that are brought up to date at once."""
_AT_ONCE: Final = 256 << 20
"""Bytes of the equations of outputs that are solved together."""
_MOST_WORK: Final = 2e12
"""Sums of products for a sparse layer's equations, about a minute; beyond, coordinate descent starts from nearest."""
_PASSES: Final = 3
"""Of coordinate descent, at the most."""


def rounded(problem: LayerProblem, start: Tensor, rounder: Rounder) -> Tensor:
    """Weights on the grid [G, n, D]: 0 but where `alive`, and no output loses more than by rounding to nearest.

    start: the weights of least loss without a grid, 0 but where `alive`.
    """
    alive = problem.alive.mT
    a = problem.a * problem.columns * problem.columns.mT
    b = (problem.b * problem.columns * problem.outputs).mT
    nearest = rounder(start) * alive
    swept = _swept(a, start, alive, rounder)
    if swept is not None:
        better = _loss(a, b, swept) < _loss(a, b, nearest)
        nearest = torch.where(better, swept, nearest)
    return _descended(a, b, nearest, alive, rounder)


def _loss(a: Tensor, b: Tensor, values: Tensor) -> Tensor:
    """Of each output [G, n, 1], over that of no weights at all."""
    return (values * (values @ a - 2 * b)).sum(2, keepdim=True)


def _swept(a: Tensor, start: Tensor, alive: Tensor, rounder: Rounder) -> Tensor | None:
    """A sweep over all columns, or for outputs without some of their weights over those that they have."""
    if alive.all():
        return _sweep(start, inverse_factor(a), rounder)
    groups, outputs, size = start.shape
    most = int(alive.sum(2).max())
    if groups * outputs * most**3 / 3 > _MOST_WORK:
        return None
    rows = torch.arange(groups * outputs, device=start.device)
    result = torch.zeros_like(start).view(-1, size)
    flat, there = start.reshape(-1, size), alive.reshape(-1, size)
    for some in torch.split(rows, max(1, _AT_ONCE // (8 * max(most, 1) ** 2))):
        columns = (~there[some]).to(torch.uint8).argsort(dim=1, stable=True)[:, :most]
        own = there[some].gather(1, columns)
        both = own[:, :, None] & own[:, None]
        part = a[(some // outputs)[:, None, None], columns[:, :, None], columns[:, None]]
        part = torch.where(both, part, torch.eye(most, dtype=a.dtype, device=a.device))
        weights = flat[some].gather(1, columns)[:, None]
        swept = _sweep(weights, inverse_factor(part), rounder.by_rows(some))
        result[some] = result[some].scatter(1, columns, swept[:, 0] * own)
    return result.view_as(start)


def _sweep(start: Tensor, inverse: Tensor, rounder: Rounder) -> Tensor:
    """start [B, n, K]; inverse: upper triangular U [B, K, K], U^T U the inverse of the equations."""
    weights, size = start.clone(), start.shape[2]
    for first in range(0, size, _TOGETHER):
        end = min(first + _TOGETHER, size)
        errors = torch.empty_like(weights[:, :, first:end])
        for column in range(first, end):
            now = weights[:, :, column : column + 1]
            error = (now - rounder(now)) / inverse[:, column, column, None, None]
            weights[:, :, column:end] -= error * inverse[:, column, None, column:end]
            errors[:, :, column - first] = error[:, :, 0]
        weights[:, :, end:] -= errors @ inverse[:, first:end, end:]
    return rounder(weights)


def _descended(a: Tensor, b: Tensor, values: Tensor, alive: Tensor, rounder: Rounder) -> Tensor:
    """Column by column to the value of least loss while all others stay; no step adds to the loss."""
    values = values.clone()
    own = a.diagonal(dim1=1, dim2=2)
    missing = b - values @ a
    for _ in range(_PASSES):
        moved = False
        for column in range(values.shape[2]):
            now = values[:, :, column : column + 1]
            best = rounder(now + missing[:, :, column : column + 1] / own[:, None, column : column + 1])
            change = (best - now) * alive[:, :, column : column + 1]
            if change.any():
                moved = True
                values[:, :, column : column + 1] += change
                missing -= change * a[:, column, None]
        if not moved:
            break
    return rounder(values) * alive
