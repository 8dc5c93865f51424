"""Torch-Pruning's choice of channels for one of our networks, by way of a plain torch twin; for the benchmarks.

Needs `pip install yoloprune[bench]`. The twin computes what our network does with nn.Conv2d and nn.BatchNorm2d, which
is what Torch-Pruning knows how to prune. What it leaves of the filters is then mapped back to our units, so that what
it prunes is measured, and trained, by the same code as all others.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from yoloprune.darknet.data import ClassSplit, Split
from yoloprune.darknet.layers.affine import Affine
from yoloprune.darknet.layers.convolution import Convolutional
from yoloprune.darknet.layers.norm import inverse_deviation
from yoloprune.darknet.model import Model
from yoloprune.darknet.network import build
from yoloprune.prune.channels import Channels, KeepMask
from yoloprune.train.batches import batches, network_input
from yoloprune.train.losses import find_loss
from yoloprune.train.recipe import Recipe
from yoloprune.train.samples import Samples

Labelled = Iterable[tuple[Tensor, Tensor]]
"""Network input [B,C,H,W] and truths [B,T,5] as `train.losses.base.Loss` takes them."""


def torch_pruning_mask(
    model: Model, channels: Channels, ratio: float, importance: str, labelled: Labelled = ()
) -> KeepMask:
    """What Torch-Pruning keeps with `global_pruning=True` at this share of all channels.

    importance: "magnitude" (GroupMagnitudeImportance), or "taylor" (GroupTaylorImportance), for which gradients of the
    network's own loss are summed over `labelled`. ValueError if it parts what belongs together.
    """
    tool = importlib.import_module("torch_pruning")
    twin = Twin(model)
    kinds = {"magnitude": tool.importance.GroupMagnitudeImportance, "taylor": tool.importance.GroupTaylorImportance}
    prunable = {producer for group in channels.groups for producer in group.producers}
    pruner = tool.pruner.MetaPruner(
        twin,
        torch.rand(1, *model.graph.net.input),
        kinds[importance](),
        global_pruning=True,
        pruning_ratio=ratio,
        ignored_layers=[twin.steps[index].conv for index in twin.convolutions if index not in prunable],
    )
    if importance == "taylor":
        for inputs, truths in labelled:
            twin.loss(inputs, truths).backward()  # type: ignore[no-untyped-call]
    pruner.step()
    return twin.kept(channels)


def sparse_learning(
    model: Model, channels: Channels, images: Split | ClassSplit, recipe: Recipe, *, reg: float, seed: int = 0
) -> Model:
    """After Torch-Pruning's own sparsity training (GroupNormPruner.regularize, Fang et al. 2023), by a recipe's rate.

    reg: its coefficient. The loss is Darknet's, the optimizer torch's SGD.
    """
    tool = importlib.import_module("torch_pruning")
    twin = Twin(model)
    prunable = {producer for group in channels.groups for producer in group.producers}
    pruner = tool.pruner.GroupNormPruner(
        twin,
        torch.rand(1, *model.graph.net.input),
        tool.importance.GroupMagnitudeImportance(),
        reg=reg,
        global_pruning=True,
        ignored_layers=[twin.steps[index].conv for index in twin.convolutions if index not in prunable],
    )
    pruner.update_regularizer()
    twin.train()
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.0, momentum=recipe.momentum, weight_decay=recipe.decay)
    samples = Samples.of(images, model.graph, recipe, seed, 1 << 30)
    starts = range(0, recipe.iterations * recipe.images, recipe.mini_batch)
    for number, (pixels, truths) in enumerate(batches(samples, starts, recipe.mini_batch, 0), start=1):
        loss = twin.loss(network_input(pixels, torch.device("cpu")), truths) / recipe.images
        loss.backward()  # type: ignore[no-untyped-call]
        if number % recipe.subdivisions == 0:
            pruner.regularize(twin)
            optimizer.param_groups[0]["lr"] = recipe.schedule.rate(number // recipe.subdivisions)
            optimizer.step()
            optimizer.zero_grad()
    return model.with_arrays(twin.arrays())


class _Conv(nn.Module):
    """A convolution as torch has it, batch norm and activation."""

    def __init__(self, layer: Convolutional, ours: Affine) -> None:
        super().__init__()
        weight = ours.weight.detach()
        self.conv = nn.Conv2d(
            weight.shape[1] * layer.groups,
            layer.filters,
            layer.size,
            (layer.stride_y, layer.stride_x),
            layer.padding,
            layer.dilation,
            layer.groups,
            bias=not layer.batch_normalize,
        )
        self.conv.weight.data.copy_(weight)
        self.norm: nn.BatchNorm2d | None = None
        if layer.batch_normalize:
            self.norm = nn.BatchNorm2d(layer.filters, eps=1e-5)
            self.norm.weight.data.copy_(ours.scale.detach())
            self.norm.bias.data.copy_(ours.bias.detach())
            # The variance at which torch divides by what our dialect divides by.
            variance = inverse_deviation(ours.variance, ours.dialect) ** -2 - 1e-5
            assert self.norm.running_mean is not None
            assert self.norm.running_var is not None
            self.norm.running_mean.copy_(ours.mean)
            self.norm.running_var.copy_(variance)
        elif self.conv.bias is not None:
            self.conv.bias.data.copy_(ours.bias.detach())
        self.activate = ours.activate

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        result: Tensor = self.activate(y if self.norm is None else self.norm(y))
        return result

    def names(self) -> Tensor:
        """A number for each filter that tells it from the others."""
        if self.norm is None:
            assert self.conv.bias is not None
            return self.conv.bias.detach().clone()
        assert self.norm.running_mean is not None
        return self.norm.running_mean.clone()


class Twin(nn.Module):
    """A network of convolutions in plain torch; what is no convolution is our own module. Gives the heads' inputs."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.graph = model.graph
        ours = build(model)
        self.convolutions = [layer.index for layer in model.graph.layers if isinstance(layer, Convolutional)]
        self.steps = nn.ModuleList(
            _Conv(layer, module) if isinstance(layer, Convolutional) and isinstance(module, Affine) else module
            for layer, module in zip(model.graph.layers, ours.layers, strict=True)
        )
        self._names = {index: self._conv(index).names() for index in self.convolutions}
        self.eval()

    def _conv(self, index: int) -> _Conv:
        step = self.steps[index]
        assert isinstance(step, _Conv)
        return step

    def forward(self, x: Tensor) -> list[Tensor]:
        known = {-1: x}
        heads = {layer.index for layer in self.graph.detection_heads}
        for layer, step in zip(self.graph.layers, self.steps, strict=True):
            if layer.index not in heads:
                known[layer.index] = step(*(known[source] for source in layer.sources))
        return [known[layer.sources[0]] for layer in self.graph.detection_heads]

    def loss(self, inputs: Tensor, truths: Tensor) -> Tensor:
        """Darknet's, summed over heads and images."""
        heads: list[Any] = list(self.graph.detection_heads)
        losses = [
            find_loss(head)(head, x, truths, self.graph.dialect, len(inputs))
            for head, x in zip(heads, self(inputs), strict=True)
        ]
        return torch.stack(losses).sum()

    def arrays(self) -> dict[int, dict[str, NDArray[np.float32]]]:
        """Of the convolutions, as our network has them, in a dialect that adds 1e-5 under the root."""
        found = {}
        for index in self.convolutions:
            step = self._conv(index)
            arrays: dict[str, Tensor | None] = {"weight": step.conv.weight, "bias": step.conv.bias}
            if (norm := step.norm) is not None:
                arrays |= {"bias": norm.bias, "scale": norm.weight}
                arrays |= {"mean": norm.running_mean, "variance": norm.running_var}
            found[index] = {name: each.detach().numpy().copy() for name, each in arrays.items() if each is not None}
        return found

    def kept(self, channels: Channels) -> KeepMask:
        """The units whose filters are still there. ValueError if some filters of a unit are and others aren't."""
        there, gone = np.zeros(channels.units, np.bool_), np.zeros(channels.units, np.bool_)
        for index in self.convolutions:
            left = torch.isin(self._names[index], self._conv(index).names()).numpy()
            if left.sum() != self._conv(index).conv.out_channels:
                raise ValueError(f"layer {index}: filters can't be told apart")
            there[channels.outputs[index][left]] = True
            gone[channels.outputs[index][~left]] = True
        if (there & gone).any():
            raise ValueError(f"{int((there & gone).sum())} units are parted")
        return ~gone
