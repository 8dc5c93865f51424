"""What a network costs when only some channels stay, layer by layer: operations, floats, or time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from yoloprune.darknet.alone import alone
from yoloprune.darknet.model import Graph
from yoloprune.prune.channels import Channels, KeepAtoms

Price = Callable[[int, tuple[int, ...], int], float]
"""Cost of a layer that reads so many channels of each source and gives so many. Asked often: it should remember."""


def flops(graph: Graph) -> Price:
    """Floating point operations for one image."""
    return cache(lambda index, inputs, output: alone(graph, index, inputs, output).layers[-1].flops)


def parameters(graph: Graph) -> Price:
    """Floats in the .weights payload. (A layer alone has arrays, also where in the network they are another's.)"""

    @cache
    def price(index: int, inputs: tuple[int, ...], output: int) -> float:
        if graph.layers[index].shares is not None:
            return 0
        return sum(spec.size for spec in alone(graph, index, inputs, output).layers[-1].tensors())

    return price


PRICES: Final[Mapping[str, Callable[[Graph], Price]]] = {"bflops": flops, "parameters": parameters}
"""Objectives that a cfg alone tells."""


class Costs:
    """Sums a price over a network's layers."""

    def __init__(self, graph: Graph, channels: Channels, price: Price, left: KeepAtoms | None = None) -> None:
        """left: what earlier rounds left; the rest counts as gone in any keep-set."""
        self._left = channels.all_kept() if left is None else left
        self.channels, self._price = channels, price
        self.whole = sum(
            price(layer.index, tuple(shape.c for shape in layer.source_shapes), layer.out.c) for layer in graph.layers
        )
        """Of the network as the cfg has it."""
        self._layers = [layer.index for layer in graph.layers if layer.index not in channels.removed]
        self._touched: dict[str, tuple[int, ...]] = {}

    def total(self, keep: KeepAtoms) -> float:
        """Of the network slimmed to `keep`."""
        return sum(self._layer(index, keep & self._left) for index in self._layers)

    def around(self, label: str, keep: KeepAtoms) -> float:
        """Of the layers that a group's channels are made in, pass through or are read by."""
        if label not in self._touched:
            group = next(group for group in self.channels.groups if group.label == label)
            atoms = set(group.atoms.tolist())
            self._touched[label] = tuple(
                index for index in self._layers if any(not atoms.isdisjoint(ids.tolist()) for ids in self._ids(index))
            )
        left = keep & self._left
        return sum(self._layer(index, left) for index in self._touched[label])

    def _ids(self, index: int) -> list[NDArray[np.int64]]:
        return [*self.channels.inputs[index], self.channels.outputs[index]]

    def _layer(self, index: int, keep: KeepAtoms) -> float:
        counts = tuple(int(keep[atoms].sum()) for atoms in self._ids(index))
        return self._price(index, counts[:-1], counts[-1])
