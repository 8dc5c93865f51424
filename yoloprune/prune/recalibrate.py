"""Batch norm's statistics of a cut network, measured anew: what others do instead of refitting (`--bn-recalibrate`).

Weights stay as they are. Front to back, so that every layer sees inputs as they will be.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from yoloprune.darknet.layers.convolution import Affine
from yoloprune.darknet.model import Model
from yoloprune.darknet.network import build
from yoloprune.prune.channels import Channels, KeepAtoms
from yoloprune.prune.slim import mask, mesh
from yoloprune.prune.walk import MEMORY, Walk, touched_by


def recalibrate(
    model: Model,
    channels: Channels,
    keep: KeepAtoms,
    batches: Iterable[Tensor],
    *,
    device: str | torch.device = "cpu",
    memory: int = MEMORY,
) -> Model:
    """Masked; mean and variance of each kept filter whose input has changed are those over all pictures.

    batches: calibration pictures as network input [B,C,H,W]. As Darknet has it, a sum of squares over M places is
    divided by M - 1. memory: bytes of activations that may be kept.
    """
    masked = mask(model, channels, keep)
    network = build(masked, device)
    walk = Walk([network], batches, touched_by(model, masked), memory)
    disturbed = _disturbed(model, masked, channels, keep)
    for layer, module in zip(model.graph.layers, network.layers, strict=True):
        if not (isinstance(module, Affine) and module.normalized and layer.index in disturbed):
            continue
        count, total, squares = 0, torch.zeros_like(module.mean).double(), torch.zeros_like(module.mean).double()
        with torch.no_grad():
            for (x,) in walk.inputs(layer.index):
                raw = module.linear(x, module.weight, None).double()
                count += raw.numel() // raw.shape[1]
                total += raw.sum((0, 2, 3))
                squares += raw.square().sum((0, 2, 3))
            mean = total / count
            kept = torch.from_numpy(channels.kept_outputs(layer.index, keep)).to(mean.device)
            variance = (squares - count * mean**2).clamp(min=0) / max(count - 1, 1)
            module.mean.copy_(torch.where(kept, mean.float(), module.mean))
            module.variance.copy_(torch.where(kept, variance.float(), module.variance))
    return masked.with_weights(network.get_weights(model.weights.header))


def _disturbed(model: Model, masked: Model, channels: Channels, keep: KeepAtoms) -> set[int]:
    """Layers in which something that stays has other weights or other inputs than before the cut."""
    changed = []
    for layer, old, new in zip(model.graph.layers, model.weights.layers, masked.weights.layers, strict=True):
        every = [np.ones(shape.c, np.bool_) for shape in layer.source_shapes]
        left = layer.narrow(every, channels.kept_outputs(layer.index, keep))
        at = {spec.name: mesh(spec, left) for spec in layer.tensors()}
        if not all(np.array_equal(old[name][at[name]], new[name][at[name]]) for name in old):
            changed.append(layer.index)
    return model.graph.behind(changed)
