"""One set of weights, run at any size of input, as a module that DistributedDataParallel can wrap."""

from __future__ import annotations

from collections.abc import Collection

from torch import Tensor, nn

from yoloprune.darknet.layers.base import Shape
from yoloprune.darknet.network import Network
from yoloprune.train.sizes import resized


class MultiScale(nn.Module):
    """A network and, made when first needed, others with the very same tensors for other sizes of input."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        self._by_size: dict[tuple[int, int], Network] = {}

    def at_size(self, height: int, width: int) -> Network:
        """The network for inputs of that size. InputError if its weights depend on it."""
        own = self.network.graph.net.input
        if (height, width) == (own.h, own.w):
            return self.network
        if (height, width) not in self._by_size:
            made = Network(resized(self.network.graph, Shape(own.c, height, width)))
            for layer, module, mine in zip(made.graph.layers, made.layers, self.network.layers, strict=True):
                for spec in layer.tensors():
                    setattr(module, spec.name, getattr(mine, spec.name))
                module.train(mine.training)
            self._by_size[height, width] = made
        return self._by_size[height, width]

    def forward(self, x: Tensor, want: Collection[int]) -> dict[int, Tensor]:
        """As `Network`, at the size of x."""
        outputs: dict[int, Tensor] = self.at_size(*x.shape[2:])(x, want)
        return outputs
