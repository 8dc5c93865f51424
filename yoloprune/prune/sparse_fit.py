"""Which weights of a layer stay, and what they become: a criterion chooses, least squares gives the values.

Criteria, by what the literature calls them:

- alps: support and values together, by ADMM (Meng et al. 2024, "ALPS: Improved Optimization for Highly Sparse One-Shot
  Pruning", algorithm 1): one eigendecomposition; then W is the solution near the last pattern, the pattern is the best
  near W, and their difference is carried on, ever stiffer until the pattern stays.
- sparsegpt: a sweep over the columns (sparsegpt.py).
- wanda: magnitude times the norm of the input, within each output (Sun et al. 2024, "A Simple and Effective Pruning
  Approach for Large Language Models").
- magnitude: the largest weights of the layer (Han et al. 2015, "Learning both Weights and Connections").
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from yoloprune.prune.compensate import Fit
from yoloprune.prune.layer_problem import LayerProblem, Support
from yoloprune.prune.patterns import Pattern, choose
from yoloprune.prune.sparsegpt import sparsegpt

_PENALTY: Final = 0.1
"""ADMM's rho at first, where the diagonal is 1 ..."""
_STIFFER: Final = ((0.1, 1.3), (0.005, 1.2), (0.0, 1.1))
"""... and what it is multiplied with where more than such a share of the kept weights changed since the last look
(as in ALPS)."""
_LOOK: Final = 3
"""Steps between two looks."""
_STEPS: Final = 300
REFITTING: Final = 30
"""Steps of conjugate gradients."""
_MOST_COLUMNS: Final = 2304
"""Of a layer for alps, whose eigendecomposition and steps take several times as long as a sweep for wider ones."""


@dataclass(frozen=True)
class SparseFit:
    """A layer's new weights, and which of them are left."""

    fit: Fit
    kept: Tensor
    """[groups, n, D] bool; a weight that is left may still be 0."""


def alps(problem: LayerProblem, left: int, pattern: Pattern) -> Support:
    """By ADMM."""
    values, basis = problem.eigen
    aimed, penalty, alive = basis.mT @ problem.b, _PENALTY, problem.alive.mT
    kept = before = choose(pattern, problem.dense.mT.square(), left, alive).mT
    sparse, carried = problem.dense * kept, torch.zeros_like(problem.dense)
    for step in range(1, _STEPS + 1):
        free = basis @ ((aimed + basis.mT @ (penalty * sparse - carried)) / (values + penalty))
        wanted = free + carried / penalty
        kept = choose(pattern, wanted.mT.square(), left, alive).mT
        sparse = wanted * kept
        carried = carried + penalty * (free - sparse)
        if step % _LOOK == 0:
            changed = int((kept ^ before).sum()) / max(int(kept.sum()), 1)
            if not changed:
                break
            penalty *= next(factor for share, factor in _STIFFER if changed > share)
            before = kept
    return kept, sparse


def wanda(problem: LayerProblem, left: int, pattern: Pattern) -> Support:
    """By the rank of |w| times the input's norm among its output's weights."""
    scores = problem.weight.abs() * problem.squares.clamp(min=0).sqrt().mT
    ranks = scores.argsort(2).argsort(2).double()
    kept = choose(pattern, ranks, left, problem.alive.mT).mT
    return kept, problem.dense * kept


def magnitude(problem: LayerProblem, left: int, pattern: Pattern) -> Support:
    """By |w|."""
    kept = choose(pattern, problem.weight.abs(), left, problem.alive.mT).mT
    return kept, problem.dense * kept


WEIGHT_CRITERIA: Final[Mapping[str, Callable[[LayerProblem, int, Pattern], Support]]] = {
    "alps": alps,
    "sparsegpt": sparsegpt,
    "wanda": wanda,
    "magnitude": magnitude,
}
"""What `--criterion` takes for weights."""


def sparse_fit(
    problem: LayerProblem, left: int, pattern: Pattern, criterion: str = "alps", *, refit: bool = True
) -> SparseFit:
    """Weights of which `left` units stay.

    refit: with the values that come nearest to what was wanted; else those that stay are as they were. Where the
    moments tell nothing, the largest weights stay as they are. Layers that are too wide for alps take sparsegpt.
    """
    if not problem.tells:
        return magnitude_fit(problem.weight, problem.alive.mT, left, pattern)
    if criterion == "alps" and problem.a.shape[1] > _MOST_COLUMNS:
        criterion = "sparsegpt"
    kept, near = WEIGHT_CRITERIA[criterion](problem, left, pattern)
    if not refit:
        return _as_they_are(problem.weight, kept.mT)
    fitted = problem.weights(problem.solved(kept, near, REFITTING)).masked_fill(~kept.mT, 0)
    return SparseFit(Fit(fitted, problem.constant(fitted)), kept.mT)


def magnitude_fit(weight: Tensor, alive: Tensor, left: int, pattern: Pattern) -> SparseFit:
    """The largest weights as they are. weight, alive: [groups, n, D]."""
    return _as_they_are(weight, choose(pattern, weight.abs(), left, alive))


def _as_they_are(weight: Tensor, kept: Tensor) -> SparseFit:
    return SparseFit(Fit(weight.masked_fill(~kept, 0), torch.zeros_like(weight[:, :, 0])), kept)
