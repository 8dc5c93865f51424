"""Loss of a classifier (Darknet: softmax_layer.c, blas.c softmax_x_ent_cpu)."""

from __future__ import annotations

import torch
from torch import Tensor

from yoloprune.darknet.dialect import Dialect
from yoloprune.darknet.layers.head import Softmax
from yoloprune.errors import InputError
from yoloprune.train.losses.base import inject, loss_for


@loss_for(Softmax)
def softmax_loss(head: Softmax, x: Tensor, truths: Tensor, dialect: Dialect, seen: int) -> Tensor:
    """Cross entropy: delta = truth - p, without the temperature, as Darknet; cost = -ln p of the true class.

    x: [B, C, H, W]; truths: [B] int64, -1 adds nothing. InputError for a softmax in groups, which has no one class.
    """
    if head.groups != 1:
        raise InputError(f"{head}: only groups=1 can be trained, found {head.groups}")
    with torch.no_grad():
        logs = (x.float().flatten(1) / head.temperature).log_softmax(1)
        known = truths >= 0
        wanted = torch.zeros_like(logs).scatter_(1, truths.clamp(min=0)[:, None], 1.0)
        delta = (wanted - logs.exp()) * known[:, None]
        cost = -(wanted * logs).sum(1)[known].sum()
    return inject(x, delta.view_as(x), cost)
