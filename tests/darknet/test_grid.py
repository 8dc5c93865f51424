"""Grids of quantized weights: nearest values against a search of all, values by hand."""

from __future__ import annotations

import numpy as np
import pytest

from yoloprune.darknet.grid import Grid


def test_values_by_hand() -> None:
    grid = Grid(3, np.array([0.5, 2], np.float32))
    codes = np.array([[0, 1, 3, 5], [7, 6, 2, 0]], np.uint8)
    assert grid.values(codes).tolist() == [[0, 0.5, 1.5, -1.5], [-2, -4, 4, 0]]
    book = Grid(2, codebook=np.array([0, -1, 8, 3], np.float32))
    assert book.values(np.array([[3, 0], [1, 2]], np.uint8)).tolist() == [[3, 0], [-1, 8]]


@pytest.mark.parametrize("bits", range(2, 9))
def test_nearest_of_all(bits: int) -> None:
    rng = np.random.default_rng(bits)
    weight = rng.normal(size=(5, 7, 3, 3)).astype(np.float32)
    book = rng.normal(size=2**bits).astype(np.float32)
    book[0] = 0
    uniform, kmeans = Grid(bits, rng.uniform(0.01, 1, 5).astype(np.float32)), Grid(bits, codebook=book)
    assert uniform.scales is not None
    q = np.arange(-uniform.largest, uniform.largest + 1)
    choices = uniform.scales[:, None, None, None, None].astype(np.float64) * q
    for grid, all_values in ((uniform, choices), (kmeans, book.astype(np.float64))):
        off = np.abs(weight[..., None] - all_values)
        found = np.abs(weight - grid.values(grid.nearest(weight)).astype(np.float64))
        assert np.allclose(found, off.min(-1), rtol=0, atol=1e-6)  # values of a uniform grid are rounded to float32


@pytest.mark.parametrize("bits", range(2, 9))
def test_values_are_their_own_nearest(bits: int) -> None:
    """Bit by bit, also with scales that are 0, the smallest, or so large that no value more is finite."""
    rng = np.random.default_rng(bits)
    least = np.finfo(np.float32).tiny
    scales = np.array([0, least, 2 * least, 1e-37, 0.1, 3, np.finfo(np.float32).max / 128], np.float32)
    grid = Grid(bits, scales)
    codes = (rng.integers(-grid.largest, grid.largest + 1, (7, 50)) % 2**bits).astype(np.uint8)
    codes[0] = 0
    values = grid.values(codes)
    assert np.array_equal(grid.nearest(values), codes)
    assert np.array_equal(grid.nearest(values * np.float32(1 + 1e-6)), codes)
    book = rng.normal(size=2**bits).astype(np.float32)
    book[0] = 0
    grid = Grid(bits, codebook=book)
    codes = rng.integers(0, 2**bits, (3, 40)).astype(np.uint8)
    assert np.array_equal(grid.nearest(grid.values(codes)), codes)


ONE = np.ones(1, np.float32)


@pytest.mark.parametrize(
    ("bits", "scales", "codebook", "expected"),
    [
        (1, ONE, None, "bits: expected 2 to 8, found 1"),
        (9, ONE, None, "bits: expected 2 to 8, found 9"),
        (4, None, None, "either"),
        (2, ONE, np.zeros(4, np.float32), "either"),
        (4, -ONE, None, "scales: expected 0"),
        (4, np.full(1, 256, np.uint32).view(np.float32), None, "scales: expected 0, or 1.17549e-38"),
        (4, np.float32(-0.0) * ONE, None, "scales: expected 0"),
        (4, ONE * np.float32(np.nan), None, "scales: expected 0"),
        (8, ONE * np.float32(3e38), None, "scales: expected 0"),
        (4, np.ones(1), None, "scales: expected float32"),
        (2, None, np.zeros(3, np.float32), "codebook: expected float32 of shape"),
        (2, None, np.ones(4, np.float32), "codebook: expected finite values, the first 0"),
    ],
)
def test_what_is_no_grid(bits: int, scales: object, codebook: object, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        Grid(bits, scales, codebook)  # type: ignore[arg-type]


def test_scales_of_another_layer() -> None:
    with pytest.raises(ValueError, match="array of 1 filters"):
        Grid(4, ONE).nearest(np.zeros((2, 3), np.float32))


@pytest.mark.parametrize("bits", [2, 3, 8])
def test_near_a_weight_and_still_rounded_to_a_value(bits: int) -> None:
    """Of a fine ladder of points between the value and the weight, the last that is within the share."""
    rng = np.random.default_rng(bits)
    book = np.append(0, rng.normal(size=2**bits - 1)).astype(np.float32)
    for grid in (Grid(bits, rng.uniform(0.5, 1, 5).astype(np.float32)), Grid(bits, codebook=book)):
        weight = rng.normal(0, 2, (5, 40)).astype(np.float32)
        codes = grid.nearest(weight + rng.normal(0, 0.5, weight.shape).astype(np.float32))
        values = grid.values(codes)
        found = grid.near(values, weight, 0.8)
        np.testing.assert_array_equal(grid.values(grid.nearest(found)), values)
        known = [code for code in range(2**bits) if grid.codebook is not None or code != grid.largest + 1]
        every = [grid.values(np.full((5, 1), code, np.uint8))[:, 0] for code in known]
        for row, column in np.ndindex(5, 40):
            value = values[row, column]
            gaps = [other[row] - value for other in every if other[row] != value]
            up = min((gap for gap in gaps if gap > 0), default=None)
            if up is None or weight[row, column] < value:
                continue
            expected = min(weight[row, column], value + 0.4 * up)
            assert found[row, column] == pytest.approx(expected, rel=1e-5, abs=1e-6)
