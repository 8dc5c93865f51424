"""Which atoms of a group go first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from yoloprune.darknet.model import Model
from yoloprune.prune.channels import Channels, Group, KeepAtoms

Criterion = Callable[[Model, Channels, Group], NDArray[np.float64]]
"""Importance of each atom of a group, higher is kept longer [atoms]."""


def weight_sum(model: Model, channels: Channels, group: Group) -> NDArray[np.float64]:
    """Sum of absolute weights of an atom's filters (L1; Li et al. 2017, "Pruning Filters for Efficient ConvNets", 3.1).

    A group with several producers adds them up, each divided by its mean so that none drowns the others.
    """
    position = {int(atom): number for number, atom in enumerate(group.atoms)}
    importance = np.zeros(len(group.atoms))
    for producer in group.producers:
        weight = model.weights.layers[producer]["weight"]
        sums = np.abs(weight.reshape(weight.shape[0], -1)).sum(1, dtype=np.float64)
        sums /= max(float(sums.mean()), np.finfo(np.float64).tiny)
        for atom, value in zip(channels.outputs[producer], sums, strict=True):
            if int(atom) in position:
                importance[position[int(atom)]] += value
    return importance


def scale(model: Model, channels: Channels, group: Group) -> NDArray[np.float64]:
    """Absolute batch-norm scale of an atom's filters (Liu et al. 2017, "Network Slimming", 3); weight sum without."""
    position = {int(atom): number for number, atom in enumerate(group.atoms)}
    importance = np.zeros(len(group.atoms))
    for producer in group.producers:
        arrays = model.weights.layers[producer]
        if "scale" not in arrays:
            return weight_sum(model, channels, group)
        values = np.abs(arrays["scale"]).astype(np.float64)
        values /= max(float(values.mean()), np.finfo(np.float64).tiny)
        for atom, value in zip(channels.outputs[producer], values, strict=True):
            if int(atom) in position:
                importance[position[int(atom)]] += value
    return importance


CRITERIA: Final[Mapping[str, Criterion]] = {"l1": weight_sum, "bn-scale": scale}
"""What `--criterion` takes."""


def removal_order(
    criterion: Criterion, model: Model, channels: Channels, group: Group, keep: KeepAtoms
) -> tuple[int, ...]:
    """Positions in the group in the order they go: those gone already first, then by growing importance."""
    importance = criterion(model, channels, group)
    gone = ~keep[group.atoms]
    return tuple(map(int, np.lexsort((importance, ~gone))))
