"""Measuring many variants of a network that differ only from some layer on: what lies in front is computed once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Final

import torch
from torch import Tensor

from yoloprune.darknet.network import Network
from yoloprune.detect.measure import Batch, Pictures

MEMORY: Final = 2 << 30
"""Bytes of activations that may be kept; where those in front of a layer are more, everything is computed anew."""


class Front:
    """The activations that layers from `start` on read from layers before it, for each batch of pictures.

    Variants must share the base network's values in all layers before `start`.
    """

    def __init__(self, pictures: Pictures, base: Network, memory: int = MEMORY) -> None:
        self.pictures, self.base, self.memory = pictures, base, memory
        self.start = 0
        self._known: list[dict[int, Tensor]] | None = None

    def advance(self, start: int) -> None:
        """Move the front before layer `start`: computed from where it stands, if it stands before that."""
        if start == self.start:
            return
        crossing = self._crossing(start)
        shapes = {layer.index: layer.out for layer in self.base.graph.layers}
        values = sum(shapes[index].size for index in crossing if index >= 0)
        if len(self.pictures) * values * 4 > self.memory:
            self.start, self._known = 0, None
            return
        before = self._known if start > self.start else None
        with torch.inference_mode():
            self._known = [
                {index: output for index, output in self.base(batch.inputs, crossing, known).items() if index >= 0}
                for batch, known in self._batches(before)
            ]
        self.start = start

    def outputs(self, network: Network, behind: int = 0) -> Iterator[tuple[Batch, Mapping[int, Tensor]]]:
        """What a variant puts out for each batch; `behind`: without the first so many."""
        for batch, known in islice(self._batches(self._known), behind, None):
            with torch.inference_mode():
                outputs = network(batch.inputs, resume=known)
            yield batch, outputs

    def _batches(self, known: list[dict[int, Tensor]] | None) -> Iterator[tuple[Batch, Mapping[int, Tensor]]]:
        if known is None:
            yield from ((batch, {}) for batch in self.pictures)
        else:
            yield from zip(self.pictures, known, strict=True)

    def _crossing(self, start: int) -> set[int]:
        """Layers before `start` that are read from there on, or are results."""
        layers = self.base.graph.layers
        read = {source for layer in layers[start:] for source in layer.sources if source < start}
        return read | {index for index in self.base.graph.outputs if index < start}
