"""A training run between two updates: what a checkpoint holds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from yoloprune.train.progress import Record


@dataclass
class Snapshot:
    """What trains, between two updates."""

    iteration: int
    """Updates done."""
    network: dict[str, Tensor]
    optimizer: dict[str, Any]
    average: dict[str, Tensor] | None
    """The averaged network, where there is one."""
    mask: dict[str, Tensor] | None
    """True where a value is kept, by its array's name in `network`, where masks are chosen on the way."""


@dataclass
class State(Snapshot):
    """A run between two updates."""

    run: str
    """Fingerprint of what the run computes; see `checkpoint.fingerprint`."""
    history: Tensor
    """[updates of the run, 5] in float64: the fields of each `Record`, NaN where there is none."""
    best: dict[str, Tensor] | None = None
    """The network of the best metric."""
    best_metric: float | None = None
    best_iteration: int = 0
    """0: the weights that the run began with."""
    start_metric: float | None = None
    """Of the weights that the run began with, where it is known."""
    evaluated: int = -1
    """The last update after which accuracy was measured; -1: not even before the first."""
    good: dict[str, Any] | None = None
    """The fields of the `Snapshot` to roll back to where values aren't finite; None: this very state."""
    rollbacks: list[list[int]] = field(default_factory=list)
    """Of each time that the run went back: the update after which values weren't finite, and where it went."""

    def records(self, start: int = 0) -> list[Record]:
        """Of the updates done, from index `start` on."""
        return [
            Record(int(iteration), loss, average, rate, None if math.isnan(metric) else metric)
            for iteration, loss, average, rate, metric in self.history[: self.iteration][start:].tolist()
        ]

    def average_loss(self, iteration: int) -> float:
        """The averaged loss after an update done."""
        return float(self.history[iteration - 1, 2])

    def add_update(self, loss: float, rate: float) -> None:
        """One more update is done."""
        average = 0.9 * self.average_loss(self.iteration) + 0.1 * loss if self.iteration else loss
        self.iteration += 1
        self.history[self.iteration - 1] = self.history.new_tensor([self.iteration, loss, average, rate, math.nan])

    def add_metric(self, metric: float, network: Mapping[str, Tensor], counted_from: int) -> None:
        """What the network as it is now measures; of equals from update `counted_from` on the later is the best."""
        if self.iteration:
            self.history[self.iteration - 1, -1] = metric
        else:
            self.start_metric = metric
        if self.iteration >= counted_from and (self.best_metric is None or metric >= self.best_metric):
            self.best_metric, self.best_iteration, self.best = metric, self.iteration, copied(network)
        self.evaluated = self.iteration

    def roll_back(self, good: Snapshot, failed: int, counted_from: int) -> None:
        """Undo all updates after `good`, since values weren't finite after update `failed`.

        A best from there stays, but where `good` is from before update `counted_from`: its mask may not come again.
        """
        self.rollbacks.append([failed, good.iteration])
        self.iteration, self.evaluated = good.iteration, min(self.evaluated, good.iteration)
        self.history[good.iteration :] = math.nan
        if good.iteration < counted_from:
            self.best, self.best_metric, self.best_iteration = None, None, 0

    def stale(self, counted_from: int) -> int:
        """Measurements since the metric last rose, of those from update `counted_from` on."""
        count, best = 0, -math.inf if self.start_metric is None or counted_from else self.start_metric
        for record in self.records(max(counted_from - 1, 0)):
            if record.metric is not None:
                count = 0 if record.metric > best else count + 1
                best = max(best, record.metric)
        return count


def copied(value: Any) -> Any:
    """A copy, on the CPU, of a tensor or of what dicts and lists hold of them."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: copied(each) for key, each in value.items()}
    return [copied(each) for each in value] if isinstance(value, list) else value
