"""Loss of [yolo], in both dialects (Darknet: yolo_layer.c forward_yolo_layer, delta_yolo_box, delta_yolo_class).

Darknet walks cells, then truths, writing into `delta` as it goes. Here a cell's fate is computed at once, and what the
order decides is kept: which of several truths in one cell comes first (classes) and last (pjreddie's boxes).

Legend: B batch, A anchors of the head, K classes, T truths an image, P claims (a truth and an anchor that it takes),
U distinct cells among them. A cell is an image, an anchor, a row and a column.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from yoloprune.darknet.dialect import Dialect
from yoloprune.darknet.layers.yolo import Yolo
from yoloprune.detect.overlap import iou
from yoloprune.train.losses.base import focal, inject, loss_for
from yoloprune.train.losses.boxes import agreement, best_truths, ends, slopes

_CONFIDENT = 0.25  # AlexeyAB: compare_yolo_class
_FLT_MAX = 3e38


@loss_for(Yolo)
def yolo_loss(head: Yolo, x: Tensor, truths: Tensor, dialect: Dialect, seen: int) -> Tensor:
    """Darknet's loss of [yolo]; see `Loss`. x: [B, A*(5+K), H, W], truths: [B, T, 5]."""
    with torch.no_grad():
        exact = torch.promote_types(x.dtype, torch.float32)
        delta, cost = _delta(head, x.to(exact), truths[:, : head.training.max_truths].to(exact), dialect)
    return inject(x, delta.view_as(x), cost)


@dataclass(frozen=True)
class _Claims:
    """Anchors' cells that a truth takes, in Darknet's order."""

    image: Tensor
    anchor: Tensor
    row: Tensor
    column: Tensor
    """[P] int64 each: the cell."""
    classes: Tensor
    """[P] int64."""
    boxes: Tensor
    """[P, 4]."""
    dense: Tensor
    """[P] bool: claimed because the predicted box fits (truth_thresh), not because a truth's centre is here."""


def _delta(head: Yolo, x: Tensor, truths: Tensor, dialect: Dialect) -> tuple[Tensor, Tensor]:
    """delta [B, A, 5+K, H, W] and cost, a scalar."""
    options = head.training
    b, _, h, w = x.shape
    planes = x.view(b, len(head.anchors), -1, h, w)
    objectness = _squashed(head, planes[:, :, 4])
    best, which = best_truths(_all_boxes(head, planes), truths[:, :, 1:])

    away = -objectness * options.obj_normalizer
    spared = best > options.ignore_thresh
    if dialect.yolo_truths_add_up:
        spared &= _squashed(head, planes[:, :, 5:].amax(2)) > _CONFIDENT
    instead = (best - objectness) * options.obj_normalizer if options.objectness_smooth else torch.zeros_like(away)
    delta = torch.zeros_like(planes)
    delta[:, :, 4] = torch.where(spared, instead, away)

    claims = _claims(head, truths, best, which)
    if not len(claims.image):
        return delta, _cost(head, delta, best.new_zeros(0))
    cells = ((claims.image * len(head.anchors) + claims.anchor) * h + claims.row) * w + claims.column
    _, owner = torch.unique(cells, return_inverse=True)  # claim -> cell, both [P]
    first, last = ends(owner)
    at = (claims.image[first], claims.anchor[first], slice(None), claims.row[first], claims.column[first])
    values = planes[claims.image, claims.anchor, :, claims.row, claims.column]
    best_there = best[claims.image, claims.anchor, claims.row, claims.column]

    predicted = _boxes(head, values, claims)
    step = _box_steps(head, values, predicted, claims)
    box = torch.zeros_like(step[first]).index_add_(0, owner, step) if dialect.yolo_truths_add_up else step[last]
    certain = _object_steps(head, objectness, delta[:, :, 4], claims, first, best_there)
    kinds = _class_steps(head, _squashed(head, values[:, 5:]), claims, owner, first, best_there)
    if options.iou_thresh < 1:
        several = (kinds > 0).sum(1, keepdim=True).clamp(min=1)
        box = torch.where(certain[:, None] != 0, box / several, box)
    delta[at] = torch.cat([box, certain[:, None], kinds], 1)
    return delta, _cost(head, delta, agreement(predicted, claims.boxes, _reported(head))[~claims.dense])


def _squashed(head: Yolo, raw: Tensor) -> Tensor:
    return raw if head.new_coords else raw.sigmoid()


def _centre(head: Yolo, raw: Tensor) -> Tensor:
    """x and y within the cell, as the head puts them out."""
    return _squashed(head, raw) * head.scale_x_y - (head.scale_x_y - 1) / 2


def _size(head: Yolo, raw: Tensor) -> Tensor:
    """Width and height in anchors (get_yolo_box)."""
    return (2 * raw).square() if head.new_coords else raw.exp()


def _all_boxes(head: Yolo, planes: Tensor) -> Tensor:
    """Predicted boxes as four planes [4, B, A, H, W]."""
    h, w = planes.shape[3:]
    x, y = _centre(head, planes[:, :, :2]).unbind(2)
    width, height = _size(head, planes[:, :, 2:4]).unbind(2)
    anchors = planes.new_tensor(head.anchors)[:, :, None, None]
    columns = torch.arange(w, device=planes.device)
    rows = torch.arange(h, device=planes.device)[:, None]
    return torch.stack([(x + columns) / w, (y + rows) / h, width * anchors[:, 0], height * anchors[:, 1]])


def _boxes(head: Yolo, values: Tensor, claims: _Claims) -> Tensor:
    """Predicted boxes of the claimed cells [P, 4]."""
    _, h, w = head.out
    corner = torch.stack([claims.column, claims.row], 1)
    centre = (_centre(head, values[:, :2]) + corner) / values.new_tensor([w, h])
    return torch.cat([centre, _size(head, values[:, 2:4]) * values.new_tensor(head.anchors)[claims.anchor]], 1)


def _claims(head: Yolo, truths: Tensor, best: Tensor, which: Tensor) -> _Claims:
    """Cells by truth_thresh first, then each truth's own, image by image."""
    options = head.training
    _, h, w = head.out
    found = []
    if options.truth_thresh < 1:
        image, anchor, row, column = torch.where(best > options.truth_thresh)
        truth = truths[image, which[image, anchor, row, column]]
        found.append((image, anchor, row, column, truth, True))

    anchors = truths.new_tensor(options.all_anchors)
    mine = torch.full((len(anchors),), -1, device=truths.device)
    mine[list(options.mask)] = torch.arange(len(options.mask), device=truths.device)
    image, place = torch.where(truths[:, :, 0] >= 0)
    truth = truths[image, place]
    centred = torch.cat([torch.zeros_like(truth[:, 1:3]), truth[:, 3:]], 1)[:, None]
    prior = torch.cat([torch.zeros_like(anchors), anchors], 1)[None]
    taken = torch.zeros(len(truth), len(anchors), dtype=torch.bool, device=truths.device)
    taken.scatter_(1, iou(prior, centred).argmax(1, keepdim=True), True)
    if options.iou_thresh < 1:
        taken |= agreement(prior, centred, options.iou_thresh_kind) > options.iou_thresh
    number, anchor = torch.where(taken & (mine >= 0))
    image, truth = image[number], truth[number]
    column = (truth[:, 1] * w).long().clamp(0, w - 1)
    row = (truth[:, 2] * h).long().clamp(0, h - 1)
    found.append((image, mine[anchor], row, column, truth, False))

    image, anchor, row, column, truth = (torch.cat([part[i] for part in found]) for i in range(5))  # type: ignore[misc]
    dense = torch.cat([torch.full_like(part[0], part[5], dtype=torch.bool) for part in found])
    return _Claims(image, anchor, row, column, truth[:, 0].long(), truth[:, 1:], dense)


def _box_steps(head: Yolo, values: Tensor, predicted: Tensor, claims: _Claims) -> Tensor:
    """What each claim adds to x, y, w, h [P, 4] (delta_yolo_box)."""
    options = head.training
    _, h, w = head.out
    if options.iou_loss == "mse":
        corner = torch.stack([claims.column, claims.row], 1)
        centre = claims.boxes[:, :2] * values.new_tensor([w, h]) - corner
        ratio = claims.boxes[:, 2:] / values.new_tensor(head.anchors)[claims.anchor]
        size = (ratio / 4).sqrt() if head.new_coords else ratio.log()
        small = 2 - claims.boxes[:, 2:].prod(1, keepdim=True)
        now = torch.cat([_centre(head, values[:, :2]), values[:, 2:4]], 1)
        return small * (torch.cat([centre, size], 1) - now) * options.iou_normalizer
    some = torch.where(predicted[:, 2:] == 0, 1.0, predicted[:, 2:])
    steps = slopes(torch.cat([predicted[:, :2], some], 1), claims.boxes, options.iou_loss)
    if not head.new_coords:
        steps[:, 2:] *= values[:, 2:4].exp()
    steps = (steps * options.iou_normalizer).nan_to_num_(0.0, 0.0, 0.0)
    return steps.clamp_(-options.max_delta, options.max_delta) if options.max_delta < _FLT_MAX else steps


def _object_steps(head: Yolo, objectness: Tensor, now: Tensor, claims: _Claims, first: Tensor, best: Tensor) -> Tensor:
    """What objectness gets in each claimed cell [U]."""
    options = head.training
    where = (claims.image[first], claims.anchor[first], claims.row[first], claims.column[first])
    up = (1 - objectness[where]) * options.obj_normalizer
    if not options.objectness_smooth:
        return up
    fitted = (best[first].square() - objectness[where]) * options.obj_normalizer
    before = torch.where(claims.dense[first], fitted, now[where])
    return torch.where(before == 0, up, before)


def _class_steps(head: Yolo, probs: Tensor, claims: _Claims, owner: Tensor, first: Tensor, best: Tensor) -> Tensor:
    """What the classes get in each claimed cell [U, K] (delta_yolo_class).

    The first claim sets all classes, a later one only its own, and without focal loss.
    """
    options = head.training
    smooth = options.label_smooth_eps
    there, kind = probs[first], claims.classes[first][:, None]
    wanted = torch.zeros_like(there).scatter_(1, kind, 1.0)
    if options.focal_loss:
        steps = (wanted - there) * focal(there.gather(1, kind))
    else:
        steps = wanted * (1 - smooth) + smooth / 2 - there
    if options.objectness_smooth:
        fitted = best[first][:, None].square() - there.gather(1, kind)
        steps.scatter_(1, kind, torch.where(claims.dense[first][:, None], fitted, steps.gather(1, kind)))
    later = torch.ones_like(owner, dtype=torch.bool)
    later[first] = False
    own = probs[later].gather(1, claims.classes[later][:, None])[:, 0]
    steps[owner[later], claims.classes[later]] = 1 - smooth / 2 - own
    return steps


def _reported(head: Yolo) -> str:
    """The agreement that Darknet reports for each iou_loss."""
    return "giou" if head.training.iou_loss == "giou" else "iou"


def _cost(head: Yolo, delta: Tensor, agreements: Tensor) -> Tensor:
    """Sum of squares; with an IoU loss the boxes' part is the mean of 1 - agreement instead."""
    options = head.training
    if options.iou_loss == "mse":
        return delta.square().sum()
    rest = delta[:, :, 4:].square().sum() * options.obj_normalizer
    return rest + options.iou_normalizer * (1 - agreements).sum() / max(len(agreements), 1)
