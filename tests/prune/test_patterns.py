"""Choices of weights that a pattern allows, against all that there are, and how they are counted."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from torch import Tensor

from yoloprune.prune.patterns import Block, NofM, Pattern, Single, choose


def scores(*shape: int) -> Tensor:
    """Distinct, so that no choice is a tie."""
    generator = torch.Generator().manual_seed(3)
    count = int(torch.tensor(shape).prod())
    return (torch.randperm(count, generator=generator).double() + 1).view(shape)


@pytest.mark.parametrize("left", [0, 1, 7, 30, 99])
def test_single_weights_are_the_largest(left: int) -> None:
    given = scores(2, 3, 5)
    chosen = Single().keep(given, left)
    assert int(chosen.sum()) == min(left, 30)
    assert given[chosen].sum() == given.flatten().sort(descending=True).values[:left].sum()


def test_two_of_every_four_and_no_more_of_what_is_left_over() -> None:
    given = scores(2, 3, 10)
    chosen = NofM(2, 4).keep(given, 2)
    assert (chosen[:, :, :8].unflatten(2, (2, 4)).sum(-1) == 2).all()
    assert (chosen[:, :, 8:].sum(-1) == 2).all()
    for row, there in zip(given.flatten(0, 1), chosen.flatten(0, 1), strict=True):
        for start in (0, 4):
            best = max(sum(pair) for pair in combinations(row[start : start + 4].tolist(), 2))
            assert row[start : start + 4][there[start : start + 4]].sum() == best


def test_one_left_over_place_holds_one() -> None:
    assert NofM(2, 4).keep(scores(1, 2, 5), 2)[:, :, 4:].all()


@pytest.mark.parametrize("pooling", ["average", "max"])
@pytest.mark.parametrize(("height", "width"), [(1, 2), (4, 1), (2, 3)])
def test_blocks_are_whole(height: int, width: int, pooling: str) -> None:
    filters, columns = 2 * height + 1, 3 * width - 1
    given = scores(1, filters, columns)
    pattern = Block(height, width, pooling)  # type: ignore[arg-type]
    chosen = pattern.keep(given, 4)[0]
    blocks = [
        (slice(top, top + height), slice(left, left + width))
        for top in range(0, filters, height)
        for left in range(0, columns, width)
    ]
    assert len(blocks) == pattern.size(1, filters, columns)
    there = [bool(chosen[block].all()) for block in blocks]
    assert there == [bool(chosen[block].any()) for block in blocks]
    assert sum(there) == 4
    of_block = torch.sum if pooling == "average" else torch.amax
    pooled = [float(of_block(given[0][block])) for block in blocks]
    got = [score for score, stays in zip(pooled, there, strict=True) if stays]
    assert sorted(got, reverse=True) == sorted(pooled, reverse=True)[:4]


def test_a_block_is_scored_by_its_average_or_its_largest() -> None:
    """By hand: the averages are 3, 4 and 2.5 (a place beyond the edge counts as 0), the largest 6, 4 and 5."""
    given = torch.tensor([[[0.0, 6.0, 4.0, 4.0, 5.0]]])
    first, second, last = ([index in each for index in range(5)] for each in ({0, 1}, {2, 3}, {4}))
    assert Block(1, 2).keep(given, 1).tolist() == [[second]]
    assert Block(1, 2, "max").keep(given, 1).tolist() == [[first]]
    assert (~Block(1, 2).keep(given, 2)).tolist() == [[last]]
    assert (~Block(1, 2, "max").keep(given, 2)).tolist() == [[second]]


def test_ragged_blocks_are_units_too() -> None:
    """3 filters by 5 columns in blocks of 2 by 2: two rows of three, of which the last ones are cut by the edge."""
    pattern = Block(2, 2)
    assert pattern.size(1, 3, 5) == 6
    assert pattern.size(4, 3, 5) == 24
    given = torch.zeros(1, 3, 5)
    given[0, 2, 4] = 1
    corner = pattern.keep(given, 1)
    assert corner.nonzero().tolist() == [[0, 2, 4]]
    assert pattern.left(corner) == 1
    right = torch.zeros(1, 3, 5, dtype=torch.bool)
    right[0, 1, 4] = right[0, 1, 3] = True
    assert pattern.left(right) == 2


@pytest.mark.parametrize("pattern", [Single(), NofM(2, 2), Block(2, 2)])
def test_all_can_stay(pattern: Pattern) -> None:
    assert pattern.keep(scores(2, 4, 6), pattern.size(2, 4, 6)).all()


@pytest.mark.parametrize("pattern", [Single(), Block(2, 3), Block(4, 1)])
@pytest.mark.parametrize("left", [0, 1, 5])
def test_as_many_units_are_left_as_were_to_stay(pattern: Pattern, left: int) -> None:
    assert pattern.left(pattern.keep(scores(2, 5, 7), left)) == left
    assert pattern.counts() == ()


def test_a_layer_keeps_n_of_m_places_or_all() -> None:
    pattern = NofM(1, 4)
    assert (pattern.size(2, 3, 10), list(pattern.counts())) == (4, [3])
    given = scores(2, 3, 10)
    assert pattern.left(pattern.keep(given, 1)) == 1
    assert pattern.left(pattern.keep(given, 4)) == 4
    some = pattern.keep(given, 1)
    some[0, 0] = False
    assert pattern.left(some) == 1  # fewer in some parts are not fewer places
    some[1, 2, 8:] = True
    assert pattern.left(some) == 4  # two of a part that may hold one: the layer isn't sparse in that way


@pytest.mark.parametrize(("pattern", "left"), [(Single(), 12), (Block(1, 2), 8), (NofM(2, 4), 2), (NofM(2, 4), 4)])
def test_what_is_gone_stays_gone_and_takes_nobody_s_place(pattern: Pattern, left: int) -> None:
    given = scores(2, 3, 8)
    alive = given < given.median()  # the largest are gone
    chosen = choose(pattern, given, left, alive)
    assert not (chosen & ~alive).any()
    if isinstance(pattern, NofM):
        fewer = alive.unflatten(2, (2, 4)).sum(-1).clamp(max=left)
        assert torch.equal(chosen.unflatten(2, (2, 4)).sum(-1), fewer)
    else:
        units = torch.where(alive, given, 0.0)
        pooled = units.unflatten(2, (4, 2)).sum(-1) if isinstance(pattern, Block) else units
        assert pattern.left(chosen) == left
        assert given[chosen].sum() == pooled.flatten().sort(descending=True).values[:left].sum()


def test_no_more_stay_than_are_left() -> None:
    alive = torch.zeros(1, 2, 6, dtype=torch.bool)
    alive[0, 1, :3] = True
    assert torch.equal(choose(Single(), scores(1, 2, 6), 9, alive), alive)


def test_neighbours_are_input_channels_at_one_place_of_the_kernel() -> None:
    channels, places = 6, 9
    given = scores(2, 3, channels * places)
    chosen = NofM(2, 4).of_kernel(places).keep(given, 2)
    for place in range(places):
        there = chosen[:, :, place::places]
        assert torch.equal(there, NofM(2, 4).keep(given[:, :, place::places].contiguous(), 2))
    assert NofM(2, 4).of_kernel(places).left(chosen) == 2
    assert NofM(2, 4).left(chosen) == 4  # along the columns as they lie it is none
