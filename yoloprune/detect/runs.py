"""Sorting by several keys, and runs of equal numbers within what is sorted."""

from __future__ import annotations

import torch
from torch import Tensor


def argsort(*keys: Tensor) -> Tensor:
    """[M] numbers in order of the last key [M], equal ones of the one before; what is equal in all stays as it is."""
    first, *others = keys
    order = first.argsort(stable=True)
    for key in others:
        order = order.index_select(0, key.index_select(0, order).argsort(stable=True))
    return order


def rank(segment: Tensor) -> Tensor:
    """[M]: how many of the same segment stand before each; segment [M]: in order."""
    number = torch.arange(len(segment), device=segment.device)
    is_first = torch.ones_like(number, dtype=torch.bool)
    torch.ne(segment[1:], segment[:-1], out=is_first[1:])
    return number.sub_(torch.where(is_first, number, 0).cummax(0).values)


def ranges(starts: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Of each i in turn counts[i] whole numbers from starts[i] on: for each of them the i, and the number itself."""
    owner = torch.repeat_interleave(counts)
    begin = starts - counts.cumsum(0).sub_(counts)
    return owner, torch.arange(len(owner), device=counts.device).add_(begin.index_select(0, owner))
