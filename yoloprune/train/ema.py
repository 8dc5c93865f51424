"""Exponential moving average of a network (AlexeyAB's ema_alpha)."""

from __future__ import annotations

import copy

import torch

from yoloprune.darknet.network import Network


class AveragedNetwork:
    """A second network whose values follow the first: a = alpha*a + (1-alpha)*w after each update.

    Unlike AlexeyAB's, which begins half-way, it runs from the first update; so that the start is soon forgotten, alpha
    is at most (1+n)/(10+n) after n updates. Running statistics are averaged like weights.
    """

    def __init__(self, network: Network, alpha: float) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self._alpha = alpha

    @torch.no_grad()
    def update(self, network: Network, updates: int) -> None:
        """One step toward `network`, which has done `updates` of them."""
        share = 1 - min(self._alpha, (1 + updates) / (10 + updates))
        mine, theirs = list(self.network.state_dict().values()), list(network.state_dict().values())
        torch._foreach_lerp_(mine, theirs, share)
