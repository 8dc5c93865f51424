"""What criteria ask of the running network: how often a channel is silent, how much the heads would miss it."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from yoloprune.darknet.network import Network
from yoloprune.prune.channels import Channels

PROBES = 2
"""Random directions at the heads for each picture."""


def zero_shares(network: Network, batches: Iterable[Tensor], layers: Iterable[int]) -> dict[int, NDArray[np.float64]]:
    """For each of `layers` the share of outputs that are not above 0, by filter [N].

    Average percentage of zeros: Hu et al. 2016, "Network Trimming", eq. 1; below 0 too, as leaky activations have
    next to nothing there.
    """
    zeros: dict[int, NDArray[np.float64]] = {}
    seen: dict[int, int] = {}
    wanted = set(layers)
    with torch.inference_mode():
        for batch in batches:
            for index, out in network(batch, wanted).items():
                silent = (out <= 0).double().sum((0, 2, 3)).cpu().numpy()
                zeros[index] = zeros.get(index, np.zeros_like(silent)) + silent
                seen[index] = seen.get(index, 0) + out.numel() // out.shape[1]
    return {index: count / seen[index] for index, count in zeros.items()}


def head_changes(
    network: Network, channels: Channels, batches: Iterable[Tensor], layers: Iterable[int], seed: int = 0
) -> NDArray[np.float64]:
    """For each unit [units] the squared change of what enters the heads if it goes, to first order.

    Molchanov et al. 2019, "Importance Estimation for Neural Network Pruning", eq. 8: the square of the sum of g z over
    a group of values z with gradients g. They take g from a loss with labels. Here it is of the heads' inputs h times
    random signs s, as E[(sum dz dh/dz s)^2] is the squared length of the change of h. h counts in deviations of each
    head's input. layers: those whose outputs z count; where no head depends on one, its z change nothing. Mean
    over pictures and PROBES random directions.
    """
    network.requires_grad_(False)
    graph = network.graph
    wanted = [index for index in sorted(set(layers)) if not graph.descendants([index]).isdisjoint(graph.head_inputs)]
    generator = torch.Generator().manual_seed(seed)
    total = np.zeros(channels.units)
    rounds = 0
    if not wanted:
        return total
    with ExitStack() as hooks, torch.enable_grad():
        outputs: dict[int, Tensor] = {}
        for index in wanted:

            def listen(module: nn.Module, inputs: tuple[Tensor, ...], out: Tensor, index: int = index) -> None:
                outputs[index] = out if out.requires_grad else out.requires_grad_()

            hooks.callback(network.layers[index].register_forward_hook(listen).remove)
        for batch in batches:
            for one in torch.split(batch, 1):
                heads = list(network(one, graph.head_inputs).values())
                for _ in range(PROBES):
                    asked = torch.zeros(())
                    for h in heads:
                        signs = torch.randint(0, 2, h.shape, generator=generator).to(h) * 2 - 1
                        asked = asked.to(h) + (h * signs).sum() / h.detach().std().clamp(min=1e-12)
                    grads = torch.autograd.grad(
                        asked, [outputs[index] for index in wanted], retain_graph=True, allow_unused=True
                    )
                    change = np.zeros(channels.units)
                    for index, grad in zip(wanted, grads, strict=True):
                        if grad is not None:
                            share = (grad * outputs[index].detach()).sum((0, 2, 3)).double().cpu().numpy()
                            np.add.at(change, channels.outputs[index], share)
                    total += change**2
                    rounds += 1
    return total / max(rounds, 1)
