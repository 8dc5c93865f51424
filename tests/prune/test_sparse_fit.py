"""The choice of weights and their values, against closed forms and against all choices that there are."""

from __future__ import annotations

from functools import reduce
from itertools import combinations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from yoloprune.prune.compensate import NOISE, Fit
from yoloprune.prune.moments import Consumer, Moments
from yoloprune.prune.patterns import NofM, Single
from yoloprune.prune.sparse_fit import sparse_fit


def moments(columns: Tensor, targets: Tensor) -> Moments:
    """Of samples [G, D, M] and what should come out of them [G, n, M], in two folds."""
    groups, size, count = columns.shape
    consumer = Consumer(0, groups, np.zeros((groups, size), np.int64), 1)
    made = Moments.zero(consumer, targets.shape[1], columns.device)
    for fold, part in enumerate((slice(0, count // 2), slice(count // 2, None))):
        made.add(fold, columns[:, :, part], targets[:, :, part])
    return made


def drawn(groups: int, n: int, size: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Correlated columns of different means and deviations [G, D, M], and weights [G, n, D]."""
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(groups, size, size, generator=generator, dtype=torch.float64) + torch.eye(size) * 1.5
    columns = mixed @ torch.randn(groups, size, 4000, generator=generator, dtype=torch.float64)
    columns += torch.randn(groups, size, 1, generator=generator, dtype=torch.float64)
    return columns, torch.randn(groups, n, size, generator=generator, dtype=torch.float64)


def best_values(columns: NDArray[np.float64], dense: NDArray[np.float64], there: list[int]) -> tuple[float, Tensor]:
    """What is minimised, and its closed form, for one output whose weights are `there` only."""
    centred = columns - columns.mean(1, keepdims=True)
    a = centred @ centred.T / columns.shape[1]
    ridge = NOISE * (np.diag(a) + np.diag(a).mean())
    whole, aimed = a + np.diag(ridge), a @ dense + ridge * dense
    values = np.zeros_like(dense)
    values[there] = np.linalg.solve(whole[np.ix_(there, there)], aimed[there])
    return float(values @ whole @ values - 2 * values @ aimed), torch.from_numpy(values)


@pytest.mark.parametrize("seed", range(4))
def test_of_uncorrelated_inputs_the_largest_stay_as_they_are(seed: int) -> None:
    """With one deviation each; then a weight counts by its share of the output. Of nearly equal ones, either stays."""
    signs = reduce(np.kron, [np.array([[1.0, 1.0], [1.0, -1.0]])] * 4)  # Hadamard's: orthogonal, the first row constant
    columns = torch.from_numpy(signs[1:])[None] * 3 + 5
    weight = torch.randn(1, 4, 15, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    fit = sparse_fit(weight, moments(columns, weight @ columns), 20, Single())
    shares = weight.square() / weight.square().sum(2, keepdim=True)
    there = fit.weight != 0
    assert int(there.sum()) == 20
    assert shares[there].sum() > 0.98 * shares[Single().keep(shares, 20)].sum()
    torch.testing.assert_close(fit.weight, weight * there, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(fit.constant, (weight * ~there).sum(2) * 5)


@pytest.mark.parametrize("seed", range(6))
def test_nearly_the_best_of_all_choices(seed: int) -> None:
    columns, weight = drawn(1, 1, 8, seed)
    fit = sparse_fit(weight, moments(columns, weight @ columns), 3, Single())
    there = np.flatnonzero(fit.weight[0, 0])
    about = columns[0].numpy(), weight[0, 0].numpy()
    found, values = best_values(*about, there.tolist())
    torch.testing.assert_close(fit.weight[0, 0], values, rtol=1e-6, atol=1e-9)
    every = [best_values(*about, list(each))[0] for each in combinations(range(8), 3)]
    nothing = 0.0  # what is minimised where no weight stays
    assert len(there) == 3
    assert found <= nothing - 0.8 * (nothing - min(every))
    largest = np.argsort(-np.abs(about[1]))[:3]
    assert found <= best_values(*about, largest.tolist())[0] + 1e-9


def test_outputs_keep_their_means_and_groups_are_apart() -> None:
    columns, weight = drawn(2, 5, 12)
    fit = sparse_fit(weight, moments(columns, weight @ columns), 60, Single())
    assert int((fit.weight != 0).sum()) == 60
    wanted, found = weight @ columns, fit.weight @ columns + fit.constant[:, :, None]
    torch.testing.assert_close(found.mean(2), wanted.mean(2), rtol=1e-7, atol=1e-9)
    plain = Fit(weight * Single().keep(weight.abs(), 60), torch.zeros_like(weight[:, :, 0]))
    errors = [float((fit.weight @ columns + fit.constant[:, :, None] - wanted).var(2).mean()) for fit in (fit, plain)]
    assert errors[0] < 0.7 * errors[1]


def test_two_of_four_obey() -> None:
    columns, weight = drawn(1, 6, 12)
    fit = sparse_fit(weight, moments(columns, weight @ columns), 36, NofM(2, 4))
    assert ((fit.weight != 0).unflatten(2, (3, 4)).sum(-1) == 2).all()


def test_targets_of_other_inputs() -> None:
    """What the dense layer gave on what it read is wanted, not what its weights make of the inputs now."""
    columns, weight = drawn(1, 3, 6)
    other = columns[:, :1] * 2 - 1
    fit = sparse_fit(weight, moments(columns, weight[:, :, :1] @ other + 4), 18, Single())
    found = fit.weight @ columns + fit.constant[:, :, None]
    wanted = weight[:, :, :1] @ other + 4
    assert float((found - wanted).var(2).mean() / wanted.var(2).mean()) < 0.05


@pytest.mark.parametrize("spoilt", [np.inf, np.nan])
def test_where_activations_overflow_the_largest_stay(spoilt: float) -> None:
    columns, weight = drawn(1, 3, 6)
    columns[0, 2, 7] = spoilt
    fit = sparse_fit(weight, moments(columns, weight @ columns), 9, Single())
    assert torch.equal(fit.weight, weight * Single().keep(weight.abs(), 9))
    assert not fit.constant.any()


def test_dead_inputs_and_outputs() -> None:
    columns, weight = drawn(1, 4, 8)
    columns[:, 3] = 0
    weight[:, 2] = 0
    fit = sparse_fit(weight, moments(columns, weight @ columns), 12, Single())
    assert bool(fit.weight.isfinite().all())
    assert not fit.weight[:, 2].any()
