"""Values that training may not touch, because their channel is pruned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from yoloprune.darknet.network import Network

Mask = Sequence[Mapping[str, NDArray[np.bool_]]]
"""For each layer and tensor name, in the tensor's shape: True where the value is free. What is not named is free."""


class MaskEnforcer:
    """The held values of a network: gradients there are silenced, so momentum never starts, and values are set back.

    Running mean and variance, which move in the forward pass, are held too.
    """

    def __init__(self, network: Network, masks: Mask | None) -> None:
        self._parameters: list[tuple[Tensor, Tensor, float]] = []
        self._buffers: list[tuple[Tensor, Tensor, float]] = []
        layers = network.graph.layers
        for layer, module, mask in zip(layers, network.layers, masks or [{}] * len(layers), strict=True):
            for spec in layer.tensors():
                free = mask.get(spec.name)
                if free is None or free.all():
                    continue
                tensor: Tensor = getattr(module, spec.name)
                if free.shape != spec.shape:
                    raise ValueError(f"{layer}: mask of {spec.name}: {free.shape} != {spec.shape}")
                held = torch.from_numpy(~free).to(tensor.device)
                (self._parameters if spec.trained else self._buffers).append((tensor, held, spec.masked))

    @torch.no_grad()
    def silence(self) -> None:
        """No gradient where values are held: to be called before every step."""
        for tensor, held, _ in self._parameters:
            if tensor.grad is not None:
                tensor.grad.masked_fill_(held, 0.0)

    @torch.no_grad()
    def restore(self) -> None:
        """MaskEnforcer values to their own value, exactly."""
        for tensor, held, value in (*self._parameters, *self._buffers):
            tensor.masked_fill_(held, value)
