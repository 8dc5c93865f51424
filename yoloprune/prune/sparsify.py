"""Zeros in a model of unchanged shape: in every layer that sums over channels, so many units stay, by a pattern.

Choice and values come from calibration images, front to back: inputs as the network already sparse gives them, targets
from the dense one. Biases, scales and running statistics are no weights; depthwise layers and those that share arrays
stay dense.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from yoloprune.choices import WITHOUT_IMAGES
from yoloprune.darknet.model import Graph, Model
from yoloprune.darknet.network import build
from yoloprune.darknet.weights import Arrays
from yoloprune.prune.channels import trace
from yoloprune.prune.compensate import with_fit
from yoloprune.prune.layer_problem import LayerProblem
from yoloprune.prune.layerwise import MEMORY, LayerwiseInputs
from yoloprune.prune.moments import LARGEST, Consumer, all_consumers, matrix
from yoloprune.prune.patterns import Pattern
from yoloprune.prune.sparse_fit import SparseFit, magnitude_fit, sparse_fit

PER_COLUMN: Final = 256
"""Places that are sampled for each column of narrow layers: the choice of weights needs more of them than that of
channels. With 64, mbv2-nano-coco at 2:4 had 0.288 instead of 0.282 of its outputs' variance wrong on other images."""

KeptWeights = Mapping[int, NDArray[np.bool_]]
"""For layers by index, which weights are left, in the shape of the layer's array."""


def sparse_layers(graph: Graph) -> dict[int, Consumer]:
    """The layers whose weights can go, by index."""
    return all_consumers(graph, trace(graph))


@dataclass(frozen=True)
class Sparsification:
    """How weights are chosen, and what the others become."""

    pattern: Pattern
    criterion: str = "alps"
    """One of WEIGHT_CRITERIA."""
    refit: bool = True
    """Whether those that stay get new values."""

    @property
    def needs_images(self) -> bool:
        """Whether weights alone don't tell."""
        return self.refit or self.criterion not in WITHOUT_IMAGES


def sparsify(
    model: Model,
    left: Mapping[int, int],
    kept: KeptWeights,
    how: Sparsification,
    batches: Iterable[Tensor] = (),
    *,
    device: str | torch.device = "cpu",
    memory: int = MEMORY,
) -> tuple[Model, dict[int, NDArray[np.bool_]]]:
    """The model in which so many units are left in each of these layers, and which weights those are.

    Parameters
    ----------
    model
        The one before; it stays as it is.
    left
        For layers of `sparse_layers` by index, how many of the pattern's units stay.
    kept
        What is left of their weights before.
    how
        Without images, and in layers whose moments would take more than LARGEST bytes, the largest weights stay as they
        are (Han et al. 2015).
    batches
        Calibration images as network input [B,C,H,W].
    memory
        Bytes of activations that may be kept.
    """
    dense, sparse = build(model, device), build(model, device)
    known = sparse_layers(model.graph)
    seen = with_mirrored(model.graph, batches)
    walk = LayerwiseInputs((dense, sparse), seen, model.graph.descendants(list(left)), memory)
    changed: dict[int, Arrays] = {}
    chosen: dict[int, NDArray[np.bool_]] = {}
    for index in sorted(left):
        consumer, weight = known[index], matrix(model, known[index]).to(device)
        pattern = how.pattern.of_kernel(places(kept[index]))
        alive = matrix_of(kept[index], consumer).to(device)
        if walk.images and consumer.bytes <= LARGEST:
            problem = LayerProblem.of(weight, walk.moments(consumer, PER_COLUMN), alive)
            found = sparse_fit(problem, left[index], pattern, how.criterion, refit=how.refit)
        else:
            found = magnitude_fit(weight, alive, left[index], pattern)
        changed[index] = fitted_arrays(model.weights.layers[index], found)
        chosen[index] = found.kept.cpu().numpy().reshape(kept[index].shape)
        sparse.set_arrays(index, changed[index])
    return model.with_arrays(changed), chosen


def with_mirrored(graph: Graph, batches: Iterable[Tensor]) -> list[Tensor]:
    """Batches [B,C,H,W], and where training mirrors images, too (`flip` in [net]), their mirror images.

    The choice of weights rests on many more numbers than that of channels: with mirror images mbv2-nano-coco lost 5 %
    less of its outputs' variance on other images at 50 % off, yolo-fastest-1.1 3 %.
    """
    images = list(batches)
    return [*images, *(batch.flip(3) for batch in images)] if graph.net.flip else images


def fitted_arrays(arrays: Arrays, found: SparseFit) -> Arrays:
    """A layer's arrays with the weights that were found for it."""
    return with_fit(arrays, found.fit, np.ones(len(arrays["weight"]), np.bool_))


def places(kept: NDArray[np.bool_]) -> int:
    """Of a layer's kernel; a connected layer has one, whatever map it reads."""
    return math.prod(kept.shape[2:])


def matrix_of(kept: NDArray[np.bool_], consumer: Consumer) -> Tensor:
    """What is left of a layer's weights as [groups, N/groups, D]."""
    return torch.from_numpy(kept).reshape(consumer.groups, len(kept) // consumer.groups, -1)
