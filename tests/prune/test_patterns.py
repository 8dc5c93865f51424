"""Choices of weights that a pattern allows, against all that there are."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from torch import Tensor

from yoloprune.prune.patterns import Block, NofM, Pattern, Single


def scores(*shape: int) -> Tensor:
    """Distinct, so that no choice is a tie."""
    generator = torch.Generator().manual_seed(3)
    count = int(torch.tensor(shape).prod())
    return (torch.randperm(count, generator=generator).double() + 1).view(shape)


@pytest.mark.parametrize("kept", [0, 1, 7, 30, 99])
def test_single_weights_are_the_largest(kept: int) -> None:
    given = scores(2, 3, 5)
    chosen = Single().keep(given, kept)
    assert int(chosen.sum()) == min(kept, 30)
    assert given[chosen].sum() == given.flatten().sort(descending=True).values[:kept].sum()


def test_two_of_every_four_and_no_more_of_what_is_left_over() -> None:
    given = scores(2, 3, 10)
    chosen = NofM(2, 4).keep(given, 0)
    assert (chosen[:, :, :8].unflatten(2, (2, 4)).sum(-1) == 2).all()
    assert (chosen[:, :, 8:].sum(-1) == 2).all()
    for row, there in zip(given.flatten(0, 1), chosen.flatten(0, 1), strict=True):
        for start in (0, 4):
            best = max(sum(pair) for pair in combinations(row[start : start + 4].tolist(), 2))
            assert row[start : start + 4][there[start : start + 4]].sum() == best


def test_one_left_over_place_holds_one() -> None:
    assert NofM(2, 4).keep(scores(1, 2, 5), 0)[:, :, 4:].all()


@pytest.mark.parametrize(("height", "width"), [(1, 2), (4, 1), (2, 3)])
def test_blocks_are_whole(height: int, width: int) -> None:
    filters, columns = 2 * height + 1, 3 * width - 1
    given = scores(1, filters, columns)
    chosen = Block(height, width).keep(given, 4 * height * width)[0]
    blocks = [
        (slice(top, top + height), slice(left, left + width))
        for top in range(0, filters, height)
        for left in range(0, columns, width)
    ]
    there = [bool(chosen[block].all()) for block in blocks]
    assert there == [bool(chosen[block].any()) for block in blocks]
    assert sum(there) == 4
    sums = sorted((float(given[0][block].sum()) for block in blocks), reverse=True)
    assert float(given[0][chosen].sum()) == sum(sums[:4])


@pytest.mark.parametrize("pattern", [Single(), NofM(2, 2), Block(2, 2)])
def test_all_can_stay(pattern: Pattern) -> None:
    assert pattern.keep(scores(2, 4, 6), 48).all()
