"""Losses of classifiers (Darknet: softmax_layer.c, logistic_layer.c, cost_layer.c; blas.c softmax_x_ent_cpu ...).

A stock classifier may end in [softmax] and [cost]: both then teach, and the cost's step passes the softmax unchanged.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from yoloprune.darknet.dialect import Dialect
from yoloprune.darknet.layers.classifier import Logistic, Softmax
from yoloprune.darknet.layers.cost import Cost
from yoloprune.train.losses.base import loss_for

_UNKNOWN = -1234.0
"""Truth that type `masked` passes over (SECRET_NUM)."""


@loss_for(Softmax)
def softmax_loss(head: Softmax, x: Tensor, truths: Tensor, dialect: Dialect, seen: int) -> tuple[Tensor, Tensor]:
    """Cross entropy: delta = truth - p, without the temperature, as Darknet; cost = sum of -ln p where truth isn't 0.

    x: [B, C, H, W]; truths: [B, C*H*W]. With `noloss` nothing is taught, yet the cost of 0 counts in the mean.
    """
    if head.noloss:
        return torch.zeros_like(x), x.new_zeros(())
    logs = (x.view(len(x), head.groups, -1) / head.temperature).log_softmax(2).flatten(1)
    return truths - logs.exp(), -logs[truths != 0].sum()


@loss_for(Logistic)
def logistic_loss(head: Logistic, x: Tensor, truths: Tensor, dialect: Dialect, seen: int) -> tuple[Tensor, Tensor]:
    """Cross entropy of each class for itself (logistic_x_ent_cpu): delta = truth - p.

    x: [B, C, H, W]; truths: [B, C*H*W].
    """
    logits = x.flatten(1)
    return truths - logits.sigmoid(), F.binary_cross_entropy_with_logits(logits, truths, reduction="sum")


@loss_for(Cost)
def cost_loss(layer: Cost, x: Tensor, truths: Tensor, dialect: Dialect, seen: int) -> tuple[Tensor, Tensor]:
    """Difference to the truth by `type`, the step times `scale` and the cost not, as Darknet.

    x: [B, C, H, W]; truths: [B, C*H*W]. `sse`, `seg` and `wgan` are squares on a CPU; `smooth` steps away from the
    truth where it is over 1 off (smooth_l1_cpu has the signs swapped there).
    """
    off = truths - x.flatten(1)
    if layer.type == "masked":
        off = torch.where(truths == _UNKNOWN, 0.0, off)
    delta, error = off, off.square()
    if layer.type == "L1":
        delta, error = torch.where(off > 0, 1.0, -1.0), off.abs()
    elif layer.type == "smooth":
        near = off.abs() < 1
        delta = torch.where(near, off, torch.where(off < 0, 1.0, -1.0))
        error = torch.where(near, error, 2 * off.abs() - 1)
    return layer.scale * delta, error.sum()
