"""Rounding to the values of a grid, in torch: on any device, and in more than float32."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from yoloprune.darknet.grid import Grid


@dataclass(frozen=True, eq=False)
class Rounder:
    """To the nearest value of a grid; in float32 exactly what `grid.values(grid.nearest(..))` gives, but for ties."""

    scales: Tensor | None
    """[..., n, 1] for values [..., n, K]."""
    largest: int
    codebook: Tensor
    """Ascending; empty beside scales."""

    @classmethod
    def of(cls, grid: Grid, groups: int, like: Tensor) -> Rounder:
        """For a layer's weights as [groups, n, D], of the kind and on the device of `like`."""
        if grid.scales is None:
            assert grid.codebook is not None
            return cls(None, 0, torch.from_numpy(np.sort(grid.codebook)).to(like))
        scales = torch.from_numpy(grid.scales).to(like)
        return cls(scales.view(groups, -1, 1), grid.largest, scales[:0])

    def __call__(self, values: Tensor) -> Tensor:
        """The nearest, the same shape; never a negative zero."""
        if self.scales is None:
            return self.codebook[torch.bucketize(values.contiguous(), (self.codebook[1:] + self.codebook[:-1]) / 2)]
        codes = torch.where(self.scales > 0, values / self.scales, 0).round().clamp(-self.largest, self.largest)
        return codes * self.scales + 0.0

    def clamp(self, values: Tensor) -> Tensor:
        """Into the range of the grid, the same shape."""
        if self.scales is None:
            return values.clamp(self.codebook[0], self.codebook[-1])
        most = self.largest * self.scales
        return torch.minimum(torch.maximum(values, -most), most)

    def by_rows(self, rows: Tensor) -> Rounder:
        """For some of the outputs, each by itself [R, 1, K]; rows: their numbers [R] over all groups."""
        return Rounder(None if self.scales is None else self.scales.view(-1, 1, 1)[rows], self.largest, self.codebook)
