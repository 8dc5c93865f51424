"""Grids found in weights against the grids that the weights were made of."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from yoloprune.darknet.exact import exact_codes
from yoloprune.darknet.grid import Grid


def found(weight: NDArray[np.float32]) -> Grid:
    """The grid, of which the codes are the weights bit by bit."""
    answer = exact_codes(weight)
    assert answer is not None
    grid, codes = answer
    assert grid.values(codes).tobytes() == weight.tobytes()
    return grid


@pytest.mark.parametrize("bits", range(2, 9))
def test_multiples_of_a_scale_for_each_filter(bits: int) -> None:
    """Whatever the scale, and whichever multiples there are; more bits than it was are never needed."""
    rng = np.random.default_rng(bits)
    largest = 2 ** (bits - 1) - 1
    for _ in range(30):
        filters, columns = rng.integers(2, 12), rng.integers(9, 70)
        scales = rng.lognormal(-3, 4, filters).astype(np.float32)
        q = rng.integers(-largest, largest + 1, (filters, columns))
        q[rng.random(q.shape) < rng.choice((0, 0.5, 0.9))] = 0
        q[:, :3] = rng.choice((-largest, largest))  # so many that codes are fewer bytes than floats
        grid = Grid(bits, scales)
        weight = grid.values((q % 2**bits).astype(np.uint8))
        if bits == 8:  # fewer values may have a codebook of fewer bytes
            assert found(weight).scales is not None
        assert found(weight).bits <= bits


def test_the_least_multiples_are_found() -> None:
    """Of 6 and 9 scales 2 and 3 of three, unless these round to others; one size is its own scale, zeros have 0."""
    scales = np.random.default_rng(0).lognormal(-9, 9, 60).astype(np.float32)
    multiples = np.tile([6, -9, 0], (60, 20)).astype(np.float32)
    multiples[5] = np.tile([7, 1, -4], 20)
    multiples[6:8] = [[5], [0]]
    grid = found(scales[:, None] * multiples)
    assert grid.scales is not None
    three = np.float32(3) * scales
    rounds_alike = (2 * three == 6 * scales) & (3 * three == 9 * scales)
    expected = np.where(rounds_alike, three, grid.scales)
    expected[5:8] = scales[5], 5 * scales[6], 0
    np.testing.assert_allclose(grid.scales, expected, rtol=1e-6)
    assert rounds_alike.sum() > 20
    assert grid.bits == 5


@pytest.mark.parametrize("entries", [2, 3, 4, 5, 128, 255])
def test_codebooks(entries: int) -> None:
    """Of so many values and 0, the fewest bits; negative ones, too."""
    rng = np.random.default_rng(entries)
    book = rng.normal(size=entries).astype(np.float32)
    weight = book[rng.integers(0, entries, (7, 400))]
    weight[0, :entries], weight[1, ::3] = book, 0
    grid = found(weight)
    assert grid.codebook is not None
    assert grid.bits == max(2, int(np.ceil(np.log2(entries + 1))))
    assert set(book.tolist()) <= set(grid.codebook.tolist())


def test_denormals_have_a_codebook_and_no_scale() -> None:
    weight = (np.arange(300, dtype=np.uint32) % 5 + 1).view(np.float32).reshape(3, 100)
    assert found(weight).codebook is not None


def test_what_is_on_no_grid() -> None:
    rng = np.random.default_rng(0)
    grid = Grid(4, np.full(6, 0.1, np.float32))
    on = grid.values(rng.integers(1, 8, (6, 500)).astype(np.uint8))
    assert exact_codes(on) is not None
    for value in (-0.0, np.inf, np.nan):
        odd = on.copy()
        odd[3, 77] = value
        assert exact_codes(odd) is None
    many = np.array([1, 128], np.float32) * np.ones((300, 1), np.float32) + np.arange(300, dtype=np.float32)[:, None]
    for weight in (
        rng.normal(size=(40, 9)).astype(np.float32),
        rng.normal(size=(3, 5000)).astype(np.float32),
        np.where(np.arange(600).reshape(6, 100) % 7 == 3, np.nextafter(on[:, :100], 9), on[:, :100])
        * np.geomspace(1, 3, 600).astype(np.float32).reshape(6, 100),
        np.zeros((3, 4), np.float32),  # nothing to save
        np.zeros((3, 0), np.float32),
        rng.normal(size=(50, 1)).astype(np.float32),  # a scale each
        many,
    ):
        assert exact_codes(weight.astype(np.float32)) is None


def test_weights_that_are_looked_at_in_parts() -> None:
    rng = np.random.default_rng(1)
    scales = rng.uniform(0.01, 1, 1500).astype(np.float32)
    grid = Grid(6, scales)
    weight = grid.values(rng.integers(0, 32, (1500, 400)).astype(np.uint8))
    assert found(weight).bits == 6
    weight[1499, 399] *= np.float32(1.0001)
    assert exact_codes(weight) is None
