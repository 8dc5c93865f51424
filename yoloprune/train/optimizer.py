"""Darknet's updates (network.c update_network; convolutional_layer.c update_convolutional_layer, adam_update_gpu).

Momentum. With B images an update, D the sum of deltas times inputs over them, rate l, momentum m, decay d:
u += D - d*B*w (no decay for biases and scales), w += l/B*u, u *= m. Let v be -u/B before that last product: then
v = m*v + (-D/B + d*w), w -= l*v. This is torch's SGD without dampening, on the gradient -D/B of the summed loss over B.
A rate that changes acts the same in both, since neither buffer holds it.

Adam. Darknet takes D - d*B*w for all arrays, biases too, and adds l*m/(sqrt(v) + e). The factor B between this and
torch's Adam on -D/B + d*w goes out of m/sqrt(v), and so e becomes e/B.

Sparsity training (Liu et al. 2017, "Network Slimming", eq. 1) adds l1 times the sum of |scale| to the loss: as in their
code, the subgradient l1 * sign(scale) joins the gradient -D/B before the step, 0 where the scale is 0.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam
from torch.optim import Optimizer as TorchOptimizer

from yoloprune.darknet.network import Network
from yoloprune.errors import InputError
from yoloprune.train.recipe import Recipe


class Optimizer:
    """Darknet's update, given gradients of the summed loss divided by the images of an update.

    Layers keep to their own `Updates`: where gradients are stopped, decay and momentum go on, as in Darknet. InputError
    if nothing is left to train.
    """

    def __init__(self, network: Network, recipe: Recipe) -> None:
        graph = network.graph
        self._burn_in = recipe.schedule.burn_in
        self._updates = graph.updates
        self._parameters: list[list[nn.Parameter]] = [[] for _ in graph.layers]
        self._l1, self._scales = recipe.bn_l1, list[nn.Parameter]()
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for layer, module, updates in zip(graph.layers, network.layers, graph.updates, strict=True):
            for spec in layer.tensors():
                if not spec.trained or layer.index in recipe.frozen:
                    continue
                parameter = getattr(module, spec.name)
                decay = recipe.decay if spec.decay or recipe.adam else 0.0
                groups.setdefault((updates.rate, decay), []).append(parameter)
                self._parameters[layer.index].append(parameter)
                if recipe.bn_l1 and spec.name == "scale":
                    self._scales.append(parameter)
        if not groups:
            raise InputError("no layer with weights is left to train", file=graph.cfg.file)
        listed = [
            {"params": parameters, "weight_decay": decay, "scale": rate}
            for (rate, decay), parameters in sorted(groups.items(), key=lambda group: group[0])
        ]
        self._torch: TorchOptimizer = (
            Adam(listed, lr=0.0, betas=recipe.betas, eps=recipe.epsilon / recipe.images)
            if recipe.adam
            else SGD(listed, lr=0.0, momentum=recipe.momentum)
        )

    def zero_grad(self) -> None:
        """Forget the gradients."""
        self._torch.zero_grad()

    @torch.no_grad()
    def step(self, iteration: int, rate: float) -> None:
        """Update number `iteration`, from 1, at a learning rate."""
        for scale in self._scales:
            if scale.grad is not None:
                scale.grad.add_(scale.sign(), alpha=self._l1)
        stop = max((index for index, rule in enumerate(self._updates) if rule.stopped(iteration)), default=-1)
        for index, (rule, parameters) in enumerate(zip(self._updates, self._parameters, strict=True)):
            for parameter in parameters:
                if rule.skipped(iteration, self._burn_in):
                    parameter.grad = None  # no step, and no momentum either
                elif index <= stop:
                    parameter.grad = torch.zeros_like(parameter)
        for group in self._torch.param_groups:
            group["lr"] = rate * group["scale"]
        self._torch.step()

    @torch.no_grad()
    def forget(self, parameter: Tensor, where: Tensor) -> None:
        """Momentum, and what Adam keeps, become 0 there; where: bool, in the shape of the parameter."""
        for value in self._torch.state.get(parameter, {}).values():
            if isinstance(value, Tensor) and value.shape == where.shape:  # Adam's count of steps is a number
                value.masked_fill_(where, 0.0)

    def state_dict(self) -> dict[str, Any]:
        """All that a run needs to go on."""
        return self._torch.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self._torch.load_state_dict(state)
