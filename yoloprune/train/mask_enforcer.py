"""Values that training may not touch, because they are pruned."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from yoloprune.darknet import mask as mask_file
from yoloprune.darknet.mask import Mask
from yoloprune.darknet.network import Network
from yoloprune.train.masks import Masks
from yoloprune.train.processes import Processes


class MaskEnforcer:
    """Gradients of pruned values become zero, so that momentum never starts, and values are set to `TensorSpec.masked`.

    So are running mean and variance, which move in the forward pass. Where a schedule lets values come back, they have
    their gradient in the update after which the mask is chosen, and that one alone, as with TensorFlow's toolkit, whose
    pruned weights are zero again before each update. ValueError for a mask of another shape.
    """

    def __init__(self, network: Network, masks: Masks) -> None:
        self._network, self._masks = network, masks
        self._pruned: list[tuple[int, str, Tensor, float]] = []
        """Layer and array, where that is pruned, and its value there."""
        self._prune(masks.always)

    def _prune(self, mask: Mask | None) -> None:
        self.mask = mask
        self._pruned.clear()
        for layer, tensors in zip(self._network.graph.layers, mask.layers if mask else (), strict=False):
            for spec in layer.tensors():
                kept = tensors.get(spec.name)
                if kept is None or kept.all():
                    continue
                if kept.shape != spec.shape:
                    raise ValueError(f"{layer}: mask of {spec.name}: {kept.shape} != {spec.shape}")
                device = getattr(self._network.layers[layer.index], spec.name).device
                self._pruned.append((layer.index, spec.name, torch.from_numpy(~kept).to(device), spec.masked))

    def due(self, iteration: int) -> bool:
        """Whether a mask is chosen after that update; 0: before the first."""
        return self._masks.schedule is not None and self._masks.schedule.due(iteration)

    def release(self, iteration: int) -> None:
        """To be called before every update: what may come back after it is free for it."""
        if self.due(iteration) and self._masks.schedule and self._masks.schedule.regrow:
            self._prune(self._masks.always)

    @torch.no_grad()
    def choose(self, iteration: int, processes: Processes) -> None:
        """The mask as the schedule has it after an update that is due; the first process's, in all of them."""
        schedule, layers = self._masks.schedule, self._network.graph.layers
        assert schedule is not None
        whole = Mask(tuple({} for _ in layers))
        chosen = schedule.mask(iteration, self._network) if processes.rank == 0 else whole
        if processes.count > 1:
            chosen = mask_file.parse(processes.broadcast_bytes(mask_file.dump(chosen, layers)), layers)
        self._prune(chosen if self.mask is None else chosen & self.mask)

    def pruned(self, network: Network) -> Iterator[tuple[Tensor, Tensor, float]]:
        """Arrays of a network like this one, where they are pruned, and the value there."""
        for index, name, pruned, value in self._pruned:
            yield getattr(network.layers[index], name), pruned, value

    @torch.no_grad()
    def zero_gradients(self) -> None:
        """To be called before every step."""
        for tensor, pruned, _ in self.pruned(self._network):
            if tensor.grad is not None:
                tensor.grad.masked_fill_(pruned, 0.0)

    @torch.no_grad()
    def enforce(self, network: Network | None = None) -> None:
        """Pruned values, of this network or another of its kind, become their masked value, exactly."""
        for tensor, pruned, value in self.pruned(network or self._network):
            tensor.masked_fill_(pruned, value)

    def state_dict(self) -> dict[str, Tensor]:
        """The mask as bool tensors, named as the network's."""
        layers = enumerate(self.mask.layers if self.mask else ())
        return {f"layers.{index}.{name}": torch.tensor(kept) for index, each in layers for name, kept in each.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from `state_dict`."""
        layers: list[dict[str, NDArray[np.bool_]]] = [{} for _ in self._network.graph.layers]
        for key, kept in state.items():
            _, index, name = key.split(".")
            layers[int(index)][name] = kept.numpy()
        self._prune(Mask(tuple(layers)))
