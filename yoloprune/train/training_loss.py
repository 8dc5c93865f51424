"""The loss of a mini-batch: the layers of a network that have one."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from yoloprune.darknet.layers.base import Layer
from yoloprune.darknet.layers.head import Head
from yoloprune.darknet.model import Graph
from yoloprune.errors import InputError
from yoloprune.train.losses import LOSSES, find_loss, straight_through


class TrainingLoss:
    """The layers of a network that train it, each with its loss. InputError if one has none, or there is none."""

    def __init__(self, graph: Graph) -> None:
        layers = [layer for layer in graph.layers if isinstance(layer, Head) or type(layer) in LOSSES]
        if not layers:
            raise InputError("the network ends in no layer that has a loss", file=graph.cfg.file)
        self._graph = graph
        self._losses = [(layer.index, self._inputs(layer), find_loss(layer)) for layer in layers]

    @property
    def wanted(self) -> frozenset[int]:
        """Layers whose outputs `costs` takes."""
        return frozenset(index for _, inputs, _ in self._losses for index in inputs)

    def costs(self, graph: Graph, outputs: Mapping[int, Tensor], truths: Tensor, seen: int) -> list[Tensor]:
        """Darknet's cost of each layer, summed over images; truths: see `Loss`; seen: images up to and with these.

        graph: the network's, for the size of input that the outputs come from. Their gradients are Darknet's of the
        sum. An update's loss is their mean over the layers and images.
        """
        costs = []
        for layer, (first, *heads), loss in self._losses:
            x = outputs[first]
            for head in heads:
                x = straight_through(x, outputs[head].detach())
            costs.append(loss(graph.layers[layer], x, truths, graph.dialect, seen))
        return costs

    def _inputs(self, layer: Layer) -> list[int]:
        """The layer before a head, or where that is a head, the last layer before it that is none, and heads since."""
        inputs = [layer.sources[0]]
        while inputs[0] >= 0 and isinstance(self._graph.layers[inputs[0]], Head):
            inputs.insert(0, self._graph.layers[inputs[0]].sources[0])
        return inputs
