"""Learning rate by iteration (Darknet: network.c get_current_rate)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from itertools import takewhile
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Schedule:
    """A learning rate over iterations; the fields are the keys of [net]."""

    learning_rate: float
    policy: str = "constant"
    burn_in: int = 0
    power: float = 4.0
    gamma: float = 1.0
    step: int = 1
    scale: float = 1.0
    steps: tuple[int, ...] = ()
    scales: tuple[float, ...] = ()
    max_batches: int = 0
    learning_rate_min: float = 1e-5
    sgdr_cycle: int = 0
    """Iterations of the first cycle; 0: max_batches."""
    sgdr_mult: int = 2
    seed: int = 0
    """For policy `random`, which Darknet draws from the C library."""

    def rate(self, iteration: int) -> float:
        """Learning rate of update `iteration`, counted from 1.

        `sigmoid` is AlexeyAB's: pjreddie subtracts without sign, which makes the rate 0 before `step`.
        """
        if iteration < self.burn_in:
            return float(self.learning_rate * (iteration / self.burn_in) ** self.power)
        return self.learning_rate * float(_POLICIES[self.policy](self, iteration))


def _steps(schedule: Schedule, iteration: int) -> float:
    reached = takewhile(lambda step: step[0] <= iteration, zip(schedule.steps, schedule.scales, strict=False))
    return math.prod(scale for _, scale in reached)  # Darknet looks no further, also where steps are not in order


def _sgdr(schedule: Schedule, iteration: int) -> float:
    start, cycle = 0, max(schedule.sgdr_cycle or schedule.max_batches, 1)
    while start + cycle < iteration:
        start += cycle
        cycle *= schedule.sgdr_mult
    lowest = schedule.learning_rate_min / schedule.learning_rate if schedule.learning_rate else 0.0
    return lowest + 0.5 * (1 - lowest) * (1 + math.cos(math.pi * (iteration - start) / cycle))


_POLICIES: dict[str, Callable[[Schedule, int], float]] = {
    "constant": lambda net, iteration: 1.0,
    "step": lambda net, iteration: net.scale ** (iteration // net.step),
    "steps": _steps,
    "exp": lambda net, iteration: net.gamma**iteration,
    "poly": lambda net, iteration: max(1 - iteration / net.max_batches, 0.0) ** net.power,
    # 1 / (1 + exp), without overflow
    "sigmoid": lambda net, iteration: 0.5 - 0.5 * math.tanh(net.gamma * (iteration - net.step) / 2),
    "random": lambda net, iteration: np.random.default_rng((net.seed, iteration)).random() ** net.power,
    "sgdr": _sgdr,
}
"""Policy -> the share of learning_rate, by the keys of [net] and the iteration."""


def same_named(kind: type[Any], source: object) -> dict[str, Any]:
    """What an object has under the names of a dataclass's fields."""
    return {each.name: getattr(source, each.name) for each in fields(kind) if hasattr(source, each.name)}
