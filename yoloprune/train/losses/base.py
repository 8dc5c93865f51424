"""Losses by layer class, and how a Darknet loss enters autograd.

Darknet writes a `delta` for each head: the step that the head's input should take, which is minus the gradient. Its
reported cost is a number beside that, not its integral. So a loss here computes both without autograd, and
`custom_gradient` makes one of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from yoloprune.darknet.dialect import Dialect
from yoloprune.darknet.layers.base import Layer
from yoloprune.errors import InputError

Loss = Callable[[Any, Tensor, Tensor, Dialect, int], Tensor]
"""layer, its input [B, C, H, W], truths, dialect, images seen (with these) -> scalar.

The scalar is Darknet's cost, summed over the batch; its gradient by the input is minus Darknet's delta.

Truths of a detection head: [B, T, 5] class, centre x, centre y, width, height as fractions of the input, in Darknet's
order, rows of class -1 behind them. Truths of a classifier: [B, K] what each class is to be, 0..1."""

LOSSES: dict[type[Layer], Loss] = {}
"""Layer class -> loss."""

_Rule = Callable[[Any, Tensor, Tensor, Dialect, int], tuple[Tensor, Tensor]]
"""As `Loss`, in float32 or float64 and without autograd -> delta, which can be viewed as x, and cost."""


def loss_for(kind: type[Layer]) -> Callable[[_Rule], _Rule]:
    """Decorator that registers a loss for a layer class."""

    def register(rule: _Rule) -> _Rule:
        def loss(layer: Layer, x: Tensor, truths: Tensor, dialect: Dialect, seen: int) -> Tensor:
            return by_delta(x, lambda x: rule(layer, x, truths.to(x.dtype), dialect, seen))

        LOSSES[kind] = loss
        return rule

    return register


def find_loss(head: Layer) -> Loss:
    """The loss of a layer. InputError if nothing here can train it."""
    loss = LOSSES.get(type(head))
    if loss is None:
        known = ", ".join(sorted(f"[{kind.names[0]}]" for kind in LOSSES))
        raise InputError(f"{head}: there is no loss for it (expected one of {known})")
    return loss


def by_delta(x: Tensor, rule: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Tensor:
    """The cost of a rule, which gets x in float32 or float64 and without autograd, with its delta as the step of x."""
    with torch.no_grad():
        delta, cost = rule(x.to(torch.promote_types(x.dtype, torch.float32)))
    return custom_gradient(x, delta.view_as(x), cost)


def custom_gradient(x: Tensor, delta: Tensor, cost: Tensor) -> Tensor:
    """Scalar `cost` whose gradient by x is -delta [as x]."""
    result: Tensor = _CustomGradient.apply(x, delta, cost)  # type: ignore[no-untyped-call]
    return result


def straight_through(x: Tensor, output: Tensor) -> Tensor:
    """`output` of a head [as x], whose gradient is handed to x as it is: heads have no backward pass of their own."""
    result: Tensor = _StraightThrough.apply(x, output)  # type: ignore[no-untyped-call]
    return result


def focal(p: Tensor) -> Tensor:
    """What `focal_loss` multiplies the classes' steps by, with p the probability of the true class [as p]."""
    p = p + 1e-15
    return -0.5 * (1 - p) * (2 * p * p.log() + p - 1)


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, output: Tensor) -> Tensor:
        return output.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return grads[0], None


class _CustomGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, delta: Tensor, cost: Tensor) -> Tensor:
        ctx.save_for_backward(delta.to(x.dtype))
        return cost.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (delta,) = ctx.saved_tensors
        return -delta * grads[0], None, None
