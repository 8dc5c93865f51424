"""Which weights of a layer may stay together: single ones, blocks, or n of every m."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


class Pattern(Protocol):
    """What makes a choice of weights a legal one."""

    def keep(self, scores: Tensor, kept: int) -> Tensor:
        """The legal choice of about `kept` weights whose scores add up to most.

        scores: [groups, N, D], 0 or more, of a layer's weights as a matrix: N filters of D = C * k * k. Gives bool of
        the same shape.
        """


@dataclass(frozen=True)
class Single:
    """Any weights (Han et al. 2015, "Learning both Weights and Connections"): just the `kept` largest."""

    def keep(self, scores: Tensor, kept: int) -> Tensor:
        return _largest(scores.flatten(), kept).view(scores.shape)


@dataclass(frozen=True)
class Block:
    """Blocks of `height` filters and `width` columns, whole or not at all; edges are padded with zeros."""

    height: int
    width: int

    def keep(self, scores: Tensor, kept: int) -> Tensor:
        _, filters, columns = scores.shape
        padded = F.pad(scores, (0, -columns % self.width, 0, -filters % self.height))
        blocks = padded.unfold(1, self.height, self.height).unfold(2, self.width, self.width).sum((-2, -1))
        chosen = _largest(blocks.flatten(), round(kept / (self.height * self.width))).view(blocks.shape)
        whole = chosen.repeat_interleave(self.height, 1).repeat_interleave(self.width, 2)
        return whole[:, :filters, :columns]


@dataclass(frozen=True)
class NofM:
    """`n` of every `m` neighbours along a filter's columns (Mishra et al. 2021, "Accelerating Sparse Deep Neural
    Networks": 2:4); of fewer at the end, `n` at the most. How many are to be kept follows from that.
    """

    n: int
    m: int

    def keep(self, scores: Tensor, kept: int) -> Tensor:
        columns = scores.shape[2]
        parts = F.pad(scores, (0, -columns % self.m), value=-1.0).unfold(2, self.m, self.m)
        places = parts.topk(self.n, dim=-1).indices
        return torch.zeros_like(parts, dtype=torch.bool).scatter_(-1, places, True).flatten(2)[:, :, :columns]


def _largest(scores: Tensor, kept: int) -> Tensor:
    """Which are among the `kept` largest [M]."""
    chosen = torch.zeros_like(scores, dtype=torch.bool)
    chosen[scores.topk(min(max(kept, 0), len(scores)), sorted=False).indices] = True
    return chosen
