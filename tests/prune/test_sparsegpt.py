"""The column sweep against Optimal Brain Surgeon's closed form and the paper's algorithm, step by step in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.prune.layer_problems import drawn, problem
from yoloprune.prune import sparse_fit as fitting
from yoloprune.prune import sparsegpt as sweeping
from yoloprune.prune.layer_problem import LayerProblem
from yoloprune.prune.patterns import Block, NofM, Pattern, Single
from yoloprune.prune.sparse_fit import WEIGHT_CRITERIA, sparse_fit
from yoloprune.prune.sparsegpt import sparsegpt


def added(given: LayerProblem, values: Tensor) -> float:
    """What is minimised, over its least value, which no zeros allow: values [G, D, n]."""
    change = values - torch.linalg.solve(given.a, given.b)
    return float((change * (given.a @ change)).sum())


@pytest.mark.parametrize("seed", range(5))
def test_of_one_output_the_weight_of_least_loss_goes_as_a_surgeon_takes_it(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hassibi and Stork 1993, eq. 5: q of least w_q^2 / [H^-1]_qq goes, the others change by -w_q H^-1_:q / H^-1_qq."""
    monkeypatch.setattr(sweeping, "_BLOCKS", 1)
    columns, weight = drawn(1, 1, 7, seed)
    given = problem(weight, columns)
    inverse = np.linalg.inv(given.a[0].numpy())
    before = inverse @ given.b[0, :, 0].numpy()
    losses = before**2 / np.diag(inverse)
    least = int(losses.argmin())
    kept, near = sparsegpt(given, 6, Single())
    assert np.flatnonzero(~kept[0, :, 0]).tolist() == [least]
    after = before - before[least] / inverse[least, least] * inverse[:, least]
    refitted = given.solved(kept, near, 30)
    np.testing.assert_allclose(refitted[0, :, 0], after, rtol=1e-8, atol=1e-10)
    assert added(given, refitted) == pytest.approx(losses[least], rel=1e-8)
    # The sweep's own values: the surgeon's, of the columns that are not on the left of the one that went.
    rest = np.linalg.inv(given.a[0, least:, least:].numpy())
    swept = before.copy()
    swept[least:] -= before[least] / rest[0, 0] * rest[:, 0]
    np.testing.assert_allclose(near[0, :, 0], swept, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("blocks", [1, 3, 64])
@pytest.mark.parametrize("seed", range(2))
def test_blocks_of_columns_change_when_values_are_brought_up_to_date_only(
    blocks: int, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One column at a time, the surgeon's update with the columns on the left held, for the choice that was made."""
    monkeypatch.setattr(sweeping, "_BLOCKS", blocks)
    columns, weight = drawn(2, 3, 8, seed)
    given = problem(weight, columns)
    kept, near = sparsegpt(given, 24, Single())
    for group in range(2):
        a = given.a[group].numpy()
        values = np.linalg.solve(a, given.b[group].numpy())
        for column in range(8):
            inverse = np.linalg.inv(a[column:, column:])
            gone = ~kept[group, column].numpy()
            values[column:, gone] -= np.outer(inverse[:, 0], values[column, gone]) / inverse[0, 0]
        np.testing.assert_allclose(near[group], values * kept[group].numpy(), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("blocks", [1, 3, 64])
@pytest.mark.parametrize(
    ("pattern", "left"), [(Single(), 20), (Single(), 61), (Block(1, 3), 11), (Block(4, 1), 9), (Block(2, 3), 7)]
)
def test_as_many_stay_over_the_layer_however_columns_are_taken(
    pattern: Pattern, left: int, blocks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeping, "_BLOCKS", blocks)
    columns, weight = drawn(2, 5, 11)
    kept, near = sparsegpt(problem(weight, columns), left, pattern)
    assert pattern.left(kept.mT) == left
    assert not near[~kept].any()
    if isinstance(pattern, Block):  # whole ones only, also where one would straddle two blocks of columns
        assert torch.equal(pattern.keep(kept.mT.double(), left), kept.mT)


@pytest.mark.parametrize("blocks", [1, 2, 3, 64])
def test_two_of_four_wherever_blocks_of_columns_end(blocks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeping, "_BLOCKS", blocks)
    columns, weight = drawn(1, 5, 11)
    kept, _ = sparsegpt(problem(weight, columns), 2, NofM(2, 4))
    assert (kept.mT[:, :, :8].unflatten(2, (2, 4)).sum(-1) == 2).all()
    assert (kept.mT[:, :, 8:].sum(-1) == 2).all()


@pytest.mark.parametrize("blocks", [1, 2, 3, 64])
def test_one_of_two_input_channels_at_each_place_of_the_kernel(blocks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """5 channels of 3 places: the last one has no neighbour, and stays."""
    monkeypatch.setattr(sweeping, "_BLOCKS", blocks)
    columns, weight = drawn(1, 4, 15)
    kept, _ = sparsegpt(problem(weight, columns), 1, NofM(1, 2).of_kernel(3))
    by_channel = kept.mT.reshape(4, 5, 3)
    assert (by_channel[:, 0:2].sum(1) == 1).all()
    assert (by_channel[:, 2:4].sum(1) == 1).all()
    assert by_channel[:, 4].all()


@pytest.mark.parametrize("pattern", [Single(), NofM(2, 4), Block(1, 2)])
@pytest.mark.parametrize("seed", range(3))
def test_of_correlated_inputs_less_is_lost_than_by_magnitude(pattern: Pattern, seed: int) -> None:
    """Both refitted, so the choice alone differs."""
    columns, weight = drawn(1, 6, 16, seed)
    given = problem(weight, columns)
    left = 2 if isinstance(pattern, NofM) else pattern.size(1, 6, 16) // 2
    losses = {}
    for criterion in ("sparsegpt", "magnitude"):
        kept, near = WEIGHT_CRITERIA[criterion](given, left, pattern)
        losses[criterion] = added(given, given.solved(kept, near, 60))
    assert losses["sparsegpt"] < losses["magnitude"]


def test_wide_layers_are_swept(monkeypatch: pytest.MonkeyPatch) -> None:
    columns, weight = drawn(1, 6, 12)
    given = problem(weight, columns)
    wanted = sparse_fit(given, 36, Single(), "sparsegpt")
    assert not torch.equal(sparse_fit(given, 36, Single(), "alps").kept, wanted.kept)
    monkeypatch.setattr(fitting, "_MOST_COLUMNS", 11)
    assert torch.equal(sparse_fit(given, 36, Single(), "alps").fit.weight, wanted.fit.weight)
    monkeypatch.setattr(fitting, "_MOST_COLUMNS", 12)
    assert not torch.equal(sparse_fit(given, 36, Single(), "alps").kept, wanted.kept)
