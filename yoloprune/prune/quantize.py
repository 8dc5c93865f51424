"""Weights of a model on grids of few bits: every convolution and connected layer, depthwise ones included.

Grid and rounding come from calibration images, front to back like zeros (sparsify.py): inputs as the network already
quantized gives them, targets from the one before. Weights that are 0 stay 0. Biases and batch norm keep their floats,
but for the constant that makes up for what rounding adds on average. Layers that share arrays are rounded to nearest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from yoloprune.darknet.grid import Grid
from yoloprune.darknet.model import Graph, Model
from yoloprune.darknet.network import build
from yoloprune.darknet.rounder import Rounder
from yoloprune.darknet.weights import Arrays
from yoloprune.prune.compensate import Fit, with_fit
from yoloprune.prune.grids import GRIDS
from yoloprune.prune.layer_problem import LayerProblem
from yoloprune.prune.layerwise import MEMORY, LayerwiseInputs
from yoloprune.prune.moments import LARGEST, Consumer, matrix
from yoloprune.prune.rounding import rounded
from yoloprune.prune.sparse_fit import REFITTING
from yoloprune.prune.sparsify import PER_COLUMN


@dataclass(frozen=True)
class Quantization:
    """How weights are put on a grid."""

    bits: int | Mapping[int, int]
    """Of a weight, 2 to 8; by layer, where they differ: layers that are not named keep their floats."""
    grid: str = "uniform"
    """One of GRIDS."""
    feedback: bool = True
    """Whether calibration images choose the rounding; else each weight takes the nearest value."""


def quantizable_layers(graph: Graph) -> dict[int, Consumer]:
    """The layers whose weights can be put on a grid, by index. Units of channels are no part of it: all are -1."""
    found = {}
    for layer in graph.layers:
        specs = {spec.name: spec.shape for spec in layer.tensors()}
        if layer.sums_channels and layer.shares is None and "weight" in specs:
            groups, columns = layer.groups_summed, int(np.prod(specs["weight"][1:]))
            found[layer.index] = Consumer(layer.index, groups, np.full((groups, columns), -1), 1)
    return found


def quantize(
    model: Model,
    how: Quantization,
    batches: Iterable[Tensor] = (),
    *,
    device: str | torch.device = "cpu",
    memory: int = MEMORY,
) -> tuple[Model, dict[int, Grid]]:
    """The model whose weights are exactly `grid.values(codes)` of the layers' grids, and these grids by index.

    Parameters
    ----------
    model
        The one before; it stays as it is.
    how
        Without images, and in layers whose moments would take more than LARGEST bytes or are no numbers, each weight
        takes the nearest value of a grid on which all errors count alike.
    batches
        Calibration images as network input [B,C,H,W].
    memory
        Bytes of activations that may be kept.
    """
    layers = quantizable_layers(model.graph)
    bits = how.bits if isinstance(how.bits, Mapping) else dict.fromkeys(layers, how.bits)
    dense, network = build(model, device), build(model, device)
    touched = model.graph.descendants({*bits, *model.graph.sharing})
    walk = LayerwiseInputs((dense, network), batches if how.feedback else (), touched, memory)
    changed: dict[int, Arrays] = {}
    grids: dict[int, Grid] = {}
    for index in sorted(bits):
        consumer, arrays = layers[index], model.weights.layers[index]
        weight = matrix(model, consumer).to(device)
        problem = None
        if walk.images and consumer.bytes <= LARGEST and index not in model.graph.sharing:
            problem = LayerProblem.of(weight, walk.moments(consumer, PER_COLUMN), weight != 0)
        grids[index], changed[index] = quantized_layer(arrays, weight, problem, bits[index], how.grid)
        network.set_arrays(index, changed[index])
    return model.with_arrays(changed), grids


def quantized_layer(
    arrays: Arrays, weight: Tensor, problem: LayerProblem | None, bits: int, grid: str
) -> tuple[Grid, Arrays]:
    """Grid and arrays of one layer; weight: [groups, n, D]. Without a problem, the nearest values."""
    if problem is None or not problem.tells:
        found = GRIDS[grid](weight.flatten(0, 1), torch.ones_like(weight.flatten(0, 1)), bits)
        return found, {**arrays, "weight": on_grid(found, arrays["weight"])}
    alive = problem.alive
    start = problem.weights(problem.solved(alive, problem.dense, REFITTING)) * alive.mT
    importance = (problem.columns / problem.outputs).square().mT
    found = GRIDS[grid](start.flatten(0, 1), importance.expand_as(start).flatten(0, 1), bits)
    values = rounded(problem, start, Rounder.of(found, len(weight), weight))
    exact = on_grid(found, values.cpu().numpy().astype(np.float32).reshape(arrays["weight"].shape))
    fitted = torch.from_numpy(exact).to(start).view_as(start)
    every = np.ones(len(exact), np.bool_)
    return found, with_fit(arrays, Fit(fitted, problem.constant(fitted)), every)


def on_grid(grid: Grid, weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """The nearest values, the same shape; 0 stays 0."""
    return grid.values(grid.nearest(weight))
