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
_AT_ONCE: Final = 128 << 20
"""Bytes of the equations of outputs that are solved together."""
_MOST_WORK: Final = 2e12
"""Sums of products for outputs' own equations, about a minute; beyond, coordinate descent starts from nearest."""
_PASSES: Final = 3
"""Of coordinate descent, at the most."""


def rounded(problem: LayerProblem, start: Tensor, rounder: Rounder) -> Tensor:
    """Weights on the grid [G, n, D]: 0 but where `alive`, and no output loses more than by rounding to nearest.

    start: the weights of least loss without a grid, 0 but where `alive`.
    """
    alive = problem.alive.mT
    a = problem.a * problem.columns * problem.columns.mT
    b = (problem.b * problem.columns * problem.outputs).mT
    nearest, swept = rounder(start), _swept(a, start, alive, rounder)
    better = _loss(a, b, swept) < _loss(a, b, nearest)
    return _descended(a, b, torch.where(better, swept, nearest), alive, rounder)


def _loss(a: Tensor, b: Tensor, values: Tensor) -> Tensor:
    """Of each output [G, n, 1], over that of no weights at all."""
    return (values * (values @ a - 2 * b)).sum(2, keepdim=True)


def _swept(a: Tensor, start: Tensor, alive: Tensor, rounder: Rounder) -> Tensor:
    """Outputs that have all columns that any output of their group has share one sweep, the others have their own.

    Those whose own would take too long are rounded to nearest.
    """
    result, size = rounder(start), start.shape[2]
    used = alive.any(1)
    whole = (alive == used[:, None]).all(2)
    if whole.any():
        shared = _sweep(start, inverse_factor(_only(a, used)), rounder)
        result = torch.where(whole[:, :, None] & alive, shared, result)
    rows = (~whole & alive.any(2)).flatten().nonzero()[:, 0]
    flat, there = start.reshape(-1, size), alive.reshape(-1, size)
    most = int(there[rows].sum(1).max()) if len(rows) else 0
    if len(rows) * most**3 / 3 > _MOST_WORK:
        return result
    rounded_rows = result.reshape(-1, size)
    for some in torch.split(rows, max(1, _AT_ONCE // (8 * max(most, 1) ** 2))):
        columns = (~there[some]).to(torch.uint8).argsort(dim=1, stable=True)[:, :most]
        own = there[some].gather(1, columns)
        part = a[(some // start.shape[1])[:, None, None], columns[:, :, None], columns[:, None]]
        weights = flat[some].gather(1, columns)[:, None]
        swept = _sweep(weights, inverse_factor(_only(part, own)), rounder.by_rows(some))
        rounded_rows[some] = rounded_rows[some].scatter(1, columns, swept[:, 0] * own)
    return rounded_rows.view_as(start)


def _only(a: Tensor, columns: Tensor) -> Tensor:
    """Equations [B, K, K] of some columns [B, K] bool, and of the others, each by itself, that they are 0."""
    return torch.where(columns[:, :, None] & columns[:, None], a, torch.eye(a.shape[1]).to(a))


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
    values, outputs = values.clone(), values.shape[1]
    own = a.diagonal(dim1=1, dim2=2)
    missing = (b - values @ a).flatten(0, 1)
    for _ in range(_PASSES):
        moved = False
        for column in range(values.shape[2]):
            now = values[:, :, column : column + 1]
            wanted = now + missing[:, column].view_as(now) / own[:, None, column : column + 1]
            change = ((rounder(wanted) - now) * alive[:, :, column : column + 1]).flatten()
            rows = change.nonzero()[:, 0]
            if len(rows):
                moved = True
                values[:, :, column] += change.view(-1, outputs)
                missing[rows] -= change[rows, None] * a[rows // outputs, column]
        if not moved:
            break
    return rounder(values) * alive
