"""Grids against cases counted by hand, and what least squares and k-means promise, in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from yoloprune.prune.grids import GRIDS, kmeans_grid, uniform_grid


def drawn(filters: int, columns: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Weights with a heavy tail, and importances."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(filters, columns, generator=generator, dtype=torch.float64) ** 3
    return weight, torch.rand(filters, columns, generator=generator, dtype=torch.float64) + 0.01


def error(weight: Tensor, importance: Tensor, values: np.ndarray) -> np.ndarray:
    """Of each filter [N]."""
    return (importance.numpy() * (weight.numpy() - values) ** 2).sum(1)


@pytest.mark.parametrize("bits", range(2, 9))
def test_scales_of_weights_that_are_on_a_grid(bits: int) -> None:
    generator = np.random.default_rng(bits)
    largest = 2 ** (bits - 1) - 1
    codes = generator.integers(-largest, largest + 1, (5, 30))
    codes[:, 7] = largest
    scales = generator.uniform(0.1, 2, 5)
    importance = torch.from_numpy(generator.uniform(0.1, 2, codes.shape))
    grid = uniform_grid(torch.from_numpy(codes * scales[:, None]), importance, bits)
    np.testing.assert_allclose(grid.scales, scales, rtol=1e-6)


def test_scale_by_hand() -> None:
    """Two bits are -s, 0 and s. Four and three ones: s = 4 loses 3, s = 7/4 loses 2.25^2 + 3 * 0.75^2 = 6.75.

    Where the four hardly matters, s is the mean of all, (0.01 * 4 + 3) / 3.01.
    """
    weight = torch.tensor([[4.0, 1, -1, 1], [4.0, 1, -1, 1], [0, 0, 0, 0]], dtype=torch.float64)
    importance = torch.ones_like(weight)
    importance[1, 0] = 0.01
    grid = uniform_grid(weight, importance, 2)
    np.testing.assert_allclose(grid.scales, [4, 3.04 / 3.01, 0], rtol=1e-6)


@pytest.mark.parametrize("bits", range(2, 9))
def test_a_scale_loses_no_more_than_any_clipped_range(bits: int) -> None:
    weight, importance = drawn(6, 40, bits)
    grid = uniform_grid(weight, importance, bits)
    narrow = weight.numpy().astype(np.float32)
    lost = error(weight, importance, grid.values(grid.nearest(narrow)))
    largest = 2 ** (bits - 1) - 1
    for share in np.arange(1, 0.29, -0.05):
        scale = np.abs(weight.numpy()).max(1, keepdims=True) * share / largest
        plain = np.clip(np.rint(weight.numpy() / scale), -largest, largest) * scale
        assert (lost <= error(weight, importance, plain) * (1 + 1e-4)).all()


def test_values_stay_finite_at_the_end_of_float32() -> None:
    most = np.finfo(np.float32).max
    weight = torch.tensor([[most, -most, most / 2]], dtype=torch.float64)
    for make in GRIDS.values():
        grid = make(weight, torch.ones_like(weight), 3)
        values = grid.values(grid.nearest(weight.numpy().astype(np.float32)))
        np.testing.assert_allclose(values, weight, rtol=0.35)  # half is 1 or 2 of 3 steps


def test_codebook_by_hand() -> None:
    """From -2.2, 0.4 and 3: two weights, two, and one; the one next to 0 is left to it."""
    weight = torch.tensor([[-2, -2.2, 1, 0], [1.2, 3, 0, 0.1]], dtype=torch.float64)
    importance = torch.ones_like(weight)
    assert kmeans_grid(weight, importance, 2).codebook == pytest.approx([0, -2.1, 1.1, 3])
    importance[1, 0] = 3
    assert kmeans_grid(weight, importance, 2).codebook == pytest.approx([0, -2.1, (1 + 3 * 1.2) / 4, 3])


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("seed", range(3))
def test_entries_are_means_of_what_is_next_to_them(bits: int, seed: int) -> None:
    weight, importance = drawn(5, 40, seed)
    weight[torch.rand(weight.shape, generator=torch.Generator().manual_seed(seed)) < 0.5] = 0
    book = kmeans_grid(weight, importance, bits).codebook
    assert book is not None
    assert book[0] == 0
    flat, counts = weight.numpy()[weight.numpy() != 0], importance.numpy()[weight.numpy() != 0]
    nearest = np.abs(flat[:, None] - book.astype(np.float64)).argmin(1)
    assert len(set(nearest.tolist())) > 2
    for entry in set(nearest.tolist()) - {0}:
        own = nearest == entry
        assert book[entry] == pytest.approx((counts * flat)[own].sum() / counts[own].sum(), rel=1e-5)


def test_a_layer_of_zeros() -> None:
    weight = torch.zeros(2, 3, dtype=torch.float64)
    for make in GRIDS.values():
        grid = make(weight, torch.ones_like(weight), 4)
        assert not grid.values(grid.nearest(weight.numpy().astype(np.float32))).any()
