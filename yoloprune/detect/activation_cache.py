"""Measuring many variants of a network that differ in few layers: what doesn't depend on these is computed once."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import chain, islice, repeat
from typing import Final

import torch
from torch import Tensor

from yoloprune.darknet.network import Network
from yoloprune.detect.pictures import Batch, Pictures, room_on

MEMORY: Final = 2 << 30
"""Bytes of activations that a CPU keeps: of the first pictures, where it isn't enough for all of them."""


class ActivationCache:
    """Activations that variants of a network share, for each batch of pictures.

    Variants must have the base network's values in all layers but those of the last `advance`.
    """

    def __init__(self, pictures: Pictures, base: Network, memory: int = MEMORY) -> None:
        self.pictures, self.base = pictures, base
        self.memory = room_on(next(base.parameters()).device, memory)
        self._changed: frozenset[int] = frozenset()
        self._activations: list[dict[int, Tensor]] = []

    def advance(self, changed: Collection[int]) -> None:
        """From here on variants differ in the layers `changed`. Cheapest front to back: it goes on from where it is."""
        if self._changed == frozenset(changed):
            return
        before = _popped(self._activations)  # of the base network, so they hold whatever changes next
        wanted = self._wanted(changed)
        size = sum(4 * layer.out.size for layer in self.base.graph.layers if layer.index in wanted)
        room = self.memory
        self._changed, self._activations = frozenset(changed), []
        for batch, known in self._batches(before):
            room -= size * len(batch.sizes)
            if room < 0:
                break
            with torch.inference_mode():
                outputs = self.base(batch.inputs, wanted, known)
            self._activations.append({index: output for index, output in outputs.items() if index >= 0})

    def outputs(self, network: Network, skip: int = 0) -> Iterator[tuple[Batch, Mapping[int, Tensor]]]:
        """Each batch and a variant's outputs for it, by layer, without the first `skip` batches."""
        for batch, known in islice(self._batches(self._activations), skip, None):
            with torch.inference_mode():
                outputs = network(batch.inputs, resume=known)
            yield batch, outputs

    def _batches(self, known: Iterable[dict[int, Tensor]]) -> Iterator[tuple[Batch, Mapping[int, Tensor]]]:
        """Each with the activations that are known of it: of the last ones none."""
        return zip(self.pictures, chain(known, repeat({})), strict=False)

    def _wanted(self, changed: Collection[int]) -> set[int]:
        """Layers whose activations are kept: those read across the first of `changed`, to go on from there later.

        And of layers that don't depend on any in `changed`, the results and what those that do read.
        """
        graph, start = self.base.graph, min(changed)
        touched = graph.descendants(changed)
        read = {source for index in touched for source in graph.layers[index].sources}
        results = set(graph.outputs)
        return graph.read_across(start) | (read | results) - touched


def _popped(activations: list[dict[int, Tensor]]) -> Iterator[dict[int, Tensor]]:
    """Each in turn, let go of here, so that old and new activations take the room of one."""
    while activations:
        yield activations.pop(0)
