"""How a share of all weights is divided among layers, by the weights alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

Weights = Mapping[int, NDArray[np.floating]]
"""Of layers by index, each in its own shape."""


def uniform(weights: Weights, share: float) -> dict[int, float]:
    """The share of each layer's weights that stays where a `share` of all is to: the same of each."""
    return dict.fromkeys(weights, share)


def global_magnitude(weights: Weights, share: float) -> dict[int, float]:
    """Likewise: those that are over one magnitude for all layers (Han et al. 2015)."""
    return _over_one_score(weights, share, np.abs)


def lamp(weights: Weights, share: float) -> dict[int, float]:
    """Likewise: over one score, a weight's square over the sum of those that are no smaller in its layer (Lee et al.
    2021, "Layer-adaptive Sparsity for the Magnitude-based Pruning").
    """

    def scores(array: NDArray[np.floating]) -> NDArray[np.floating]:
        squares = np.sort(array.astype(np.float64) ** 2)
        return squares / np.maximum(np.cumsum(squares[::-1])[::-1], np.finfo(np.float64).tiny)

    return _over_one_score(weights, share, lambda array: scores(array.ravel()))


def erk(weights: Weights, share: float) -> dict[int, float]:
    """Likewise: in proportion to the sum of a layer's dimensions over their product, 1 at the most (Evci et al. 2020,
    "Rigging the Lottery": Erdos-Renyi kernel).
    """
    sizes = {index: array.size for index, array in weights.items()}
    raw = {index: sum(array.shape) / array.size for index, array in weights.items()}
    left, dense = share * sum(sizes.values()), set[int]()
    while True:
        open_ones = sizes.keys() - dense
        room = left - sum(sizes[index] for index in dense)
        scale = room / max(sum(raw[index] * sizes[index] for index in open_ones), np.finfo(np.float64).tiny)
        full = {index for index in open_ones if scale * raw[index] > 1}
        if not full:
            return {index: 1.0 if index in dense else scale * raw[index] for index in sizes}
        dense |= full


WEIGHT_ALLOCATIONS: Final[Mapping[str, Callable[[Weights, float], dict[int, float]]]] = {
    "uniform": uniform,
    "global": global_magnitude,
    "lamp": lamp,
    "erk": erk,
}
"""By the names that the command line has for them."""


def _over_one_score(
    weights: Weights, share: float, score: Callable[[NDArray[np.floating]], NDArray[np.floating]]
) -> dict[int, float]:
    """The share of each layer that is among the share of all with the largest scores; of equal ones all or none."""
    scores = {index: score(array).ravel() for index, array in weights.items()}
    everything = np.sort(np.concatenate(list(scores.values())))
    place = len(everything) - round(share * len(everything))
    least = everything[place] if place < len(everything) else np.inf
    return {index: int((each >= least).sum()) / each.size for index, each in scores.items()}
