"""Which weights of a layer go together, and which may: single ones, blocks, or n of every m."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol, Self

import torch
import torch.nn.functional as F
from torch import Tensor

Pooling = Literal["average", "max"]
"""What a block is scored by, of its weights' scores."""


class Pattern(Protocol):
    """What makes a choice of weights a legal one, and in what units they are counted.

    A layer's weights are a matrix, or one for each group of a grouped convolution: [groups, N, D] of N filters of
    D = C * k * k.
    """

    def of_kernel(self, places: int) -> Self:
        """The same for a layer whose kernel has so many places, k * k."""

    @property
    def width(self) -> int:
        """Neighbouring columns that are chosen together."""

    def size(self, groups: int, filters: int, columns: int) -> int:
        """How many units a layer of that shape has."""

    def counts(self) -> Sequence[int]:
        """How many units may be pruned, where not any number may; else empty."""

    def left(self, kept: Tensor) -> int:
        """Units of which any weight is left. kept: bool [groups, N, D]."""

    def keep(self, scores: Tensor, left: int) -> Tensor:
        """The choice of `left` units whose scores add up to most; bool. scores [groups, N, D]; below 0: the last."""


@dataclass(frozen=True)
class Single:
    """A unit is a weight (Han et al. 2015, "Learning both Weights and Connections")."""

    def of_kernel(self, places: int) -> Self:
        return self

    @property
    def width(self) -> int:
        return 1

    def size(self, groups: int, filters: int, columns: int) -> int:
        return groups * filters * columns

    def counts(self) -> Sequence[int]:
        return ()

    def left(self, kept: Tensor) -> int:
        return int(kept.sum())

    def keep(self, scores: Tensor, left: int) -> Tensor:
        return _largest(scores.flatten(), left).view(scores.shape)


@dataclass(frozen=True)
class Block:
    """A unit is a block of `height` filters and `width` columns; edges are padded with zeros (TensorFlow's
    `block_size` and `block_pooling_type`).
    """

    height: int
    width: int
    pooling: Pooling = "average"

    def of_kernel(self, places: int) -> Self:
        return self

    def size(self, groups: int, filters: int, columns: int) -> int:
        return groups * -(-filters // self.height) * -(-columns // self.width)

    def counts(self) -> Sequence[int]:
        return ()

    def left(self, kept: Tensor) -> int:
        return int(self._blocks(kept.to(torch.float32)).amax((-2, -1)).sum())

    def keep(self, scores: Tensor, left: int) -> Tensor:
        _, filters, columns = scores.shape
        blocks = self._blocks(scores)
        pooled = blocks.amax((-2, -1)) if self.pooling == "max" else blocks.sum((-2, -1))
        chosen = _largest(pooled.flatten(), left).view(pooled.shape)
        whole = chosen.repeat_interleave(self.height, 1).repeat_interleave(self.width, 2)
        return whole[:, :filters, :columns]

    def _blocks(self, values: Tensor) -> Tensor:
        """[groups, N, D] -> [groups, rows, columns, height, width]."""
        padded = F.pad(values, (0, -values.shape[2] % self.width, 0, -values.shape[1] % self.height))
        return padded.unfold(1, self.height, self.height).unfold(2, self.width, self.width)


@dataclass(frozen=True)
class NofM:
    """`n` of every `m` neighbours among the input channels stay, at each place of the kernel (Mishra et al. 2021,
    "Accelerating Sparse Deep Neural Networks": 2:4, which TensorRT and cuSPARSELt take); of fewer at the end, `n` at
    the most. The units are the m: a layer keeps all or n of them.
    """

    n: int
    m: int
    places: int = 1
    """Of the kernel: so many columns lie between two neighbours."""

    def of_kernel(self, places: int) -> Self:
        return replace(self, places=places)

    @property
    def width(self) -> int:
        return self.m * self.places

    def size(self, groups: int, filters: int, columns: int) -> int:
        return self.m

    def counts(self) -> Sequence[int]:
        return (self.m - self.n,)

    def left(self, kept: Tensor) -> int:
        most = int(self._parts(kept.to(torch.float32), 0.0).sum(-1).max())
        return self.m if most > self.n else self.n

    def keep(self, scores: Tensor, left: int) -> Tensor:
        parts = self._parts(scores, -torch.inf)
        largest = parts.topk(left, dim=-1).indices
        chosen = torch.zeros_like(parts, dtype=torch.bool).scatter_(-1, largest, True).flatten(-2)
        return chosen[..., : scores.shape[2] // self.places].transpose(2, 3).reshape(scores.shape)

    def _parts(self, values: Tensor, padding: float) -> Tensor:
        """[groups, N, D] -> [groups, N, places, parts, m]."""
        by_place = values.reshape(*values.shape[:2], -1, self.places).transpose(2, 3)
        return F.pad(by_place, (0, -by_place.shape[3] % self.m), value=padding).unfold(3, self.m, self.m)


def choose(pattern: Pattern, scores: Tensor, left: int, alive: Tensor) -> Tensor:
    """What a pattern keeps of the weights that are `alive` [groups, N, D]; those gone before count for nothing."""
    return pattern.keep(scores.masked_fill(~alive, -torch.finfo(scores.dtype).tiny), left) & alive


def _largest(scores: Tensor, left: int) -> Tensor:
    """Which are among the `left` largest [M]."""
    chosen = torch.zeros_like(scores, dtype=torch.bool)
    chosen[scores.topk(min(max(left, 0), len(scores)), sorted=False).indices] = True
    return chosen
