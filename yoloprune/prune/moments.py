"""Second moments of what a consumer's weights multiply: all that refitting and choosing channels need to know."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from yoloprune.darknet.layers.convolution import Affine
from yoloprune.darknet.model import Graph, Model
from yoloprune.darknet.network import Network
from yoloprune.prune.channels import Channels

SAMPLES_PER_COLUMN = 16
"""Positions used, at the most, for each column: more barely move the fit of a large kernel, and cost as much."""
MEMORY = 4 << 30
"""Bytes that the moments of a network may take."""


@dataclass(frozen=True)
class Consumer:
    """A layer that sums over channels, and which atom each of its columns belongs to."""

    layer: int
    groups: int
    atoms: NDArray[np.int64]
    """[groups, D]: the atom of the channel that a column comes from."""

    @property
    def columns(self) -> int:
        """D, weights of one filter."""
        return int(self.atoms.shape[1])

    @property
    def bytes(self) -> int:
        """Size of its moments."""
        return self.groups * (self.columns + 1) ** 2 * 8


def consumers(graph: Graph, channels: Channels) -> dict[int, Consumer]:
    """All consumers that a cut can touch: those that read channels of a group. A depthwise layer sums over none."""
    prunable = np.zeros(channels.atoms, np.bool_)
    for group in channels.groups:
        prunable[group.atoms] = True
    shared = {layer.shares for layer in graph.layers}
    found = {}
    for layer in graph.layers:
        if not layer.sums_channels or layer.shares is not None or layer.index in shared:
            continue  # two layers can't be refitted as one
        shapes = {spec.name: spec.shape for spec in layer.tensors()}
        atoms = channels.inputs[layer.index][0]
        columns = int(np.prod(shapes["weight"][1:]))
        groups = layer.groups_summed
        if len(atoms) > groups and prunable[atoms].any():
            by_group = atoms.reshape(groups, -1)
            found[layer.index] = Consumer(layer.index, groups, by_group.repeat(columns // by_group.shape[1], axis=1))
    return found


def affordable(wanted: Iterable[Consumer], memory: int = MEMORY) -> list[Consumer]:
    """Of these, the smallest ones whose moments fit in `memory` together; the others can only be cut plainly."""
    chosen = []
    for each in sorted(wanted, key=lambda each: each.bytes):
        memory -= each.bytes
        if memory >= 0:
            chosen.append(each)
    return chosen


def matrix(model: Model, consumer: Consumer) -> Tensor:
    """A consumer's weights as [groups, N/groups, D], float64."""
    weight = model.weights.layers[consumer.layer]["weight"]
    return torch.from_numpy(weight.astype(np.float64)).view(consumer.groups, -1, consumer.columns)


@dataclass(frozen=True)
class Moments:
    """Sums over samples, in float64; z = (columns, 1) is what the weights and a constant multiply, t the targets."""

    gram: Tensor
    """Sum of z z^T [groups, D+1, D+1]."""
    cross: Tensor
    """Sum of z t^T [groups, D+1, n]."""
    energy: Tensor
    """Sum of t^2 [groups, n]."""

    @classmethod
    def zero(cls, consumer: Consumer, targets: int, device: torch.device) -> Self:
        """No sample yet."""
        size = (consumer.groups, consumer.columns + 1)
        gram = torch.zeros(*size, consumer.columns + 1, dtype=torch.float64, device=device)
        cross = torch.zeros(*size, targets, dtype=torch.float64, device=device)
        return cls(gram, cross, torch.zeros(consumer.groups, targets, dtype=torch.float64, device=device))

    def add(self, columns: Tensor, targets: Tensor | None = None) -> None:
        """In place: columns [groups, D, M] of M samples, and what should come out of them [groups, n, M]."""
        z = torch.cat([columns, torch.ones_like(columns[:, :1])], 1).double()
        self.gram.baddbmm_(z, z.mT)
        if targets is not None:
            self.cross.baddbmm_(z, targets.double().mT)
            self.energy.add_(targets.double().square().sum(2))

    def asking_for(self, weight: Tensor) -> Self:
        """The same inputs, and as targets what `weight` [groups, n, D] makes of them."""
        cross = self.gram[:, :, :-1] @ weight.mT
        return replace(self, cross=cross, energy=(weight * cross[:, :-1].mT).sum(2))


def sampled(columns: Tensor, most: int, generator: torch.Generator) -> Tensor | slice:
    """Which of the samples [.., M] to use: all, or `most` of them drawn at random."""
    if columns.shape[2] <= most:
        return slice(None)
    drawn = torch.randperm(columns.shape[2], generator=generator)[:most]
    return drawn.to(columns.device)


def collect(
    network: Network, batches: Iterable[Tensor], wanted: Sequence[Consumer], images: int, seed: int = 0
) -> dict[int, Moments]:
    """Moments of the inputs of `wanted`, over batches [B,C,H,W] of `images` in all; one pass, nothing else kept."""
    generator = torch.Generator().manual_seed(seed)
    device = next(network.parameters()).device
    moments = {each.layer: Moments.zero(each, 0, device) for each in wanted}
    handles = []
    for each in wanted:
        module = cast(Affine, network.layers[each.layer])
        share = SAMPLES_PER_COLUMN * each.columns / images

        def listen(
            module: nn.Module, inputs: tuple[Tensor, ...], into: Moments = moments[each.layer], share: float = share
        ) -> None:
            columns = cast(Affine, module).columns(inputs[0])
            into.add(columns[:, :, sampled(columns, int(share * inputs[0].shape[0]) + 1, generator)])

        handles.append(module.register_forward_pre_hook(listen))
    try:
        with torch.inference_mode():
            for batch in batches:
                network(batch.to(device))
    finally:
        for handle in handles:
            handle.remove()
    return moments
