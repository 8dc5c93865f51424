"""Rounding with error feedback against least squares, solved anew for each column in NumPy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from tests.prune.layer_problems import drawn, problem
from yoloprune.darknet.grid import Grid
from yoloprune.darknet.rounder import Rounder
from yoloprune.prune import rounding
from yoloprune.prune.grids import GRIDS
from yoloprune.prune.layer_problem import LayerProblem
from yoloprune.prune.rounding import rounded


def given(
    groups: int, n: int, size: int, seed: int, share: float = 1.0
) -> tuple[LayerProblem, NDArray[np.float64], NDArray[np.float64], Tensor]:
    """A problem of which a share of the weights are there, its equations without scaling, and its exact solution."""
    columns, weight = drawn(groups, n, size, seed)
    alive = torch.rand(weight.shape, generator=torch.Generator().manual_seed(seed)) < share
    made = problem(weight, columns, alive=alive)
    a = (made.a * made.columns * made.columns.mT).numpy()
    b = (made.b * made.columns * made.outputs).mT.numpy()
    exact = torch.zeros_like(weight)
    for group, output in np.ndindex(groups, n):
        there = np.flatnonzero(alive[group, output])
        exact[group, output, there] = torch.from_numpy(
            np.linalg.solve(a[group][np.ix_(there, there)], b[group, output, there])
        )
    return made, a, b, exact


def spread(a: Tensor, there: list[int]) -> Tensor:
    """Equations of 8 columns [G, 8, 8], of which those of some are given and the others have ones on the diagonal."""
    wide = torch.eye(8, dtype=a.dtype).repeat(len(a), 1, 1)
    for group, part in enumerate(a):
        wide[group, torch.tensor(there)[:, None], torch.tensor(there)] = part
    return wide


def grid_for(start: Tensor, kind: str, bits: int) -> Grid:
    return GRIDS[kind](start.flatten(0, 1), torch.ones_like(start.flatten(0, 1)), bits)


def losses(a: NDArray[np.float64], b: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each output [G, n], but for a constant."""
    return np.einsum("gni,gij,gnj->gn", values, a, values) - 2 * (b * values).sum(2)


def nearest(grid: Grid, output: int, value: float) -> float:
    """On the grid of an output, by looking at every value."""
    steps = np.arange(-grid.largest, grid.largest + 1)
    values = grid.codebook if grid.scales is None else grid.scales[output] * steps
    assert values is not None
    return float(values[np.abs(values - value).argmin()])


def test_two_columns_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first is rounded, the second is the optimum given that, w_2 + (w_1 - q_1) a_12 / a_22, and rounded."""
    monkeypatch.setattr(rounding, "_PASSES", 0)
    moved = 0
    for seed in range(12):
        made, a, _, start = given(1, 1, 2, seed)
        grid = Grid(3, scales=np.array([start.abs().max() / 2.6], np.float32))
        first, second = start[0, 0].tolist()
        q = nearest(grid, 0, first)
        made_up = nearest(grid, 0, second + (first - q) * a[0, 0, 1] / a[0, 1, 1])
        moved += made_up != nearest(grid, 0, second)
        assert rounded(made, start, Rounder.of(grid, 1, start))[0, 0].tolist() == pytest.approx([q, made_up])
    assert moved > 1


@pytest.mark.parametrize("kind", GRIDS)
@pytest.mark.parametrize("share", [1.0, 0.6])
@pytest.mark.parametrize("together", [1, 3, 64])
def test_each_column_rounds_the_solution_given_all_on_its_left(
    together: int, share: float, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounding, "_TOGETHER", together)
    monkeypatch.setattr(rounding, "_PASSES", 0)
    monkeypatch.setattr(rounding, "_AT_ONCE", 3 * 8 * 7**2)  # a few outputs at a time
    made, a, b, start = given(2, 5, 8, 1, share)
    grid = grid_for(start, kind, 3)
    found = rounded(made, start, Rounder.of(grid, 2, start)).numpy()
    expected, plain = np.zeros(found.shape), np.zeros(found.shape)
    for group, output in np.ndindex(2, 5):
        there = np.flatnonzero(made.alive[group, :, output])
        row = expected[group, output]
        for number, column in enumerate(there):
            plain[group, output, column] = nearest(grid, group * 5 + output, float(start[group, output, column]))
            free = there[number:]
            rest = b[group, output, free] - a[group][np.ix_(free, there[:number])] @ row[there[:number]]
            solved = np.linalg.solve(a[group][np.ix_(free, free)], rest)
            row[column] = nearest(grid, group * 5 + output, float(solved[0]))
    better = losses(a, b, expected) < losses(a, b, plain)
    assert better.any()
    np.testing.assert_allclose(found, np.where(better[:, :, None], expected, plain), rtol=1e-5)


@pytest.mark.parametrize("kind", GRIDS)
@pytest.mark.parametrize("share", [1.0, 0.5])
@pytest.mark.parametrize("work", [0.0, 1e12])
def test_no_other_value_of_a_single_weight_is_better(
    work: float, share: float, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounding, "_MOST_WORK", work)
    made, a, b, start = given(2, 4, 7, 2, share)
    grid = grid_for(start, kind, 3)
    found = rounded(made, start, Rounder.of(grid, 2, start)).numpy()
    least = losses(a, b, found)
    for group, output, column in np.argwhere(made.alive.mT.numpy()):
        codebook: NDArray[np.floating] | None = grid.codebook
        if codebook is None:
            assert grid.scales is not None
            codebook = grid.scales[group * 4 + output].astype(np.float64) * np.arange(-3, 4)
        for value in codebook:
            other = found.copy()
            other[group, output, column] = value
            assert losses(a, b, other)[group, output] >= least[group, output] - 1e-9 * abs(least[group, output])


@pytest.mark.parametrize("kind", GRIDS)
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("seed", range(3))
def test_of_correlated_inputs_no_output_loses_more_than_by_nearest(kind: str, bits: int, seed: int) -> None:
    made, a, b, start = given(1, 40, 6, seed)
    grid = grid_for(start, kind, bits)
    rounder = Rounder.of(grid, 1, start)
    plain, found = losses(a, b, rounder(start).numpy()), losses(a, b, rounded(made, start, rounder).numpy())
    assert (found <= plain + 1e-9 * np.abs(plain)).all()
    assert found.sum() < plain.sum()


@pytest.mark.parametrize("kind", GRIDS)
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_zeros_stay_and_values_are_the_grid_s(kind: str, share: float) -> None:
    made, _, _, start = given(2, 5, 9, 4, share)
    grid = grid_for(start, kind, 4)
    values = rounded(made, start, Rounder.of(grid, 2, start))
    assert not values[~made.alive.mT].any()
    narrow = values.reshape(10, 9).numpy().astype(np.float32)
    np.testing.assert_array_equal(grid.values(grid.nearest(narrow)), narrow)


@pytest.mark.parametrize("work", [0.0, 1e12])
def test_outputs_with_the_same_weights_are_swept_together(work: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two columns that no output has, and an output that has nothing, are no reason for equations of their own."""
    monkeypatch.setattr(rounding, "_MOST_WORK", work)
    columns, weight = drawn(2, 5, 8)
    alive = torch.ones_like(weight, dtype=torch.bool)
    alive[:, :, [2, 5]] = False
    there = [0, 1, 3, 4, 6, 7]
    narrow = problem(weight[:, :, there], columns[:, there], weight @ columns)
    start = torch.linalg.solve(narrow.a, narrow.b)
    solved = narrow.weights(start)
    grid = grid_for(solved, "uniform", 3)
    expected = rounded(narrow, solved, Rounder.of(grid, 2, solved))
    alive[1, 3] = False
    wide = problem(weight, columns, weight @ columns, alive)
    given_start = torch.zeros_like(weight)
    given_start[:, :, there] = solved
    given_start[1, 3] = 0
    # The same equations, so that only the missing columns differ.
    wide = replace(
        wide, a=spread(narrow.a, there), b=torch.zeros_like(wide.b).index_copy(1, torch.tensor(there), narrow.b)
    )
    wide = replace(wide, columns=torch.ones_like(wide.columns).index_copy(1, torch.tensor(there), narrow.columns))
    found = rounded(replace(wide, outputs=narrow.outputs), given_start, Rounder.of(grid, 2, solved))
    expected[1, 3] = 0
    torch.testing.assert_close(found[:, :, there], expected)
    assert not found[:, :, [2, 5]].any()
