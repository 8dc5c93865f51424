"""Zeros in a model of unchanged shape: in every layer that sums over channels, so many weights stay, by a pattern.

Choice and values come from calibration images, front to back: inputs as the network already sparse gives them, targets
from the dense one. Biases, scales and running statistics are no weights; depthwise layers and those that share arrays
stay dense.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from yoloprune.darknet.layers.affine import Affine
from yoloprune.darknet.model import Graph, Model
from yoloprune.darknet.network import build
from yoloprune.darknet.weights import Arrays
from yoloprune.prune.channels import trace
from yoloprune.prune.compensate import with_fit
from yoloprune.prune.layerwise import MEMORY, LayerwiseInputs
from yoloprune.prune.moments import LARGEST, Collector, Consumer, all_consumers, matrix
from yoloprune.prune.patterns import Pattern
from yoloprune.prune.sparse_fit import magnitude_fit, sparse_fit


def sparse_layers(graph: Graph) -> dict[int, Consumer]:
    """The layers whose weights can go, by index."""
    return all_consumers(graph, trace(graph))


def sparsify(
    model: Model,
    kept: Mapping[int, int],
    pattern: Pattern,
    batches: Iterable[Tensor] = (),
    *,
    device: str | torch.device = "cpu",
    memory: int = MEMORY,
) -> Model:
    """The model with about `kept` weights left in each of these layers.

    Parameters
    ----------
    model
        The dense one; it stays as it is.
    kept
        For layers of `sparse_layers` by index, how many weights stay.
    pattern
        Which may stay together.
    batches
        Calibration images as network input [B,C,H,W]. Without any, and in layers whose moments would take more than
        LARGEST bytes, the largest weights stay as they are (Han et al. 2015).
    memory
        Bytes of activations that may be kept.
    """
    dense, sparse = build(model, device), build(model, device)
    known = sparse_layers(model.graph)
    walk = LayerwiseInputs((dense, sparse), batches, model.graph.descendants(list(kept)), memory)
    changed: dict[int, Arrays] = {}
    for index in sorted(kept):
        consumer, weight = known[index], matrix(model, known[index])
        if walk.images and consumer.bytes <= LARGEST:
            before, after = (cast(Affine, network.layers[index]) for network in (dense, sparse))
            collector = Collector(consumer, after, walk.images, before)
            for old, new in walk.inputs(index):
                collector.see(new, old)
            fit = sparse_fit(weight.to(device), collector.moments, kept[index], pattern)
        else:
            fit = magnitude_fit(weight, kept[index], pattern)
        arrays = model.weights.layers[index]
        changed[index] = with_fit(arrays, fit, np.ones(len(arrays["weight"]), np.bool_))
        sparse.set_arrays(index, changed[index])
    return model.with_arrays(changed)


def uniform(weights: Mapping[int, NDArray[np.floating]], share: float) -> dict[int, int]:
    """How many weights of each layer stay where a `share` of all is to: the same share of each."""
    return {index: round(share * array.size) for index, array in weights.items()}


def global_magnitude(weights: Mapping[int, NDArray[np.floating]], share: float) -> dict[int, int]:
    """Likewise: those that are over one magnitude for all layers (Han et al. 2015)."""
    return _over_one_score(weights, share, np.abs)


def lamp(weights: Mapping[int, NDArray[np.floating]], share: float) -> dict[int, int]:
    """Likewise: over one score, a weight's square over the sum of those that are no smaller in its layer (Lee et al.
    2021, "Layer-adaptive Sparsity for the Magnitude-based Pruning").
    """

    def scores(array: NDArray[np.floating]) -> NDArray[np.floating]:
        squares = np.sort(array.astype(np.float64) ** 2)
        return squares / np.maximum(np.cumsum(squares[::-1])[::-1], np.finfo(np.float64).tiny)

    return _over_one_score(weights, share, lambda array: scores(array.ravel()))


def erk(weights: Mapping[int, NDArray[np.floating]], share: float) -> dict[int, int]:
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
            return {
                index: sizes[index] if index in dense else round(scale * raw[index] * sizes[index]) for index in sizes
            }
        dense |= full


ALLOCATIONS: Final[Mapping[str, Callable[[Mapping[int, NDArray[np.floating]], float], dict[int, int]]]] = {
    "uniform": uniform,
    "global": global_magnitude,
    "lamp": lamp,
    "erk": erk,
}
"""How a share of all weights is divided among layers, by weights alone."""


def _over_one_score(
    weights: Mapping[int, NDArray[np.floating]],
    share: float,
    score: Callable[[NDArray[np.floating]], NDArray[np.floating]],
) -> dict[int, int]:
    """How many of each layer are among the share of all with the largest scores; of equal ones all or none."""
    scores = {index: score(array).ravel() for index, array in weights.items()}
    everything = np.sort(np.concatenate(list(scores.values())))
    place = len(everything) - round(share * len(everything))
    least = everything[place] if place < len(everything) else np.inf
    return {index: int((each >= least).sum()) for index, each in scores.items()}


def weights_of(model: Model) -> dict[int, NDArray[np.floating]]:
    """The weights of `sparse_layers`, by index."""
    return {index: model.weights.layers[index]["weight"] for index in sparse_layers(model.graph)}
