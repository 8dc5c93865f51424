"""Second moments of what a consumer's weights multiply: all that refitting and choosing channels need to know."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from yoloprune.darknet.layers.affine import Affine
from yoloprune.darknet.model import Graph, Model
from yoloprune.darknet.network import Network
from yoloprune.prune.channels import Channels

LEAST_SAMPLES = 1 << 15
"""Places that are sampled over all pictures, up to MOST_PER_COLUMN for each column ..."""
MOST_PER_COLUMN = 64
PER_COLUMN = 16
"""... and as many for each column where that is more: further ones barely move the fit of a large kernel, and cost."""
MEMORY = 4 << 30
"""Bytes that the moments of a network may take."""
LARGEST = 512 << 20
"""Bytes of one consumer's: solving takes about three times as much for a moment."""
FOLDS = 2
"""Parts of the pictures that moments are held of, so that a fit on some can be tried on the others."""
TRIAL = 1024
"""Places that the fit of a mixed consumer is tried on, over all pictures."""
HELD_OUT = 4
"""Every 4th picture is kept out of the fit of a mixed consumer."""


@dataclass(frozen=True)
class Consumer:
    """A layer that sums over channels, and which unit each of its columns belongs to."""

    layer: int
    groups: int
    units: NDArray[np.int64]
    """[groups, D]: the unit of the channel that a column comes from."""
    kernel: int
    """Weights of a filter for each channel: k * k, or the places of a flattened map."""
    mixed: bool = False
    """False: a column is a weight of a filter. True, where too large: a channel, at any place of the kernel alike."""

    @property
    def columns(self) -> int:
        """D."""
        return int(self.units.shape[1])

    @property
    def bytes(self) -> int:
        """Size of its moments."""
        trial = TRIAL * self.columns * self.kernel * 4 if self.mixed else 0
        return self.groups * (FOLDS * (self.columns + 1) ** 2 * 8 + trial)

    def mixing(self) -> Self:
        """The same with a column for each channel."""
        return self if self.mixed else replace(self, units=self.units[:, :: self.kernel], mixed=True)


def summed(graph: Graph, channels: Channels) -> dict[int, NDArray[np.int64]]:
    """Of the layers that sum over channels, the unit of each that they read; a depthwise layer sums over none."""
    return {
        layer.index: units
        for layer in graph.layers
        if layer.sums_channels and layer.index not in channels.removed
        if len(units := channels.inputs[layer.index][0]) > layer.groups_summed
    }


def consumers(graph: Graph, channels: Channels) -> dict[int, Consumer]:
    """All consumers that pruning of channels can touch: those that read channels of a group."""
    prunable = np.zeros(channels.units, np.bool_)
    for group in channels.groups:
        prunable[group.units] = True
    return {index: each for index, each in all_consumers(graph, channels).items() if prunable[each.units].any()}


def all_consumers(graph: Graph, channels: Channels) -> dict[int, Consumer]:
    """All layers that sum over channels and have weights of their own: two that share them can't be refitted as one."""
    sharing = graph.sharing
    found = {}
    for index, units in summed(graph, channels).items():
        layer = graph.layers[index]
        if index not in sharing:
            shapes = {spec.name: spec.shape for spec in layer.tensors()}
            by_group = units.reshape(layer.groups_summed, -1)
            kernel = int(np.prod(shapes["weight"][1:])) // by_group.shape[1]
            found[index] = Consumer(index, layer.groups_summed, by_group.repeat(kernel, axis=1), kernel)
    return found


def affordable(wanted: Iterable[Consumer], memory: int = MEMORY) -> dict[int, Consumer]:
    """These in a form whose moments fit in `memory` together: the largest mixed, without those too large even so."""
    chosen = {}
    least = sorted((each.mixing() if each.kernel > 1 else each for each in wanted), key=lambda each: each.bytes)
    for each in least:
        if each.bytes <= min(memory, LARGEST):
            chosen[each.layer] = each
            memory -= each.bytes
    for each in sorted(wanted, key=lambda each: each.bytes):
        more = each.bytes - chosen[each.layer].bytes if each.layer in chosen else 0
        if each.layer in chosen and each.bytes <= LARGEST and more <= memory:
            chosen[each.layer] = each
            memory -= more
    return dict(sorted(chosen.items()))


def matrix(model: Model, consumer: Consumer) -> Tensor:
    """A consumer's weights as [groups, N/groups, weights of a filter], float64."""
    weight = model.weights.layers[consumer.layer]["weight"]
    return torch.from_numpy(weight.astype(np.float64)).view(consumer.groups, len(weight) // consumer.groups, -1)


@dataclass(frozen=True)
class HeldOut:
    """Places that the fit of a mixed consumer is tried on, a tensor for each picture."""

    columns: list[Tensor] = field(default_factory=list)
    """All weights' columns [groups, D * kernel, M]."""
    wanted: list[Tensor] = field(default_factory=list)
    """What the unpruned consumer makes of its input there [groups, n, M]."""


@dataclass(frozen=True)
class Moments:
    """Sums over samples, in float64; z = (columns, 1) is what the weights and a constant multiply, t the targets.

    Of a mixed consumer z = (channels, 0), as a constant would be wrong where the kernel reaches over the border, and t
    are the unpruned channels.
    """

    grams: Tensor
    """Sum of z z^T over each fold [FOLDS, groups, D+1, D+1]; the last entry counts the samples."""
    crosses: Tensor
    """Sum of z t^T [FOLDS, groups, D+1, n]; n = 0 without targets."""
    seen: HeldOut = field(default_factory=HeldOut)
    """Mixed: of pictures that are in the sums ..."""
    unseen: HeldOut = field(default_factory=HeldOut)
    """... and of those that are in none."""

    @classmethod
    def zero(cls, consumer: Consumer, targets: int, device: torch.device) -> Self:
        """No sample yet."""
        size = (FOLDS, consumer.groups, consumer.columns + 1)
        grams = torch.zeros(*size, consumer.columns + 1, dtype=torch.float64, device=device)
        return cls(grams, torch.zeros(*size, targets, dtype=torch.float64, device=device))

    @property
    def gram(self) -> Tensor:
        """Over all samples [groups, D+1, D+1]."""
        return self.grams.sum(0)

    def add(self, picture: int, columns: Tensor, targets: Tensor | None = None, *, constant: bool = True) -> None:
        """In place: columns [groups, D, M] of M samples of a picture, what should come out of them [groups, n, M]."""
        z = torch.cat([columns, torch.full_like(columns[:, :1], constant)], 1).double()
        gram, cross = self.grams[picture % FOLDS], self.crosses[picture % FOLDS]
        gram.baddbmm_(z, z.mT)
        if not constant:
            gram[:, -1, -1] += columns.shape[2]
        if targets is not None:
            cross.baddbmm_(z, targets.double().mT)


class Collector:
    """Adds up a consumer's moments, batch by batch."""

    def __init__(
        self,
        consumer: Consumer,
        module: Affine,
        images: int,
        original: Affine | None = None,
        most_per_column: int = MOST_PER_COLUMN,
    ) -> None:
        """Of the inputs of `module`, over `images` in all; targets, if any, from `original`."""
        self.consumer, self.module, self.original = consumer, module, original
        filters = module.weight.shape[0] // consumer.groups
        targets = 0 if original is None else consumer.columns if consumer.mixed else filters
        self.moments = Moments.zero(consumer, targets, module.weight.device)
        self._weight = (original or module).weight.detach().view(consumer.groups, filters, -1)
        samples = max(PER_COLUMN * consumer.columns, min(most_per_column * consumer.columns, LEAST_SAMPLES))
        self._share, self._trial = (-(-most // images) for most in (samples, TRIAL))
        self._generator = torch.Generator().manual_seed(consumer.layer)
        self._pictures = 0

    def see(self, inputs: Tensor, unpruned: Tensor | None = None) -> None:
        """A batch of inputs [B,C,H,W], and those of the original."""
        before = inputs if unpruned is None else unpruned
        for after, wanted in zip(
            torch.split(inputs, 1), torch.split(before, 1), strict=True
        ):  # columns of one picture at a time
            self._pictures += 1
            if not self.consumer.mixed:
                columns = self.module.columns(after)
                self._add(columns, columns if unpruned is None else self.module.columns(wanted))
            else:
                held_out = self._pictures % HELD_OUT == 0
                if not held_out:
                    self._add(self._channels(after), self._channels(wanted))
                trial = self.moments.unseen if held_out else self.moments.seen
                columns, targets = self.module.columns(after), self.module.columns(wanted)
                some = self._some(columns.shape[2], self._trial)
                trial.columns.append(columns[:, :, some])
                trial.wanted.append(self._weight @ targets[:, :, some])

    def _add(self, columns: Tensor, targets: Tensor) -> None:
        some = self._some(columns.shape[2], self._share)
        wanted = None
        if self.original is not None:
            wanted = targets[:, :, some].double()
            wanted = wanted if self.consumer.mixed else self._weight.double() @ wanted
        self.moments.add(self._pictures, columns[:, :, some], wanted, constant=not self.consumer.mixed)

    def _channels(self, x: Tensor) -> Tensor:
        return x.reshape(self.consumer.groups, self.consumer.columns, -1)

    def _some(self, samples: int, most: int) -> Tensor | slice:
        """Which of the samples to use: all, or `most` of them drawn at random."""
        if samples <= most:
            return slice(None)
        return torch.randperm(samples, generator=self._generator)[:most].to(self._weight.device)


def collect(network: Network, batches: Iterable[Tensor], wanted: Iterable[Consumer], images: int) -> dict[int, Moments]:
    """Moments of the inputs of `wanted`, over batches [B,C,H,W] of `images` in all; one pass, nothing else kept."""
    device = next(network.parameters()).device
    collectors = [Collector(each, cast(Affine, network.layers[each.layer]), images) for each in wanted]
    with ExitStack() as hooks, torch.inference_mode():
        for each in collectors:

            def listen(module: nn.Module, inputs: tuple[Tensor, ...], into: Collector = each) -> None:
                into.see(inputs[0])

            hooks.callback(each.module.register_forward_pre_hook(listen).remove)
        for batch in batches:
            network(batch.to(device))
    return {each.consumer.layer: each.moments for each in collectors}
