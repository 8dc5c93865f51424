"""A teacher: the network before it was pruned, whose outputs and features the pruned one is to have again.

Outputs. What goes into a head gets Darknet's own steps, with the teacher's outputs as truth. So for a detection head,
with v the values of a cell as the head puts them out (x, y, objectness and classes through the logistic, w and h raw),
o the objectness and ' the teacher: delta = o' - o for objectness, o' (v' - v) for all else. Cells in which the teacher
sees nothing so teach only that. (Hinton et al. 2015; for boxes, Chen et al. 2017, Mehta and Ozturk 2018, "Object
detection at 200 fps", weighing by objectness.) A softmax or logistic gets p' - p, any other head x' - x.

Features. Of each layer that reads pruned channels, the outputs y of filters that stay: half the mean of (y' - y)^2 over
channels and places, in shares of the variance of y'. (Romero et al. 2015, "FitNets".)
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from yoloprune.darknet.layers.base import Layer
from yoloprune.darknet.layers.classifier import Logistic, Softmax
from yoloprune.darknet.layers.head import DetectionHead, Head
from yoloprune.darknet.mask import Mask
from yoloprune.darknet.model import Model
from yoloprune.detect.measure import network_for_measuring
from yoloprune.train.losses import by_delta
from yoloprune.train.multi_scale import MultiScale


class Teacher:
    """The network that teaches, with the same layers as the one that is trained, the student."""

    def __init__(self, model: Model, mask: Mask | None, device: torch.device) -> None:
        self._scales = MultiScale(network_for_measuring(model, device).requires_grad_(False))
        self._heads = {layer.index: layer.sources[0] for layer in model.graph.layers if isinstance(layer, Head)}
        self._model, self._device = model, device
        self.follow(mask)

    def follow(self, mask: Mask | None) -> None:
        """Teach features where the mask, as it is from now on, prunes."""
        self._features = _reading_pruned(self._model, mask, self._device)

    @property
    def wanted(self) -> frozenset[int]:
        """Layers of the student whose outputs `costs` takes."""
        return frozenset({*self._features, *self._heads.values()})

    def costs(self, inputs: Tensor, outputs: Mapping[int, Tensor]) -> list[Tensor]:
        """Costs of the student's `outputs` on these inputs [B, C, H, W], summed over images, with their gradients."""
        network = self._scales.at_size(*inputs.shape[2:])
        with torch.no_grad():
            wanted = network(inputs, self.wanted)
        costs = []
        for index, source in self._heads.items():
            head, module = network.graph.layers[index], network.layers[index]
            costs.append(_output_cost(head, module, outputs[source], wanted[source]))
        for index, kept in self._features.items():
            costs.append(_feature_cost(outputs[index][:, kept], wanted[index][:, kept]))
        return costs


def _reading_pruned(model: Model, mask: Mask | None, device: torch.device) -> dict[int, Tensor]:
    """For each layer of which some, and not all, weights of a kept filter are pruned: its kept filters, bool [N]."""
    found = {}
    for layer, tensors in zip(model.graph.layers, mask.layers if mask else (), strict=False):
        kept = tensors.get("weight")
        if kept is None:
            continue
        by_filter = kept.reshape(len(kept), -1)
        stays = by_filter.any(1)
        if stays.any() and not by_filter[stays].all():
            found[layer.index] = torch.from_numpy(stays).to(device)
    return found


def _output_cost(head: Layer, module: torch.nn.Module, x: Tensor, wanted: Tensor) -> Tensor:
    def rule(x: Tensor) -> tuple[Tensor, Tensor]:
        theirs = wanted.to(x.dtype)
        if isinstance(head, DetectionHead) and x.shape[1] == len(head.anchors) * (5 + head.classes):
            b, _, h, w = x.shape
            ours, theirs = (module(each).view(b, len(head.anchors), -1, h, w) for each in (x, theirs))
            delta = theirs - ours
            objectness = theirs[:, :, 4:5]
            weights = torch.cat([objectness.expand(-1, -1, 4, -1, -1), torch.ones_like(objectness)], 2)
            delta[:, :, :5] *= weights
            delta[:, :, 5:] *= objectness
        elif isinstance(head, (Softmax, Logistic)):
            delta = module(theirs) - module(x)
        else:
            delta = theirs - x
        delta = delta.view_as(x)
        return delta, delta.square().sum()

    return by_delta(x, rule)


def _feature_cost(x: Tensor, wanted: Tensor) -> Tensor:
    """x, wanted: [B, C, H, W]."""
    exact = torch.promote_types(x.dtype, torch.float32)
    wanted = wanted.to(exact)
    spread = wanted.var((0, 2, 3), unbiased=False).mean().clamp(min=1e-12)
    return 0.5 * (x.to(exact) - wanted).square().mean((1, 2, 3)).sum() / spread
