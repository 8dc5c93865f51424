"""Which units of a group go first: one small interface, `--criterion` picks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final
from zlib import crc32

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from yoloprune.darknet.model import Model
from yoloprune.darknet.network import build
from yoloprune.darknet.weights import Arrays
from yoloprune.errors import InputError
from yoloprune.prune.activity import head_changes, zero_shares
from yoloprune.prune.channels import Channels, Group, KeepMask
from yoloprune.prune.elimination import elimination_order
from yoloprune.prune.moments import Consumer, Moments, affordable, collect, consumers
from yoloprune.prune.thinet import Contributions, sampled, sampled_order, thinet_order


@dataclass(frozen=True)
class CalibrationStatistics:
    """What calibration images tell of a network, for ranking channels and for refitting; computed when asked for."""

    model: Model
    channels: Channels
    keep: KeepMask
    """Units that are still there."""
    batches: Sequence[Tensor] = ()
    """Calibration images as network input [B,C,H,W]."""
    device: str | torch.device = "cpu"
    layers: frozenset[int] | None = None
    """Consumers that are looked at; None: all."""
    places: int = 0
    """For `thinet` and scaling: outputs that are drawn of each image; 0: all count, by second moments."""
    seed: int = 0
    """Of what is drawn."""

    @cached_property
    def consumers(self) -> Mapping[int, Consumer]:
        """What reads channels that can go, in the form that memory allows."""
        return {**self._wanted, **self._affordable}

    @cached_property
    def _wanted(self) -> Mapping[int, Consumer]:
        """In the exact form, whatever memory that takes."""
        found = consumers(self.model.graph, self.channels)
        return {index: found[index] for index in found if self.layers is None or index in self.layers}

    @cached_property
    def _affordable(self) -> Mapping[int, Consumer]:
        """Without those that are too large in any form, of which criteria know nothing."""
        return affordable(self._wanted.values())

    @cached_property
    def moments(self) -> Mapping[int, Moments]:
        """Second moments of the consumers' inputs; empty without images."""
        if not self.batches:
            return {}
        images = sum(map(len, self.batches))
        return collect(build(self.model, self.device), self.batches, self._affordable.values(), images)

    @cached_property
    def contributions(self) -> Mapping[int, Contributions]:
        """What channels add to the outputs of their consumers (thinet.py); only of those that it can be told of."""
        if self.places:
            network = build(self.model, self.device)
            return sampled(network, self.batches, self._wanted.values(), self.places, self.seed)
        return {
            index: Contributions.of_moments(self.model, self.consumers[index], found)
            for index, found in self.moments.items()
            if not self.consumers[index].mixed
        }

    @property
    def makers(self) -> list[int]:
        """Layers that make channels of a group."""
        return sorted({producer for group in self.channels.groups for producer in group.producers})

    @cached_property
    def silence(self) -> Mapping[int, NDArray[np.float64]]:
        """For each maker how often its filters give nothing (activity.py)."""
        return zero_shares(build(self.model, self.device), self._on_device(), self.makers)

    @cached_property
    def head_changes(self) -> NDArray[np.float64]:
        """How much the heads would miss each unit, to first order (activity.py)."""
        return head_changes(build(self.model, self.device), self.channels, self._on_device(), self.makers)

    def _on_device(self) -> Iterator[Tensor]:
        return (batch.to(self.device) for batch in self.batches)


Criterion = Callable[[CalibrationStatistics, Group], tuple[int, ...]]
"""Positions in the group in the order they go; those that are gone already come first."""


def elimination(statistics: CalibrationStatistics, group: Group) -> tuple[int, ...]:
    """What the consumers miss least once refitted (elimination.py): the default; l1 where no moments tell."""
    _need_images(statistics, "elimination")
    if not _moments_tell(statistics, group):
        return l1(statistics, group)
    return elimination_order(statistics.model, group, statistics.keep, statistics.consumers, statistics.moments)


def thinet(statistics: CalibrationStatistics, group: Group) -> tuple[int, ...]:
    """What the consumers miss least if nothing is refitted (thinet.py); l1 where nothing tells."""
    _need_images(statistics, "thinet")
    if statistics.places:
        reading = [each for each in statistics.contributions.values() if np.isin(group.units, each.units).any()]
        return sampled_order(group, statistics.keep, reading) if reading else l1(statistics, group)
    if not _moments_tell(statistics, group):
        return l1(statistics, group)
    return thinet_order(statistics.model, group, statistics.keep, statistics.consumers, statistics.moments)


def apoz(statistics: CalibrationStatistics, group: Group) -> tuple[int, ...]:
    """What is most often 0 or below (Hu et al. 2016, "Network Trimming", eq. 1), added up over a unit's filters."""
    _need_images(statistics, "apoz")
    return _ascending(statistics, group, lambda producer: 1 - statistics.silence[producer])


def taylor(statistics: CalibrationStatistics, group: Group) -> tuple[int, ...]:
    """What changes the heads least to first order (Molchanov et al. 2019, eq. 8, without labels: activity.py)."""
    _need_images(statistics, "taylor")
    return _by_importance(statistics, group, statistics.head_changes[group.units])


def l1(statistics: CalibrationStatistics, group: Group) -> tuple[int, ...]:
    """Least sum of absolute weights of its filters (Li et al. 2017, "Pruning Filters for Efficient ConvNets", 3.1)."""
    return _ascending(statistics, group, lambda producer: _filter_sums(_arrays(statistics, producer)))


def bn_scale(statistics: CalibrationStatistics, group: Group) -> tuple[int, ...]:
    """Least absolute scale in batch norm (Liu et al. 2017, "Network Slimming", 3.2); filters without: as l1."""

    def scales(producer: int) -> NDArray[np.floating]:
        arrays = _arrays(statistics, producer)
        return np.abs(arrays["scale"]) if "scale" in arrays else _filter_sums(arrays)

    return _ascending(statistics, group, scales)


def random(statistics: CalibrationStatistics, group: Group) -> tuple[int, ...]:
    """By chance, to compare with; drawn anew for other weights, the same again for the same."""
    seed = crc32(_arrays(statistics, group.producers[0])["weight"].tobytes())
    return _by_importance(statistics, group, np.random.default_rng(seed).random(len(group.units)))


CRITERIA: Final[Mapping[str, Criterion]] = {
    "elimination": elimination,
    "l1": l1,
    "bn-scale": bn_scale,
    "apoz": apoz,
    "taylor": taylor,
    "thinet": thinet,
    "random": random,
}
"""What `--criterion` takes."""


def default_criterion(refits: bool) -> str:
    """`elimination` supposes that all is refitted; without, weights tell as much as anything."""
    return "elimination" if refits else "l1"


def _need_images(statistics: CalibrationStatistics, name: str) -> None:
    if not (statistics.batches or statistics.moments):
        raise InputError(f"--criterion {name}: expected calibration images, found --calibrate 0")


def _moments_tell(statistics: CalibrationStatistics, group: Group) -> bool:
    """False if all of the group's consumers are too large for moments, or there are none."""
    read_by = [each for each in statistics.consumers.values() if np.isin(group.units, each.units).any()]
    return any(each.layer in statistics.moments for each in read_by)


def _arrays(statistics: CalibrationStatistics, producer: int) -> Arrays:
    """What a layer computes with: its own arrays, or those of the layer that it shares them with."""
    shares = statistics.model.graph.layers[producer].shares
    return statistics.model.weights.layers[producer if shares is None else shares]


def _filter_sums(arrays: Arrays) -> NDArray[np.float32]:
    sums: NDArray[np.float32] = np.abs(arrays["weight"]).sum(tuple(range(1, arrays["weight"].ndim)))
    return sums


def _ascending(
    statistics: CalibrationStatistics, group: Group, of_filters: Callable[[int], NDArray[np.floating]]
) -> tuple[int, ...]:
    """By what a unit's filters add up to; each producer's values are divided by their mean, so that none drowns."""
    position = np.full(statistics.channels.units, -1)
    position[group.units] = np.arange(len(group.units))
    importance = np.zeros(len(group.units))
    for producer in group.producers:
        values = of_filters(producer).astype(np.float64)
        where = position[statistics.channels.outputs[producer]]
        share = values / max(float(values.mean()), np.finfo(np.float64).tiny)
        np.add.at(importance, where[where >= 0], share[where >= 0])
    return _by_importance(statistics, group, importance)


def _by_importance(statistics: CalibrationStatistics, group: Group, importance: NDArray[np.float64]) -> tuple[int, ...]:
    """The least first, after those that are gone."""
    return tuple(map(int, np.lexsort((importance, statistics.keep[group.units]))))
