"""The choice of weights and their values, against closed forms and against all choices that there are."""

from __future__ import annotations

from functools import reduce
from itertools import combinations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from tests.prune.layer_problems import drawn, problem
from yoloprune.prune.compensate import NOISE
from yoloprune.prune.patterns import Block, NofM, Pattern, Single
from yoloprune.prune.sparse_fit import WEIGHT_CRITERIA, magnitude_fit, sparse_fit


def best_values(columns: NDArray[np.float64], dense: NDArray[np.float64], there: list[int]) -> tuple[float, Tensor]:
    """What is minimised, and its closed form, for one output whose weights are `there` only."""
    centred = columns - columns.mean(1, keepdims=True)
    a = centred @ centred.T / columns.shape[1]
    ridge = NOISE * (np.diag(a) + np.diag(a).mean())
    whole, aimed = a + np.diag(ridge), a @ dense + ridge * dense
    values = np.zeros_like(dense)
    values[there] = np.linalg.solve(whole[np.ix_(there, there)], aimed[there])
    return float(values @ whole @ values - 2 * values @ aimed), torch.from_numpy(values)


def error(columns: Tensor, wanted: Tensor, weight: Tensor, constant: Tensor) -> float:
    """Variance of what is missing, over that of what is wanted; mean of the outputs."""
    missing = weight @ columns + constant[:, :, None] - wanted
    return float((missing.var(2) / wanted.var(2)).mean())


@pytest.mark.parametrize("seed", range(4))
def test_of_uncorrelated_inputs_the_largest_stay_as_they_are(seed: int) -> None:
    """With one deviation each; then a weight counts by its share of the output. Of nearly equal ones, either stays."""
    signs = reduce(np.kron, [np.array([[1.0, 1.0], [1.0, -1.0]])] * 4)  # Hadamard's: orthogonal, the first row constant
    columns = torch.from_numpy(signs[1:])[None] * 3 + 5
    weight = torch.randn(1, 4, 15, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found = sparse_fit(problem(weight, columns), 20, Single())
    shares = weight.square() / weight.square().sum(2, keepdim=True)
    assert int(found.kept.sum()) == 20
    assert shares[found.kept].sum() > 0.98 * shares[Single().keep(shares, 20)].sum()
    torch.testing.assert_close(found.fit.weight, weight * found.kept, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found.fit.constant, (weight * ~found.kept).sum(2) * 5)


@pytest.mark.parametrize("seed", range(6))
def test_nearly_the_best_of_all_choices(seed: int) -> None:
    columns, weight = drawn(1, 1, 8, seed)
    fit = sparse_fit(problem(weight, columns), 3, Single()).fit
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


@pytest.mark.parametrize("criterion", WEIGHT_CRITERIA)
def test_outputs_keep_their_means_and_groups_are_apart(criterion: str) -> None:
    columns, weight = drawn(2, 5, 12)
    found = sparse_fit(problem(weight, columns), 60, Single(), criterion)
    assert int(found.kept.sum()) == 60
    assert not found.fit.weight[~found.kept].any()
    wanted, got = weight @ columns, found.fit.weight @ columns + found.fit.constant[:, :, None]
    torch.testing.assert_close(got.mean(2), wanted.mean(2), rtol=1e-7, atol=1e-9)
    plain = magnitude_fit(weight, torch.ones_like(found.kept), 60, Single()).fit
    assert error(columns, wanted, found.fit.weight, found.fit.constant) < 0.7 * error(
        columns, wanted, plain.weight, plain.constant
    )


@pytest.mark.parametrize("criterion", WEIGHT_CRITERIA)
def test_two_of_four_obey(criterion: str) -> None:
    columns, weight = drawn(1, 6, 12)
    found = sparse_fit(problem(weight, columns), 2, NofM(2, 4), criterion)
    assert (found.kept.unflatten(2, (3, 4)).sum(-1) == 2).all()
    assert not found.fit.weight[~found.kept].any()


@pytest.mark.parametrize("criterion", WEIGHT_CRITERIA)
@pytest.mark.parametrize(
    ("pattern", "left"), [(Single(), 20), (Block(1, 2), 10), (Block(4, 1), 7), (NofM(2, 4), 2), (NofM(2, 4), 4)]
)
def test_what_is_gone_stays_gone(criterion: str, pattern: Pattern, left: int) -> None:
    columns, weight = drawn(2, 5, 9)
    alive = torch.rand(2, 5, 9, generator=torch.Generator().manual_seed(1)) < 0.6
    found = sparse_fit(problem(weight, columns, alive=alive), left, pattern, criterion)
    assert not (found.kept & ~alive).any()
    assert not found.fit.weight[~found.kept].any()
    assert bool(found.fit.weight[found.kept].all())
    if isinstance(pattern, NofM):
        assert int(pattern.left(found.kept)) <= max(left, 2)
    else:
        assert pattern.left(found.kept) == left


@pytest.mark.parametrize("criterion", WEIGHT_CRITERIA)
def test_without_a_refit_those_that_stay_are_as_they_were(criterion: str) -> None:
    columns, weight = drawn(2, 5, 9)
    given = problem(weight, columns)
    found = sparse_fit(given, 31, Single(), criterion, refit=False)
    assert torch.equal(found.fit.weight, weight * found.kept)
    assert not found.fit.constant.any()
    again = sparse_fit(given, 31, Single(), criterion)
    assert torch.equal(again.kept, found.kept)
    assert not torch.equal(again.fit.weight, found.fit.weight)


def test_magnitude_times_the_input_s_norm_within_each_output() -> None:
    """By hand (Sun et al. 2024, eq. 1): norms 1, 2 and 4 make scores 3, 4, 2 and 10, 12, 16 of these weights.

    Over the layer the second output would keep all of its own; within each output, the smallest of both goes.
    """
    rows = torch.tensor([[1.0, -1.0, 1.0, -1.0], [2.0, 2.0, -2.0, -2.0], [4.0, -4.0, -4.0, 4.0]], dtype=torch.float64)
    weight = torch.tensor([[[3.0, -2.0, 0.5], [-10.0, 6.0, 4.0]]], dtype=torch.float64)
    given = problem(weight, rows[None])
    torch.testing.assert_close(given.squares[0, :, 0].sqrt(), torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64))
    four = sparse_fit(given, 4, Single(), "wanda").kept
    assert four.tolist() == [[[True, True, False], [False, True, True]]]
    two = sparse_fit(given, 2, Single(), "wanda").kept
    assert two.tolist() == [[[False, True, False], [False, False, True]]]
    shifted = problem(weight, rows[None] + torch.tensor([10.0, 0.0, 0.0])[:, None])
    assert sparse_fit(shifted, 2, Single(), "wanda").kept.tolist() == [[[True, False, False]] * 2][:1]


def test_magnitude_of_the_weights_that_a_layer_has() -> None:
    """Whatever the inputs' deviations: over the layer, and with a refit the same ones."""
    columns, weight = drawn(1, 4, 6)
    found = sparse_fit(problem(weight, columns), 9, Single(), "magnitude")
    assert torch.equal(found.kept, Single().keep(weight.abs(), 9))


def test_targets_of_other_inputs() -> None:
    """What the dense layer gave on what it read is wanted, not what its weights make of the inputs now."""
    columns, weight = drawn(1, 3, 6)
    other = columns[:, :1] * 2 - 1
    wanted = weight[:, :, :1] @ other + 4
    fit = sparse_fit(problem(weight, columns, wanted), 18, Single()).fit
    assert error(columns, wanted, fit.weight, fit.constant) < 0.05


@pytest.mark.parametrize("spoilt", [np.inf, np.nan])
@pytest.mark.parametrize("criterion", WEIGHT_CRITERIA)
def test_where_activations_overflow_the_largest_stay(criterion: str, spoilt: float) -> None:
    columns, weight = drawn(1, 3, 6)
    columns[0, 2, 7] = spoilt
    alive = torch.ones_like(weight, dtype=torch.bool)
    alive[0, 1, 2:4] = False
    found = sparse_fit(problem(weight, columns, alive=alive), 9, Single(), criterion)
    assert torch.equal(found.kept, Single().keep(weight.abs() * alive, 9))
    assert torch.equal(found.fit.weight, weight * found.kept)
    assert not found.fit.constant.any()


@pytest.mark.parametrize("criterion", WEIGHT_CRITERIA)
def test_dead_inputs_and_outputs(criterion: str) -> None:
    columns, weight = drawn(1, 4, 8)
    columns[:, 3] = 0
    weight[:, 2] = 0
    fit = sparse_fit(problem(weight, columns), 12, Single(), criterion).fit
    assert bool(fit.weight.isfinite().all())
    assert not fit.weight[:, 2].any()
