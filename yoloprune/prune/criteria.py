"""Which atoms of a group go first: one small interface, `--criterion` picks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from yoloprune.darknet.model import Model
from yoloprune.darknet.weights import Arrays
from yoloprune.errors import InputError
from yoloprune.prune.channels import Channels, Group, KeepAtoms
from yoloprune.prune.elimination import elimination_order
from yoloprune.prune.moments import Consumer, Moments


@dataclass(frozen=True)
class Evidence:
    """What a criterion may look at."""

    model: Model
    channels: Channels
    keep: KeepAtoms
    """Atoms that are still there."""
    consumers: Mapping[int, Consumer]
    moments: Mapping[int, Moments]
    """Of the consumers' inputs on calibration pictures; empty without any."""


Criterion = Callable[[Evidence, Group], tuple[int, ...]]
"""Positions in the group in the order they go; those that are gone already come first."""


def elimination(evidence: Evidence, group: Group) -> tuple[int, ...]:
    """What the consumers miss least once refitted (elimination.py): the default; weight sum where no moments tell."""
    if not evidence.moments:
        raise InputError("--criterion elimination: expected calibration pictures, found --calibrate 0")
    read_by = [each for each in evidence.consumers.values() if np.isin(group.atoms, each.atoms).any()]
    if not any(each.layer in evidence.moments for each in read_by):
        return weight_sum(evidence, group)  # its consumers are too large for moments, or there are none
    return elimination_order(
        evidence.model, evidence.channels, group, evidence.keep, evidence.consumers, evidence.moments
    )


def weight_sum(evidence: Evidence, group: Group) -> tuple[int, ...]:
    """Least sum of absolute weights of its filters (Li et al. 2017, "Pruning Filters for Efficient ConvNets", 3.1)."""
    return _ascending(evidence, group, _filter_sums)


def norm_scale(evidence: Evidence, group: Group) -> tuple[int, ...]:
    """Least absolute scale in batch norm (Liu et al. 2017, "Network Slimming", 3.2); filters without: as weight sum."""
    return _ascending(
        evidence, group, lambda arrays: np.abs(arrays["scale"]) if "scale" in arrays else _filter_sums(arrays)
    )


CRITERIA: Final[Mapping[str, Criterion]] = {"elimination": elimination, "l1": weight_sum, "bn-scale": norm_scale}
"""What `--criterion` takes."""


def default_criterion(calibrated: bool) -> str:
    """Without calibration pictures only the weights can tell."""
    return "elimination" if calibrated else "l1"


def _filter_sums(arrays: Arrays) -> NDArray[np.float32]:
    sums: NDArray[np.float32] = np.abs(arrays["weight"]).sum(tuple(range(1, arrays["weight"].ndim)))
    return sums


def _ascending(
    evidence: Evidence, group: Group, of_filters: Callable[[Arrays], NDArray[np.float32]]
) -> tuple[int, ...]:
    """By what an atom's filters add up to; each producer's values are divided by their mean, so that none drowns."""
    position = np.full(evidence.channels.atoms, -1)
    position[group.atoms] = np.arange(len(group.atoms))
    importance = np.zeros(len(group.atoms))
    for producer in group.producers:
        shares = evidence.model.graph.layers[producer].shares
        arrays = evidence.model.weights.layers[producer if shares is None else shares]
        values = of_filters(arrays).astype(np.float64)
        where = position[evidence.channels.outputs[producer]]
        share = values / max(float(values.mean()), np.finfo(np.float64).tiny)
        np.add.at(importance, where[where >= 0], share[where >= 0])
    return tuple(map(int, np.lexsort((importance, evidence.keep[group.atoms]))))
