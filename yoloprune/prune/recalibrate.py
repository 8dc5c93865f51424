"""Batch norm's statistics of a pruned network, measured anew.

`recalibrate` does it instead of refitting, as others do (`--bn-recalibrate`): weights stay, the output changes, so it
goes front to back and every layer sees inputs as they will be. `restate` does it behind a refit: scale and bias change
with the statistics, so that the output stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from yoloprune.darknet.dialect import Dialect
from yoloprune.darknet.layers.affine import Affine
from yoloprune.darknet.layers.norm import fold, inverse_deviation
from yoloprune.darknet.model import Model
from yoloprune.darknet.network import build
from yoloprune.darknet.weights import Arrays
from yoloprune.prune.channels import Channels, KeepMask
from yoloprune.prune.layerwise import MEMORY, LayerwiseInputs, touched_by
from yoloprune.prune.slim import slice_index

LEAST_VARIANCE: Final = 0.01
"""Restated variances below the old ones are at least this, a thousand times the small number under the root: readers
add different ones (1e-5, 1e-6), and would compute different things."""


def recalibrate(
    model: Model,
    pruned: Model,
    channels: Channels,
    keep: KeepMask,
    batches: Iterable[Tensor],
    *,
    device: str | torch.device = "cpu",
    memory: int = MEMORY,
) -> Model:
    """`pruned` with mean and variance of each kept filter that computes otherwise than in `model` as over all pictures.

    keep: units that aren't masked. batches: calibration images as network input [B,C,H,W]. As Darknet has it, a sum of
    squares over M places is divided by M - 1. memory: bytes of activations that may be kept.
    """
    network = build(pruned, device)
    walk = LayerwiseInputs([network], batches, touched_by(model, pruned), memory)
    disturbed = _disturbed(model, pruned, channels, keep)
    for layer, module in zip(model.graph.layers, network.layers, strict=True):
        if not (isinstance(module, Affine) and module.normalized and layer.index in disturbed):
            continue
        sums = _Sums(module)
        with torch.no_grad():
            for (x,) in walk.inputs(layer.index):
                sums.add(x)
            mean, variance = sums.statistics()
            kept = torch.from_numpy(channels.kept_outputs(layer.index, keep)).to(mean.device)
            module.mean.copy_(torch.where(kept, mean.float(), module.mean))
            module.variance.copy_(torch.where(kept, variance.float(), module.variance))
    return pruned.with_weights(network.get_weights(model.weights.header))


def restate(
    model: Model,
    pruned: Model,
    channels: Channels,
    keep: KeepMask,
    batches: Iterable[Tensor],
    *,
    device: str | torch.device = "cpu",
) -> Model:
    """`pruned` with the statistics that it has on all pictures, and the same outputs.

    A refit gives each layer inputs much like before, but not their variance. Running statistics of before pruning are
    then wrong: training, which normalizes by those of its batch, would compute another network from the first step on.
    Here mean and variance of each kept filter that computes otherwise than in `model` become what they are, not below
    min(old variance, LEAST_VARIANCE); scale and bias give the same output with them. Sections other than
    [convolutional] and [connected], and those that share arrays, stay.

    batches: calibration images as network input [B,C,H,W].
    """
    network = build(pruned, device)
    sums: dict[int, _Sums] = {}
    with ExitStack() as hooks, torch.inference_mode():
        for index in sorted(_disturbed(model, pruned, channels, keep) - model.graph.sharing):
            module = network.layers[index]
            if isinstance(module, Affine) and module.normalized:
                sums[index] = _Sums(module)
                hooks.callback(module.register_forward_pre_hook(sums[index].hear).remove)
        for batch in batches:
            network(batch.to(device))
    changed: dict[int, Arrays] = {}
    for index, each in sums.items():
        if not each.count:
            continue  # no output of the network depends on it
        kept = channels.kept_outputs(index, keep)
        arrays = pruned.weights.layers[index]
        restated = _restated(arrays, *each.statistics(), model.graph.dialect)
        changed[index] = {
            name: np.where(kept, restated[name], array).astype(np.float32) if name in restated else array
            for name, array in arrays.items()
        }
    return pruned.with_arrays(changed)


def _restated(arrays: Arrays, mean: Tensor, variance: Tensor, dialect: Dialect) -> Mapping[str, NDArray[np.float64]]:
    """Batch norm's arrays [N] around another mean and variance, giving the same output."""
    old = {name: torch.from_numpy(arrays[name].astype(np.float64)) for name in ("scale", "bias", "mean", "variance")}
    mean, variance = mean.cpu(), torch.maximum(variance.cpu(), old["variance"].clamp(max=LEAST_VARIANCE))
    factor, offset = fold(**old, dialect=dialect)
    scale = factor / inverse_deviation(variance, dialect)
    restated = {"scale": scale, "bias": offset + factor * mean, "mean": mean, "variance": variance}
    return {name: values.numpy() for name, values in restated.items()}


class _Sums:
    """Of what a layer's batch norm normalizes, filter by filter, in float64."""

    def __init__(self, module: Affine) -> None:
        self.module, self.count = module, 0
        self.total, self.squares = (torch.zeros_like(module.mean, dtype=torch.float64) for _ in range(2))

    def add(self, x: Tensor) -> None:
        """The layer's input [B,C,H,W]."""
        raw = self.module.linear(x, self.module.weight, None).double()
        self.count += raw.numel() // raw.shape[1]
        self.total += raw.sum((0, 2, 3))
        self.squares += raw.square().sum((0, 2, 3))

    def hear(self, module: Any, inputs: tuple[Tensor, ...]) -> None:
        """As a hook of the layer."""
        self.add(inputs[0])

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Mean, and variance as Darknet has it: M - 1 for M places."""
        mean = self.total / self.count
        return mean, (self.squares - self.count * mean**2).clamp(min=0) / max(self.count - 1, 1)


def _disturbed(model: Model, masked: Model, channels: Channels, keep: KeepMask) -> set[int]:
    """Layers in which something that stays has other weights or other inputs than before pruning."""
    changed = []
    for layer, old, new in zip(model.graph.layers, model.weights.layers, masked.weights.layers, strict=True):
        every = [np.ones(shape.c, np.bool_) for shape in layer.source_shapes]
        left = layer.array_index(every, channels.kept_outputs(layer.index, keep))
        at = {spec.name: slice_index(spec, left) for spec in layer.tensors()}
        if not all(np.array_equal(old[name][at[name]], new[name][at[name]]) for name in old):
            changed.append(layer.index)
    return model.graph.descendants(changed)
