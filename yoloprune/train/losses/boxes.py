"""How far two boxes overlap and which way that grows (AlexeyAB: box.c box_iou_kind, dx_box_iou).

Boxes are centre x, centre y, width, height in the last axis [..., 4], as fractions of the network's input.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from yoloprune.detect.overlap import iou

_PAIRS_AT_ONCE = 1 << 20
"""Pairs of a box and a truth whose overlap is computed in one go: what stays in the cache."""


def best_truths(boxes: Tensor, truths: Tensor) -> tuple[Tensor, Tensor]:
    """For each predicted box the overlap with the truth that fits it best, and which: both [B, A, H, W].

    boxes: [4, B, A, H, W], truths: [B, T, 4].
    """
    shape = boxes.shape[1:]
    best = boxes.new_zeros(shape)
    which = torch.zeros(shape, dtype=torch.int64, device=boxes.device)
    if not truths.shape[1]:
        return best, which
    x, y, width, height = boxes.flatten(2)[:, :, None]  # [B, 1, A*H*W]
    left, right, top, bottom, area = x - width / 2, x + width / 2, y - height / 2, y + height / 2, width * height
    tx, ty, tw, th = truths.permute(2, 0, 1)[..., None]  # [B, T, 1]
    step = max(1, _PAIRS_AT_ONCE // (truths.shape[1] * x.shape[2]))
    for start in range(0, len(x), step):
        part = slice(start, start + step)
        inner = torch.minimum(right[part], (tx + tw / 2)[part]).sub_(torch.maximum(left[part], (tx - tw / 2)[part]))
        inner.clamp_(min=0)
        across = torch.minimum(bottom[part], (ty + th / 2)[part])
        across.sub_(torch.maximum(top[part], (ty - th / 2)[part])).clamp_(min=0)
        inner.mul_(across)
        union = torch.sub(area[part] + (tw * th)[part], inner, out=across)
        values, index = inner.div_(union).nan_to_num_(0.0).max(1)  # 0/0: no area
        best[part], which[part] = values.view(-1, *shape[1:]), index.view(-1, *shape[1:])
    return best, which


def first_and_last(owner: Tensor) -> tuple[Tensor, Tensor]:
    """First and last assignment of each cell [U]; owner: the cell of each [P]."""
    count = int(owner.max()) + 1
    numbers = torch.arange(len(owner), device=owner.device)
    first = numbers.new_zeros(count).scatter_reduce_(0, owner, numbers, "amin", include_self=False)
    last = numbers.new_zeros(count).scatter_reduce_(0, owner, numbers, "amax", include_self=False)
    return first, last


def box_iou(a: Tensor, b: Tensor, kind: str) -> Tensor:
    """`iou`, `giou`, `diou` or `ciou` of boxes that broadcast [...]; at most 1."""
    overlap = iou(a, b)
    if kind == "iou":
        return overlap
    low = torch.minimum(a[..., :2] - a[..., 2:] / 2, b[..., :2] - b[..., 2:] / 2)
    high = torch.maximum(a[..., :2] + a[..., 2:] / 2, b[..., :2] + b[..., 2:] / 2)
    if kind == "giou":
        hull = (high - low).prod(-1)
        union = (a[..., 2:].prod(-1) + b[..., 2:].prod(-1)) / (1 + overlap)  # iou = inner / (areas - inner)
        return torch.where(hull > 0, overlap - (hull - union) / hull, overlap)
    diagonal = (high - low).square().sum(-1)
    apart = (a[..., :2] - b[..., :2]).square().sum(-1) / diagonal
    if kind == "diou":
        return torch.where(diagonal > 0, overlap - apart**0.6, overlap)
    aspect = 4 / math.pi**2 * _angle_gap(a, b).square()
    alpha = aspect / (1 - overlap + aspect + 1e-6)
    return torch.where(diagonal > 0, overlap - apart - alpha * aspect, overlap)


def box_gradient(pred: Tensor, truth: Tensor, kind: str) -> Tensor:
    """What Darknet takes for the derivative of `box_iou` by pred's x, y, width, height [P, 4].

    It is not that derivative to the letter, and trained nets depend on it: width and height count double, the centre's
    pull on the enclosing diagonal has the other sign, and boxes that don't meet follow only the kind's own term.
    """
    pred_low, pred_high = pred[:, :2] - pred[:, 2:] / 2, pred[:, :2] + pred[:, 2:] / 2
    truth_low, truth_high = truth[:, :2] - truth[:, 2:] / 2, truth[:, :2] + truth[:, 2:] / 2
    sides = pred_high - pred_low
    shared = torch.minimum(pred_high, truth_high) - torch.maximum(pred_low, truth_low)
    spanned = torch.maximum(pred_high, truth_high) - torch.minimum(pred_low, truth_low)
    inner = shared.prod(1, keepdim=True)
    union = sides.prod(1, keepdim=True) + (truth_high - truth_low).prod(1, keepdim=True) - inner
    apart = (shared <= 0).any(1, keepdim=True)

    # An edge moves areas by the length across it: the other axis.
    across, shared_across, spanned_across = sides.flip(1), shared.flip(1), spanned.flip(1)
    inner_low = torch.where(pred_low > truth_low, -shared_across, 0.0)
    inner_high = torch.where(pred_high < truth_high, shared_across, 0.0)
    union_low, union_high = -across - inner_low, across - inner_high
    low = torch.where(union > 0, (union * inner_low - inner * union_low) / union.square(), 0.0)
    high = torch.where(union > 0, (union * inner_high - inner * union_high) / union.square(), 0.0)
    low = torch.where(pred_low < pred_high, low, high)

    if kind == "giou":
        hull = spanned.prod(1, keepdim=True)
        hull_low = torch.where(pred_low < truth_low, -spanned_across, 0.0)
        hull_high = torch.where(pred_high > truth_high, spanned_across, 0.0)
        own_low = (hull * union_low - union * hull_low) / hull.square()
        own_high = (hull * union_high - union * hull_high) / hull.square()
        low = torch.where(apart, own_low, torch.where(hull > 0, low + own_low, low))
        high = torch.where(apart, own_high, torch.where(hull > 0, high + own_high, high))
    result = torch.cat([low + high, high - low], 1)
    if kind in ("iou", "giou"):
        return result

    below, above = (pred_low < truth_low).to(pred.dtype), (pred_high > truth_high).to(pred.dtype)
    diagonal = spanned.square().sum(1, keepdim=True)
    gap = (pred[:, :2] - truth[:, :2]).square().sum(1, keepdim=True)
    centre = 2 * (truth[:, :2] - pred[:, :2]) * diagonal - 2 * spanned * (above - below) * gap
    size = 2 * spanned * (above + below) / 2 * gap
    own = torch.cat([centre, size], 1) / diagonal.square()
    if kind == "ciou":
        angle = _angle_gap(pred, truth)[:, None]
        aspect = 4 / math.pi**2 * angle.square()
        alpha = aspect / (1 - inner / union + aspect + 1e-6)
        turn = 8 / math.pi**2 * angle * pred[:, 2:].flip(1) * pred.new_tensor([1.0, -1.0])
        own[:, 2:] += alpha * turn
    return torch.where(apart, own, torch.where(diagonal > 0, result + own, result))


def _angle_gap(pred: Tensor, truth: Tensor) -> Tensor:
    return torch.atan(truth[..., 2] / truth[..., 3]) - torch.atan(pred[..., 2] / pred[..., 3])
