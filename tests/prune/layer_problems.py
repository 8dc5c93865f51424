"""Layers' problems of random inputs."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from yoloprune.prune.layer_problem import LayerProblem
from yoloprune.prune.moments import Consumer, Moments


def moments(columns: Tensor, targets: Tensor) -> Moments:
    """Of samples [G, D, M] and what should come out of them [G, n, M], in two folds."""
    groups, size, count = columns.shape
    consumer = Consumer(0, groups, np.zeros((groups, size), np.int64), 1)
    made = Moments.zero(consumer, targets.shape[1], columns.device)
    for fold, part in enumerate((slice(0, count // 2), slice(count // 2, None))):
        made.add(fold, columns[:, :, part], targets[:, :, part])
    return made


def problem(
    weight: Tensor, columns: Tensor, targets: Tensor | None = None, alive: Tensor | None = None
) -> LayerProblem:
    """Of weights [G, n, D] that may all stay, to give what they make of the columns now."""
    wanted = weight @ columns if targets is None else targets
    there = torch.ones_like(weight, dtype=torch.bool) if alive is None else alive
    return LayerProblem.of(weight, moments(columns, wanted), there)


def drawn(groups: int, n: int, size: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Correlated columns of different means and deviations [G, D, M], and weights [G, n, D]."""
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(groups, size, size, generator=generator, dtype=torch.float64) + torch.eye(size) * 1.5
    columns = mixed @ torch.randn(groups, size, 4000, generator=generator, dtype=torch.float64)
    columns += torch.randn(groups, size, 1, generator=generator, dtype=torch.float64)
    return columns, torch.randn(groups, n, size, generator=generator, dtype=torch.float64)
