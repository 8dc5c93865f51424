"""What a mini-batch is taught by: the layers of a network that have a loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from yoloprune.darknet.layers.base import Layer
from yoloprune.darknet.layers.head import Head
from yoloprune.darknet.model import Graph
from yoloprune.darknet.network import Network
from yoloprune.errors import InputError
from yoloprune.train.losses import LOSSES, Loss, find_loss, straight_through


@dataclass(frozen=True)
class TrainingLoss:
    """The layers of a network that teach it, each with its loss."""

    graph: Graph
    layers: tuple[Layer, ...]
    losses: tuple[Loss, ...]

    @classmethod
    def of(cls, graph: Graph) -> TrainingLoss:
        """InputError if a head can't be trained or there is none."""
        known = tuple(layer for layer in graph.layers if isinstance(layer, Head) or type(layer) in LOSSES)
        if not known:
            raise InputError("the network ends in no layer that has a loss", file=graph.cfg.file)
        return cls(graph, known, tuple(find_loss(layer) for layer in known))

    @property
    def wanted(self) -> frozenset[int]:
        """Layers whose outputs `costs` takes."""
        wanted: set[int] = set()
        for layer in self.layers:
            source = layer.sources[0]
            wanted.add(source)
            while source >= 0 and isinstance(self.graph.layers[source], Head):
                source = self.graph.layers[source].sources[0]
                wanted.add(source)
        return frozenset(wanted)

    def costs(self, graph: Graph, outputs: Mapping[int, Tensor], truths: Tensor, seen: int) -> list[Tensor]:
        """Darknet's cost of each layer, summed over images; truths: see `Loss`; seen: images up to and with these.

        graph: the network's, for the size of input that the outputs come from. Their gradients are Darknet's of the
        sum. An update's loss is their mean over the layers and images.
        """
        return [
            loss(graph.layers[layer.index], self._input(layer.sources[0], outputs), truths, graph.dialect, seen)
            for layer, loss in zip(self.layers, self.losses, strict=True)
        ]

    def _input(self, index: int, outputs: Mapping[int, Tensor]) -> Tensor:
        layer = self.graph.layers[index] if index >= 0 else None
        if isinstance(layer, Head):
            return straight_through(self._input(layer.sources[0], outputs), outputs[index].detach())
        return outputs[index]


def finite(network: Network) -> Tensor:
    """Whether all weights and running statistics are numbers, as then their sums are; on the network's device."""
    return torch.stack([tensor.sum() for tensor in network.state_dict().values()]).isfinite().all()


def not_finite(network: Network, inputs: Tensor) -> str:
    """Where numbers end, for a message: the first layer whose weights or output are not finite, else the losses."""
    for layer, module in zip(network.graph.layers, network.layers, strict=True):
        bad: Sequence[str] = [name for name, tensor in module.named_parameters() if not tensor.isfinite().all()]
        if bad:
            return f"{layer}, {bad[0]}"
    with torch.no_grad():
        for index, output in network(inputs, range(len(network.layers))).items():
            if not output.isfinite().all():
                return f"{network.graph.layers[index]}, output"
    heads = [str(layer) for layer in network.graph.layers if isinstance(layer, Head)]
    return f"the loss of {' or '.join(heads)}"
