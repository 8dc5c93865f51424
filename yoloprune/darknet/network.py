"""Graph and weights -> a torch module that runs. Wiring only: what a layer computes is the layer's."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from yoloprune.darknet.model import Graph, Model
from yoloprune.darknet.weights import Arrays, Header, Weights
from yoloprune.errors import InputError


class Network(nn.Module):
    """The layers in order; input [B, C, H, W] float in 0..1, outputs by layer index, each [B, C, H, W]."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = graph
        self.layers = nn.ModuleList(layer.module(graph.dialect) for layer in graph.layers)
        self._share()

    def train(self, mode: bool = True) -> Self:
        """InputError for a layer that Darknet trains in another way than its module would."""
        for layer in self.graph.layers if mode else ():
            if not layer.trainable:
                raise InputError(f"{layer}: training a network with it is not supported", file=self.graph.cfg.file)
        return super().train(mode)

    def forward(
        self, x: Tensor, want: Collection[int] | None = None, resume: Mapping[int, Tensor] | None = None
    ) -> dict[int, Tensor]:
        """Outputs of the layers in `want` (default: the network's outputs; -1 is the input itself).

        Each output is let go after its last reader. With `resume`, outputs of layers that are known already: only
        what `want` needs beside them is computed.
        """
        wanted = set(self.graph.outputs if want is None else want)
        known: dict[int, Tensor] = {-1: x, **(resume or {})}
        results = {index: known[index] for index in wanted if index in known}
        needed, last_reader = self._plan(wanted, known)
        modules = tuple(self.layers)  # a ModuleList's own index takes longer than a small layer's sums
        for index in needed:
            layer = self.graph.layers[index]
            known[index] = modules[index](*(known[source] for source in layer.sources))
            if index in wanted:
                results[index] = known[index]
            for source in layer.sources:
                if last_reader[source] == index:
                    known.pop(source, None)  # a route may name a layer twice
        return results

    def in_one_pass(self) -> Self:
        """Compute convolutions with their activations where that is possible (layers/fused.py): sums round otherwise.

        Only without gradients, and as long as arrays are changed by what PyTorch counts.
        """
        for module in self.layers:
            module.one_pass = True  # type: ignore[assignment]  # those that know no such thing don't ask
        return self

    def _share(self) -> None:
        for layer, module in zip(self.graph.layers, self.layers, strict=True):
            if layer.shares is not None:
                module.borrow(self.layers[layer.shares])  # type: ignore[operator]  # what shares can borrow

    def _plan(self, wanted: Collection[int], known: Collection[int]) -> tuple[list[int], dict[int, int]]:
        """Layers to compute, in order, and for each layer read by them the last that reads it."""
        todo = [index for index in wanted if index not in known]
        needed: set[int] = set()
        last_reader: dict[int, int] = {}
        while todo:
            index = todo.pop()
            if index in needed:
                continue
            needed.add(index)
            for source in self.graph.layers[index].sources:
                last_reader[source] = max(last_reader.get(source, -1), index)
                if source not in known:
                    todo.append(source)
        return sorted(needed), last_reader

    def set_weights(self, weights: Weights, held: Weights | None = None) -> None:
        """Copy arrays into the modules; names and shapes must match exactly.

        held: what the modules hold already; layers that have the very same arrays in both are left alone.
        """
        before = held.layers if held else (None,) * len(weights.layers)
        for layer, arrays, old in zip(self.graph.layers, weights.layers, before, strict=True):
            if arrays is not old:
                self.set_arrays(layer.index, arrays)

    def set_arrays(self, index: int, arrays: Arrays) -> None:
        """Likewise of one layer."""
        layer = self.graph.layers[index]
        with torch.no_grad():
            for spec in layer.tensors():
                tensor: Tensor = getattr(self.layers[index], spec.name)
                if tuple(tensor.shape) != arrays[spec.name].shape:
                    raise ValueError(f"{layer}: {spec.name}: {tuple(tensor.shape)} != {arrays[spec.name].shape}")
                tensor.copy_(torch.from_numpy(arrays[spec.name].astype(np.float32)))

    def get_weights(self, header: Header) -> Weights:
        """Arrays out of the modules, float32 copies."""
        return Weights(
            header,
            tuple(
                {
                    spec.name: getattr(module, spec.name).detach().float().cpu().numpy().copy()
                    for spec in layer.tensors()
                }
                for layer, module in zip(self.graph.layers, self.layers, strict=True)
            ),
        )


def build(model: Model, device: str | torch.device = "cpu") -> Network:
    """A network for inference (eval mode) with the model's weights."""
    network = Network(model.graph)
    network.set_weights(model.weights)
    return network.eval().to(device)
