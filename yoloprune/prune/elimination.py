"""Which channels go first when the consumers are refitted after each: greedy backward elimination.

Optimal Brain Surgeon (Hassibi and Stork 1993, eq. 5) by whole channels: with H the inverse of a consumer's second
moments, dropping the columns J costs w_J (H_JJ)^-1 w_J^T once all other columns are refitted. Drop the unit that costs
least over all of its consumers, refit, update H, repeat.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from yoloprune.darknet.layers.norm import inverse_deviation
from yoloprune.darknet.model import Model
from yoloprune.prune.channels import Group, KeepMask
from yoloprune.prune.moments import Consumer, Moments, matrix

_RIDGE: Final = 1e-4
"""Share of a column's own second moment that is added to it, so that what pictures say too little of isn't trusted."""
_MOST_STEPS: Final = 128
"""Groups of twice as many units and more lose several at a time, those that cost least then: under 256 steps."""


def elimination_order(
    model: Model, group: Group, keep: KeepMask, consumers: Mapping[int, Consumer], moments: Mapping[int, Moments]
) -> tuple[int, ...]:
    """Positions in the group in the order they go; those gone already (not in `keep`) first."""
    gone = [int(position) for position in np.flatnonzero(~keep[group.units])]
    left = [int(position) for position in np.flatnonzero(keep[group.units])]
    parts = [_Part(each) for each in readings(model, group, keep, consumers, moments)]
    order = list(gone)
    at_once = max(1, len(left) // _MOST_STEPS)
    while left:
        cost = torch.stack([part.costs(left) for part in parts]).sum(0) if parts else torch.zeros(len(left))
        cheapest = torch.argsort(cost, stable=True)[:at_once].tolist()
        chosen = [left[number] for number in cheapest]
        for position in chosen:
            for part in parts:
                part.drop(position)
        order += chosen
        left = [position for position in left if position not in set(chosen)]
    return tuple(order)


@dataclass(frozen=True)
class Reading:
    """What a consumer makes of a group's units, by columns that are still there."""

    gram: Tensor
    """Second moments [groups, K+1, K+1]; the last is the constant."""
    weight: Tensor
    """[groups, n, K], each output in shares of the deviation of all that the consumer puts out."""
    columns: list[list[int]]
    """For each position in the group the columns of its unit."""


def readings(
    model: Model, group: Group, keep: KeepMask, consumers: Mapping[int, Consumer], moments: Mapping[int, Moments]
) -> list[Reading]:
    """Of all consumers of the group that have moments."""
    return [
        _reading(model, consumer, moments[consumer.layer], group.units, keep)
        for consumer in consumers.values()
        if consumer.layer in moments and np.isin(group.units, consumer.units).any()
    ]


def _reading(model: Model, consumer: Consumer, moments: Moments, units: NDArray[np.int64], keep: KeepMask) -> Reading:
    # Columns that are gone already are out of the equations; the constant (last) stays in.
    there = np.flatnonzero(keep[consumer.units[0]])
    rows = torch.from_numpy(np.append(there, consumer.columns))
    gram = moments.gram.cpu()[:, rows][:, :, rows]
    weight = matrix(model, consumer)
    if consumer.mixed:  # each place of the kernel has its own outputs
        by_place = weight.view(consumer.groups, -1, consumer.columns, consumer.kernel).mT
        weight = by_place.reshape(consumer.groups, -1, consumer.columns)
    weight = weight[:, :, torch.from_numpy(there)]
    weight = weight * _importance(model, consumer, gram, weight)
    if weight.shape[1] > weight.shape[2]:
        weight = torch.linalg.qr(weight, mode="r").R  # costs are of W^T W alone, so fewer outputs do
    # Units are coupled over the consumer's groups, so a position of `units` is at the same columns in each of them.
    columns_of: dict[int, list[int]] = {}
    for number, column in enumerate(there):
        for by_group in consumer.units:
            columns_of.setdefault(int(by_group[column]), []).append(number)
    return Reading(gram, weight, [sorted(set(columns_of.get(int(unit), []))) for unit in units])


class _Part:
    """One consumer's share of the cost, kept up to date as units go."""

    def __init__(self, reading: Reading) -> None:
        own = reading.gram.diagonal(dim1=1, dim2=2)
        floor = own.mean(1, keepdim=True) * 1e-6 + torch.finfo(own.dtype).tiny
        self.inverse = torch.linalg.inv(reading.gram + torch.diag_embed(_RIDGE * (own + floor)))
        self.weight = torch.cat([reading.weight, torch.zeros_like(reading.weight[:, :, :1])], 2)
        self.columns = reading.columns

    def costs(self, positions: list[int]) -> Tensor:
        """What each unit would cost now [len(positions)]."""
        result = torch.zeros(len(positions), dtype=torch.float64)
        sizes = np.array([len(self.columns[position]) for position in positions])
        for size in set(sizes.tolist()) - {0}:
            which = np.flatnonzero(sizes == size)
            index = torch.tensor([self.columns[positions[number]] for number in which])
            blocks = self.inverse[:, index[:, :, None], index[:, None, :]]  # [groups, P, size, size]
            weights = self.weight[:, :, index].permute(0, 2, 3, 1)  # [groups, P, size, n]
            solved = weights / blocks if size == 1 else torch.linalg.solve(blocks, weights)
            result[torch.from_numpy(which)] = (weights * solved).sum((0, 2, 3))
        return result

    def drop(self, position: int) -> None:
        """Refit without this unit."""
        columns = self.columns[position]
        if not columns:
            return
        rows = self.inverse[:, columns]  # [groups, b, D+1]
        solved = torch.linalg.solve(self.inverse[:, columns][:, :, columns], rows)
        self.weight.baddbmm_(self.weight[:, :, columns], solved, alpha=-1)
        self.inverse.baddbmm_(rows.mT, solved, alpha=-1)
        self.weight[:, :, columns] = 0
        # Exactly apart from here on, whatever rounding left.
        self.inverse[:, columns] = 0
        self.inverse[:, :, columns] = 0
        self.inverse[:, columns, columns] = 1


def _importance(model: Model, consumer: Consumer, gram: Tensor, weight: Tensor) -> Tensor:
    """Factor [groups, n, 1] of each output, so that errors count as batch norm passes them on, and consumers alike.

    0 for a consumer that always puts out the same.
    """
    arrays = model.weights.layers[consumer.layer]
    factor = torch.ones(consumer.groups, len(arrays["weight"]) // consumer.groups, 1, dtype=torch.float64)
    if "scale" in arrays:
        variance = torch.from_numpy(arrays["variance"].astype(np.float64))
        scale = torch.from_numpy(arrays["scale"].astype(np.float64))
        factor = (scale * inverse_deviation(variance, model.graph.dialect)).view(factor.shape)
    if consumer.mixed:
        factor = factor.repeat_interleave(consumer.kernel, 1)
    samples = gram[:, -1:, -1:]
    mean = gram[:, :-1, -1:] / samples
    covariance = gram[:, :-1, :-1] / samples - mean @ mean.mT
    energy = ((weight @ covariance) * weight).sum(2, keepdim=True) * factor**2
    whole = energy.sum() * samples[0, 0, 0]
    return factor / whole.sqrt() if whole > 0 else torch.zeros_like(factor)
