"""Losses by head class, and how a Darknet loss enters autograd.

Darknet writes a `delta` for each head: the step that the head's input should take, which is minus the gradient. Its
reported cost is a number beside that, not its integral. So a loss here computes both without autograd and joins them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from yoloprune.darknet.dialect import Dialect
from yoloprune.darknet.layers.head import Head
from yoloprune.errors import InputError

Loss = Callable[[Any, Tensor, Tensor, Dialect, int], Tensor]
"""head, its input [B, C, H, W], truths, dialect, images seen (with these) -> scalar.

The scalar is Darknet's cost, summed over the batch; its gradient by the input is minus Darknet's delta.

Truths of a detection head: [B, T, 5] class, centre x, centre y, width, height as fractions of the input, in Darknet's
order, rows of class -1 behind them. Truths of a classifier: [B] int64 class, -1 for none."""

LOSSES: dict[type[Head], Loss] = {}
"""Head class -> loss."""

_L = TypeVar("_L", bound=Loss)


def loss_for(kind: type[Head]) -> Callable[[_L], _L]:
    """Decorator that enters a loss for a head class."""

    def enter(loss: _L) -> _L:
        LOSSES[kind] = loss
        return loss

    return enter


def find_loss(head: Head) -> Loss:
    """The loss of a head. InputError if nothing here can train it."""
    loss = LOSSES.get(type(head))
    if loss is None:
        known = ", ".join(sorted(f"[{kind.names[0]}]" for kind in LOSSES))
        raise InputError(f"{head}: there is no loss for it (expected one of {known})")
    return loss


def inject(x: Tensor, delta: Tensor, cost: Tensor) -> Tensor:
    """Scalar `cost` whose gradient by x is -delta [as x]."""
    result: Tensor = _Injected.apply(x, delta, cost)  # type: ignore[no-untyped-call]
    return result


class _Injected(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, delta: Tensor, cost: Tensor) -> Tensor:
        ctx.save_for_backward(delta.to(x.dtype))
        return cost.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (delta,) = ctx.saved_tensors
        return -delta * grads[0], None, None
