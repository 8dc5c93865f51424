"""Values that training may not touch, because their channel is pruned."""

from __future__ import annotations

import torch
from torch import Tensor

from yoloprune.darknet.mask import Mask
from yoloprune.darknet.network import Network


class MaskEnforcer:
    """Gradients of pruned values become zero, so that momentum never starts, and values are set to `TensorSpec.masked`.

    So are running mean and variance, which move in the forward pass. ValueError for a mask of another shape.
    """

    def __init__(self, network: Network, mask: Mask | None) -> None:
        self._pruned: list[tuple[Tensor, Tensor, float]] = []
        """Each tensor, where it is pruned, and its value there."""
        for layer, module, tensors in zip(
            network.graph.layers, network.layers, mask.layers if mask else (), strict=False
        ):
            for spec in layer.tensors():
                kept = tensors.get(spec.name)
                if kept is None or kept.all():
                    continue
                tensor: Tensor = getattr(module, spec.name)
                if kept.shape != spec.shape:
                    raise ValueError(f"{layer}: mask of {spec.name}: {kept.shape} != {spec.shape}")
                self._pruned.append((tensor, torch.from_numpy(~kept).to(tensor.device), spec.masked))

    @torch.no_grad()
    def zero_gradients(self) -> None:
        """To be called before every step."""
        for tensor, pruned, _ in self._pruned:
            if tensor.grad is not None:
                tensor.grad.masked_fill_(pruned, 0.0)

    @torch.no_grad()
    def enforce(self) -> None:
        """Pruned values become their masked value, exactly."""
        for tensor, pruned, value in self._pruned:
            tensor.masked_fill_(pruned, value)
