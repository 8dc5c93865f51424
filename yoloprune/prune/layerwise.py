"""Networks side by side over the same pictures, layer after layer from front to back, within a memory bound."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Final, cast

import numpy as np
import torch
from torch import Tensor

from yoloprune.darknet.layers.affine import Affine
from yoloprune.darknet.model import Model
from yoloprune.darknet.network import Network
from yoloprune.detect.pictures import room_on
from yoloprune.prune.moments import MOST_PER_COLUMN, Collector, Consumer, Moments

MEMORY: Final = 2 << 30
"""Bytes of activations that may be kept between two layers; beyond that they are computed anew."""


class LayerwiseInputs:
    """What layers of some networks of one graph read, for all pictures, asked for in growing order.

    Networks may change on the way, in layers that were not passed yet. Where everything that later layers read of
    earlier ones fits in `memory`, it is kept and never computed again. Where it doesn't, each batch is computed from
    where it last did: as maps shrink with depth, that is in front of the few first layers.
    """

    def __init__(
        self,
        networks: Sequence[Network],
        batches: Iterable[Tensor],
        touched: Collection[int],
        memory: int = MEMORY,
    ) -> None:
        """batches [B,C,H,W]; touched: layers whose outputs differ between the networks."""
        self.networks, self.touched = networks, touched
        self._device = next(networks[0].parameters()).device
        self.memory = room_on(self._device, memory)
        self.batches = list(batches)
        self.images = sum(map(len, self.batches))
        self._known: list[Sequence[dict[int, Tensor]]] = [[{} for _ in networks] for _ in self.batches]

    def inputs(self, index: int) -> Iterator[list[Tensor]]:
        """What each network gives layer `index` as its first input, batch by batch."""
        layers = self.networks[0].graph.layers
        source = layers[index].sources[0]
        read = self.networks[0].graph.read_across(index)
        values = sum(layers[each].out.size for each in read if each >= 0)
        fits = 4 * values * self.images * len(self.networks) <= self.memory
        want = read if fits else {source}
        same = not want.intersection(self.touched)
        for number, batch in enumerate(self.batches):
            outputs: list[dict[int, Tensor]] = []
            with torch.inference_mode():
                for network, known in zip(self.networks, self._known[number], strict=True):
                    outputs.append(outputs[0] if outputs and same else network(batch.to(self._device), want, known))
            if fits:
                self._known[number] = [{at: x for at, x in each.items() if at >= 0} for each in outputs]
            yield [each[source] for each in outputs]

    def moments(self, consumer: Consumer, most_per_column: int = MOST_PER_COLUMN) -> Moments:
        """Of what a consumer reads in the second network, with what it gives in the first as targets."""
        first, second = (cast(Affine, network.layers[consumer.layer]) for network in self.networks)
        collector = Collector(consumer, second, self.images, first, most_per_column)
        for before, after in self.inputs(consumer.layer):
            collector.see(after, before)
        return collector.moments


def touched_by(model: Model, masked: Model) -> set[int]:
    """Layers whose outputs may differ between two models of one graph."""
    return model.graph.descendants(
        [
            index
            for index, (old, new) in enumerate(zip(model.weights.layers, masked.weights.layers, strict=True))
            if not all(np.array_equal(old[name], new[name]) for name in old)
        ]
    )
