"""One mini-batch forward and backward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from yoloprune.darknet.layers.head import Head
from yoloprune.darknet.model import Graph
from yoloprune.darknet.network import Network
from yoloprune.errors import InputError
from yoloprune.train.losses import Loss, find_loss


@dataclass(frozen=True)
class Objective:
    """The heads of a network, each with its loss."""

    heads: tuple[Head, ...]
    losses: tuple[Loss, ...]

    @classmethod
    def of(cls, graph: Graph) -> Objective:
        """InputError if a head can't be trained or there is none."""
        heads = tuple(layer for layer in graph.layers if isinstance(layer, Head))
        if not heads:
            raise InputError("the network ends in no layer that has a loss", file=graph.cfg.file)
        return cls(heads, tuple(find_loss(head) for head in heads))

    def backward(self, network: Network, inputs: Tensor, truths: Tensor, images: int, seen: int) -> Tensor:
        """Add the gradients of the summed loss over `images`, those of an update, to the parameters.

        inputs: [B, C, H, W]; truths: see `Loss`; seen: images up to and with these. Returns Darknet's loss of this
        mini-batch times B: the mean over the heads of their costs, summed over images (network.c calc_network_cost), a
        scalar without gradient.
        """
        sources = {head.sources[0] for head in self.heads}
        outputs = network(inputs, sources)
        costs = [
            loss(head, outputs[head.sources[0]], truths, network.graph.dialect, seen)
            for head, loss in zip(self.heads, self.losses, strict=True)
        ]
        total = torch.stack(costs).sum()
        (total / images).backward()  # type: ignore[no-untyped-call]
        return total.detach() / len(costs)


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
