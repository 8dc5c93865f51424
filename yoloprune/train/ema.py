"""Exponential moving average of a network (AlexeyAB's ema_alpha).

A second network whose values follow the first: a = alpha*a + (1-alpha)*w after each update. Unlike AlexeyAB's, which
begins half-way, it runs from the first update; so that the start is soon forgotten, alpha is at most (1+n)/(10+n) after
n updates. Running statistics are averaged like weights.
"""

from __future__ import annotations

import copy

import torch

from yoloprune.darknet.network import Network


def averaged(network: Network) -> Network:
    """The average before the first update: the network itself."""
    return copy.deepcopy(network).eval().requires_grad_(False)


@torch.no_grad()
def update_average(average: Network, network: Network, alpha: float, updates: int) -> None:
    """Move the average toward a network that has done `updates`."""
    share = 1 - min(alpha, (1 + updates) / (10 + updates))
    torch._foreach_lerp_(list(average.state_dict().values()), list(network.state_dict().values()), share)
