"""Training with weights on grids: the network computes with rounded weights, updates change those before rounding.

The gradient of a rounded weight is taken for that of the weight (the straight-through estimator: Bengio et al. 2013,
"Estimating or Propagating Gradients Through Stochastic Neurons"; for grids Jacob et al. 2018, "Quantization and
Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", 3). Grids stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from yoloprune.darknet.grid import Grid
from yoloprune.darknet.network import Network
from yoloprune.darknet.rounder import Rounder


class FakeQuantization:
    """Puts the weights of networks of one graph on grids, for as long as they compute."""

    def __init__(self, network: Network, grids: Mapping[int, Grid]) -> None:
        """grids: by layer. ValueError for one of another number of filters."""
        self._rounders: dict[int, Rounder] = {}
        for index, grid in grids.items():
            weight = _weight(network, index)
            if grid.scales is not None and len(grid.scales) != len(weight):
                raise ValueError(f"{network.graph.layers[index]}: grid: {len(grid.scales)} filters != {len(weight)}")
            self._rounders[index] = Rounder.of(grid, 1, weight.detach())

    @contextmanager
    def applied(self, network: Network) -> Iterator[None]:
        """Weights are values of their grids within the block, gradients too, and as they were behind it."""
        unrounded = {index: _weight(network, index).detach().clone() for index in self._rounders}
        self._set(network, {index: self._rounders[index](_rows(old)) for index, old in unrounded.items()})
        try:
            yield
        finally:
            self._set(network, unrounded)

    def enforce(self, network: Network) -> None:
        """Weights go back into the range of their grids: beyond it, no update would change what is computed."""
        weights = {index: _weight(network, index).detach() for index in self._rounders}
        self._set(network, {index: self._rounders[index].clamp(_rows(old)) for index, old in weights.items()})

    @torch.no_grad()
    def _set(self, network: Network, weights: Mapping[int, Tensor]) -> None:
        for index, new in weights.items():
            weight = _weight(network, index)
            weight.copy_(new.view_as(weight))


def _weight(network: Network, index: int) -> Tensor:
    weight = network.layers[index].weight
    assert isinstance(weight, Tensor)
    return weight


def _rows(weight: Tensor) -> Tensor:
    """[N, ...] -> [1, N, D]."""
    return weight.reshape(1, len(weight), -1)
