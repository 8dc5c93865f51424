"""The grid that a layer's weights lose least on, each rounded by itself.

What a weight's error costs is its square times an importance: with second moments of the inputs their diagonal, which
is what the layer's output loses as far as its inputs are not correlated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from yoloprune.darknet.grid import Grid

_CLIPPED: Final = tuple(1 - step / 20 for step in range(15))
"""Shares of a filter's largest weight that the largest value of its grid is tried at first ..."""
_REFITS: Final = 2
"""... and how often each then takes the scale of least squares for its codes."""
_LLOYD: Final = 100
"""Steps of k-means, at the most."""


def uniform_grid(weight: Tensor, importance: Tensor, bits: int) -> Grid:
    """For each filter the scale of least error: of several clipped ranges, each refitted by least squares.

    weight: [N, D] float64. importance: the same shape, 0 or more.
    """
    largest = 2 ** (bits - 1) - 1
    top = weight.abs().amax(1, keepdim=True)
    scales, least = torch.zeros_like(top), torch.full_like(top, torch.inf)
    for share in _CLIPPED:
        scale = top * share / largest
        for _ in range(_REFITS):
            scale = _scale(weight, importance, _codes(weight, scale, largest), scale)
        error = (importance * (weight - _codes(weight, scale, largest) * scale).square()).sum(1, keepdim=True)
        scales = torch.where(error < least, scale, scales)
        least = torch.minimum(error, least)
    most = np.nextafter(np.finfo(np.float32).max / np.float32(largest), np.float32(0))  # so that every value is finite
    found = np.minimum(scales[:, 0].cpu().numpy().astype(np.float32), most)
    return Grid(bits, scales=np.where(found < np.finfo(np.float32).tiny, np.float32(0), found))


def _codes(weight: Tensor, scale: Tensor, largest: int) -> Tensor:
    return torch.where(scale > 0, weight / scale, 0).round().clamp(-largest, largest)


def _scale(weight: Tensor, importance: Tensor, codes: Tensor, before: Tensor) -> Tensor:
    """Of least squares; as before where all codes are 0, or no weight matters."""
    squares = (importance * codes.square()).sum(1, keepdim=True)
    return torch.where(squares > 0, (importance * codes * weight).sum(1, keepdim=True) / squares, before)


def kmeans_grid(weight: Tensor, importance: Tensor, bits: int) -> Grid:
    """One codebook for the layer by k-means, of which entry 0 stays 0.

    Han et al. 2016, "Deep Compression", 3: centroids start at even distances between the least and the largest weight,
    and Lloyd's steps move each to the mean of the weights next to it. Only weights that are not 0 take part; those next
    to 0 are left to it.

    weight: [N, D] float64. importance: the same shape, 0 or more.
    """
    ascending, order = weight[weight != 0].sort()
    counts = importance[weight != 0][order]
    if not len(ascending):
        return Grid(bits, codebook=np.zeros(2**bits, np.float32))
    ends = float(ascending[0]), float(ascending[-1])
    centroids = torch.linspace(*ends, 2**bits - 1, dtype=weight.dtype, device=weight.device)
    sums = [pad(each.cumsum(0), (1, 0)) for each in (counts, counts * ascending)]
    for _ in range(_LLOYD):
        entries, places = torch.cat([centroids, torch.zeros_like(centroids[:1])]).sort(stable=True)
        middles = torch.searchsorted(ascending, (entries[1:] + entries[:-1]) / 2)
        bounds = pad(pad(middles, (1, 0)), (0, 1), value=len(ascending))
        count, total = (each[bounds[1:]] - each[bounds[:-1]] for each in sums)
        means = torch.where(count > 0, total / count, entries)
        moved = torch.empty_like(means)
        moved[places] = means
        before, centroids = centroids, moved[:-1]
        if torch.equal(before, centroids):
            break
    codebook: NDArray[np.float32] = np.append(0, centroids.cpu().numpy()).astype(np.float32)
    return Grid(bits, codebook=codebook)


GRIDS: Final[Mapping[str, Callable[[Tensor, Tensor, int], Grid]]] = {"uniform": uniform_grid, "kmeans": kmeans_grid}
"""What `--grid` takes."""
