"""ThiNet: which channels go first when nothing is refitted between, and one factor for each that stays.

Luo, Wu, Lin 2017, "ThiNet: A Filter Level Pruning Method" (ICCV). With x_j what channel j adds to an output of a
consumer and y the output, bias left out: of the channels T that go, the sum over samples of (sum over j in T of x_j)^2
shall be least, channels joining T one at a time (eq. 6, algorithm 1); each channel j that stays is then scaled by s_j,
the least squares of y by the x_j that stay (eq. 7). Both know the samples by the sums of x_j x_k and x_j y alone.

The authors draw samples: a few places of each image, and at each one filter of the consumer. From second moments S of
the columns, all outputs count: the sum of x_j x_k is then sum_o w_oj S_jk w_ok^T over all outputs o.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from yoloprune.darknet.layers.affine import Affine
from yoloprune.darknet.model import Model
from yoloprune.darknet.network import Network
from yoloprune.prune.channels import Group, KeepMask
from yoloprune.prune.elimination import readings
from yoloprune.prune.moments import Consumer, Moments, matrix

_ROUNDING: Final = 1e-12
"""Eigenvalues of sums of squares under this share of the largest are rounding: samples say nothing there."""


@dataclass(frozen=True)
class Contributions:
    """Sums over samples of a consumer's outputs, for each of its conv groups; float64."""

    consumer: Consumer
    gram: Tensor
    """Of x_j x_k [groups, C, C] for the C channels that a conv group reads."""
    wanted: Tensor
    """Of x_j y [groups, C]."""

    @property
    def units(self) -> NDArray[np.int64]:
        """Of each channel [groups, C]."""
        return self.consumer.units[:, :: 1 if self.consumer.mixed else self.consumer.kernel]

    @classmethod
    def of_moments(cls, model: Model, consumer: Consumer, moments: Moments) -> Contributions:
        """Of all outputs at the sampled places. ValueError for a mixed consumer, whose moments don't tell."""
        if consumer.mixed:
            raise ValueError(f"layer {consumer.layer}: expected moments of its columns, found those of its channels")
        weight = matrix(model, consumer).to(moments.grams.device)
        groups, channels = consumer.groups, consumer.columns // consumer.kernel
        by_column = (weight.mT @ weight) * moments.gram[:, :-1, :-1]
        gram = by_column.view(groups, channels, consumer.kernel, channels, consumer.kernel).sum((2, 4))
        if not moments.crosses.shape[-1]:
            return cls(consumer, gram, gram.sum(2))
        wanted = (moments.crosses.sum(0)[:, :-1] * weight.mT).sum(2)
        return cls(consumer, gram, wanted.view(groups, channels, consumer.kernel).sum(2))

    def factors(self, keep: NDArray[np.bool_]) -> Tensor:
        """Of each channel [groups, C], 0 where not in `keep` [groups, C]; 1 as far as the samples say nothing.

        Eq. 7, ordinary least squares: (sum of x x^T)^-1 (sum of x y), without a constant.
        """
        factors = torch.zeros_like(self.wanted)
        for number, kept in enumerate(torch.from_numpy(keep).to(factors.device)):
            a = self.gram[number][kept][:, kept]
            if not kept.any():
                continue
            missing = self.wanted[number][kept] - a.sum(1)
            change = torch.linalg.pinv(a, rtol=_ROUNDING, hermitian=True) @ missing
            factors[number, kept] = 1 + change
        return factors


def sampled(
    network: Network, batches: Iterable[Tensor], consumers: Iterable[Consumer], places: int, seed: int
) -> dict[int, Contributions]:
    """Of single outputs: `places` drawn of each image, and a filter drawn at each.

    batches: calibration images as network input [B,C,H,W]. A consumer with fewer places, as a connected layer with its
    one, gives as many outputs of several filters.
    """
    device = next(network.parameters()).device
    samplers = [_Sampler(each, cast(Affine, network.layers[each.layer]), places, seed) for each in consumers]
    with ExitStack() as hooks, torch.inference_mode():
        for each in samplers:
            hooks.callback(each.module.register_forward_pre_hook(each.hear).remove)
        for batch in batches:
            network(batch.to(device))
    return {each.consumer.layer: each.contributions() for each in samplers}


class _Sampler:
    """Draws outputs of a consumer, image by image."""

    def __init__(self, consumer: Consumer, module: Affine, places: int, seed: int) -> None:
        self.consumer, self.module, self._places = consumer, module, places
        self._channels = consumer.columns if consumer.mixed else consumer.columns // consumer.kernel
        filters = module.weight.shape[0] // consumer.groups
        self._weight = module.weight.detach().view(consumer.groups, filters, -1)
        self._gram = torch.zeros(consumer.groups, self._channels, self._channels, dtype=torch.float64)
        self._generator = torch.Generator().manual_seed(
            int(np.random.default_rng((seed, consumer.layer)).integers(1 << 62))
        )

    def hear(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        """As a hook of the layer: its input [B,C,H,W]."""
        groups, filters, _ = self._weight.shape
        for image in torch.split(inputs[0], 1):
            columns = self.module.columns(image)
            where, drawn = (each.to(columns.device) for each in self._drawn(columns.shape[2], groups * filters))
            group = drawn // filters
            products = self._weight[group, drawn % filters].double() * columns[group, :, where].double()
            added = products.view(len(where), self._channels, -1).sum(2).cpu()  # of each channel to each output
            for number in range(groups):
                rows = added[(group == number).cpu()]
                self._gram[number] += rows.mT @ rows

    def _drawn(self, places: int, filters: int) -> tuple[Tensor, Tensor]:
        """Places of an image, and a filter at each; where there are too few places, several filters at one."""
        if places >= self._places:
            where = torch.randperm(places, generator=self._generator)[: self._places]
            return where, torch.randint(filters, where.shape, generator=self._generator)
        both = torch.randperm(places * filters, generator=self._generator)[: self._places]
        return both % places, both // places

    def contributions(self) -> Contributions:
        """What was seen; each output is the sum of what its channels add."""
        return Contributions(self.consumer, self._gram, self._gram.sum(2))


def sampled_order(group: Group, keep: KeepMask, contributions: Iterable[Contributions]) -> tuple[int, ...]:
    """As `thinet_order`, by samples of single outputs. Each consumer's squares count as a share of all of them."""
    size = len(group.units)
    q = np.zeros((size, size))
    for each in contributions:
        gram, whole = each.gram.numpy(), float(each.wanted.sum())
        for number, units in enumerate(each.units):
            member = (group.units[:, None] == units[None, :]).astype(np.float64)
            q += member @ gram[number] @ member.T / max(whole, np.finfo(np.float64).tiny)
    return _greedy(q, keep[group.units])


def thinet_order(
    model: Model, group: Group, keep: KeepMask, consumers: Mapping[int, Consumer], moments: Mapping[int, Moments]
) -> tuple[int, ...]:
    """Positions in the group in the order they go; those gone already (not in `keep`) first.

    By all outputs. They are weighted, and consumers added up, as in elimination.py.
    """
    size = len(group.units)
    q = np.zeros((size, size))
    for each in readings(model, group, keep, consumers, moments):
        by_column = ((each.weight.mT @ each.weight) * each.gram[:, :-1, :-1]).sum(0).numpy()
        member = np.zeros((size, by_column.shape[0]))
        for position, columns in enumerate(each.columns):
            member[position, columns] = 1
        q += member @ by_column @ member.T
    return _greedy(q, keep[group.units])


def _greedy(q: NDArray[np.float64], keep: NDArray[np.bool_]) -> tuple[int, ...]:
    """The order in which positions join T (algorithm 1): always the one that raises the sum of q over T least.

    q [n, n]: sums of what two units add, multiplied. keep [n]: those that aren't gone.
    """
    order = [int(position) for position in np.flatnonzero(~keep)]
    rise, left = np.diag(q).copy(), keep.copy()
    while left.any():
        chosen = int(np.argmin(np.where(left, rise, np.inf)))
        order.append(chosen)
        left[chosen] = False
        rise += 2 * q[chosen]
    return tuple(order)
