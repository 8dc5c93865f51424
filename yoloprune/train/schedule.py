"""Learning rate by iteration (Darknet: network.c get_current_rate)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from yoloprune.darknet.net import Net


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

    @classmethod
    def from_net(cls, net: Net, seed: int = 0) -> Schedule:
        """What [net] says."""
        return cls(
            learning_rate=net.learning_rate,
            policy=net.policy,
            burn_in=net.burn_in,
            power=net.power,
            gamma=net.gamma,
            step=net.step,
            scale=net.scale,
            steps=net.steps,
            scales=net.scales,
            max_batches=net.max_batches,
            learning_rate_min=net.learning_rate_min,
            sgdr_cycle=net.sgdr_cycle,
            sgdr_mult=net.sgdr_mult,
            seed=seed,
        )

    def rate(self, iteration: int) -> float:
        """Learning rate of update `iteration`, counted from 1.

        `sigmoid` is AlexeyAB's: pjreddie subtracts without sign, which makes the rate 0 before `step`.
        """
        if iteration < self.burn_in:
            return float(self.learning_rate * (iteration / self.burn_in) ** self.power)
        return self.learning_rate * _POLICIES[self.policy](self, iteration)


def _steps(schedule: Schedule, iteration: int) -> float:
    factor = 1.0
    for step, scale in zip(schedule.steps, schedule.scales, strict=False):
        if step > iteration:  # Darknet looks no further, also where steps are not in order
            break
        factor *= scale
    return factor


def _step(schedule: Schedule, iteration: int) -> float:
    return float(schedule.scale ** (iteration // schedule.step))


def _exp(schedule: Schedule, iteration: int) -> float:
    return schedule.gamma**iteration


def _poly(schedule: Schedule, iteration: int) -> float:
    return float(max(1 - iteration / schedule.max_batches, 0.0) ** schedule.power)


def _sigmoid(schedule: Schedule, iteration: int) -> float:
    return 0.5 - 0.5 * math.tanh(schedule.gamma * (iteration - schedule.step) / 2)  # = 1 / (1 + exp), without overflow


def _random(schedule: Schedule, iteration: int) -> float:
    return float(np.random.default_rng((schedule.seed, iteration)).random() ** schedule.power)


def _sgdr(schedule: Schedule, iteration: int) -> float:
    start, cycle = 0, max(schedule.sgdr_cycle or schedule.max_batches, 1)
    while start + cycle < iteration:
        start += cycle
        cycle *= schedule.sgdr_mult
    lowest = schedule.learning_rate_min / schedule.learning_rate if schedule.learning_rate else 0.0
    return lowest + 0.5 * (1 - lowest) * (1 + math.cos(math.pi * (iteration - start) / cycle))


_POLICIES: dict[str, Callable[[Schedule, int], float]] = {
    "constant": lambda schedule, iteration: 1.0,
    "step": _step,
    "steps": _steps,
    "exp": _exp,
    "poly": _poly,
    "sigmoid": _sigmoid,
    "random": _random,
    "sgdr": _sgdr,
}
