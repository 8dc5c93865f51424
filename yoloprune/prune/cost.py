"""What a network costs when only some channels stay, layer by layer: operations, floats, or time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from yoloprune.darknet.layers.base import Layer
from yoloprune.darknet.model import Graph
from yoloprune.prune.channels import Channels, KeepMask

Price = Callable[[int, tuple[int, ...], int], float]
"""Cost of a layer that reads so many channels of each source and gives so many. Asked often: it should remember."""


def flops(graph: Graph) -> Price:
    """Floating point operations for one image."""
    return _of_layer(graph, lambda layer: layer.flops)


def parameters(graph: Graph) -> Price:
    """Floats in the .weights payload; a layer that computes with another's arrays has none."""
    return _of_layer(graph, lambda layer: sum(spec.size for spec in layer.tensors()))


def _of_layer(graph: Graph, tell: Callable[[Layer], float]) -> Price:
    """By the layer's own arithmetic on channel counts."""
    return cache(lambda index, inputs, output: tell(graph.layers[index].narrowed(inputs, output)))


PRICES: Final[Mapping[str, Callable[[Graph], Price]]] = {"bflops": flops, "parameters": parameters}
"""Objectives that a cfg alone tells."""


class Costs:
    """Sums a price over a network's layers."""

    def __init__(self, graph: Graph, channels: Channels, price: Price, left: KeepMask | None = None) -> None:
        """left: what earlier rounds left; the rest counts as gone in any keep-set."""
        self._left = channels.all_kept() if left is None else left
        self.channels, self._price = channels, price
        self.whole = sum(
            price(layer.index, tuple(shape.c for shape in layer.source_shapes), layer.out.c) for layer in graph.layers
        )
        """Of the network as the cfg has it."""
        self._layers = [layer.index for layer in graph.layers if layer.index not in channels.removed]
        self._touched: dict[str, tuple[int, ...]] = {}

    def total(self, keep: KeepMask) -> float:
        """Of the network slimmed to `keep`."""
        return float(self._sums(self._layers, keep[None])[0])

    def around(self, label: str, keeps: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Of the layers that a group's channels are made in, pass through or are read by.

        keeps: [n, units], keep-sets whose costs [n] are wanted.
        """
        if label not in self._touched:
            units = set(self.channels.group(label).units.tolist())
            self._touched[label] = tuple(
                index for index in self._layers if any(not units.isdisjoint(ids.tolist()) for ids in self._ids(index))
            )
        return self._sums(self._touched[label], keeps)

    def _ids(self, index: int) -> list[NDArray[np.int64]]:
        return [*self.channels.inputs[index], self.channels.outputs[index]]

    def _sums(self, layers: Iterable[int], keeps: NDArray[np.bool_]) -> NDArray[np.float64]:
        left, sums = keeps & self._left, np.zeros(len(keeps))
        for index in layers:
            counts = [np.count_nonzero(left.take(ids, 1), 1).tolist() for ids in self._ids(index)]
            sums += [self._price(index, each[:-1], each[-1]) for each in zip(*counts, strict=True)]
        return sums
