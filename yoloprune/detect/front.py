"""Measuring many variants of a network that differ only from some layer on: what lies in front is computed once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import torch
from torch import Tensor

from yoloprune.darknet.network import Network
from yoloprune.detect.measure import Batch, Measure
from yoloprune.detect.outcome import Outcome

MEMORY: Final = 2 << 30
"""Bytes of activations that may be kept; where those in front of a layer are more, everything is computed anew."""
LOOKED_AT: Final = 16
"""Pictures that `scores` looks at."""
_ASK_AT: Final = (0.25, 0.5)
"""Shares of the pictures after which a measurement may be given up."""


class Front:
    """The activations that layers from `start` on read from layers before it, for each batch of a measure's pictures.

    Variants must share the base network's values in all layers before `start`.
    """

    def __init__(self, measure: Measure, base: Network, memory: int = MEMORY) -> None:
        self.measure, self.base, self.memory = measure, base, memory
        self.start = 0
        self._known: list[dict[int, Tensor]] | None = None

    def advance(self, start: int) -> None:
        """Move the front before layer `start`: computed from where it stands, if it stands before that."""
        if start == self.start:
            return
        crossing = self._crossing(start)
        shapes = {layer.index: layer.out for layer in self.base.graph.layers}
        values = sum(shapes[index].size for index in crossing if index >= 0)
        if len(self.measure.pictures) * values * 4 > self.memory:
            self.start, self._known = 0, None
            return
        before = self._known if start > self.start else None
        with torch.inference_mode():
            self._known = [
                {index: output for index, output in self.base(batch.inputs, crossing, known).items() if index >= 0}
                for batch, known in self._batches(before)
            ]
        self.start = start

    def outcome(self, network: Network, enough: Callable[[Outcome, int], bool] | None = None) -> tuple[Outcome, int]:
        """What steers pruning, of a variant, and on how many pictures.

        On all, or on the first quarter or half if `enough(outcome, pictures)` says that no more need be seen.
        """
        found: list[Any] = []
        total = len(self.measure.pictures)
        asks = [share * total for share in _ASK_AT]
        for batch in self._run(network):
            found += batch
            if enough is not None and asks and asks[0] <= len(found) < total:
                asks = [at for at in asks if at > len(found)]
                outcome = self.measure.outcome(found)
                if enough(outcome, len(found)):
                    return outcome, len(found)
        return self.measure.outcome(found), total

    def scores(self, network: Network) -> Iterator[Tensor]:
        """What a variant's heads rank their answers by [B, S], batch by batch; of LOOKED_AT pictures or a few more."""
        heads = [self.base.graph.layers[index] for index in self.base.graph.outputs]
        seen = 0
        with torch.inference_mode():
            for batch, known in self._batches(self._known):
                if seen >= LOOKED_AT:
                    return
                seen += len(batch.sizes)
                outputs = network(batch.inputs, resume=known)
                yield torch.cat([head.scores(outputs[head.index]) for head in heads], 1)

    def _run(self, network: Network) -> Iterator[list[Any]]:
        with torch.inference_mode():
            batches = self._batches(self._known)
            yield from self.measure.look((batch, network(batch.inputs, resume=known)) for batch, known in batches)

    def _batches(self, known: list[dict[int, Tensor]] | None) -> Iterator[tuple[Batch, Mapping[int, Tensor]]]:
        if known is None:
            yield from ((batch, {}) for batch in self.measure.pictures)
        else:
            yield from zip(self.measure.pictures, known, strict=True)

    def _crossing(self, start: int) -> set[int]:
        """Layers before `start` that are read from there on, or are results."""
        layers = self.base.graph.layers
        read = {source for layer in layers[start:] for source in layer.sources if source < start}
        return read | {index for index in self.base.graph.outputs if index < start}
