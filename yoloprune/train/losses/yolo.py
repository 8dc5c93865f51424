"""Loss of [yolo], in both dialects (Darknet: yolo_layer.c forward_yolo_layer, delta_yolo_box, delta_yolo_class).

Darknet walks cells, then truths, writing into `delta` as it goes. Here a cell's fate is computed at once, and what the
order decides is kept: which of several truths in one cell comes first (classes) and last (pjreddie's boxes).

Legend: B batch, A anchors of the head, K classes, T truths an image, P assignments (of a truth to an anchor),
U distinct cells among them. A cell is an image, an anchor, a row and a column.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from yoloprune.darknet.dialect import Dialect
from yoloprune.darknet.layers.yolo import Yolo
from yoloprune.detect.overlap import iou
from yoloprune.train.losses.base import focal, loss_for
from yoloprune.train.losses.boxes import best_truths, box_gradient, box_iou, first_and_last

_CONFIDENT = 0.25  # AlexeyAB: compare_yolo_class
_FLT_MAX = 3e38


@dataclass(frozen=True)
class _Assigned:
    """The cells that truths are assigned to, in Darknet's order."""

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
    """[P] bool: because the predicted box fits (truth_thresh), not because the truth's centre is here."""

    @property
    def cell(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What is assigned, as indexes of [B, A, H, W]."""
        return self.image, self.anchor, self.row, self.column


@loss_for(Yolo)
def yolo_loss(head: Yolo, x: Tensor, truths: Tensor, dialect: Dialect, seen: int) -> tuple[Tensor, Tensor]:
    """Darknet's loss of [yolo]; see `Loss`. x: [B, A*(5+K), H, W], truths: [B, T, 5]; delta: [B, A, 5+K, H, W]."""
    options, truths = head.training, truths[:, : head.training.max_truths]
    b, _, h, w = x.shape
    planes = x.view(b, len(head.anchors), -1, h, w)
    objectness = _logistic(head, planes[:, :, 4])
    best, which = best_truths(_all_boxes(head, planes), truths[:, :, 1:])

    away = -objectness * options.obj_normalizer
    spared = best > options.ignore_thresh
    if dialect.yolo_truths_add_up:
        spared &= _logistic(head, planes[:, :, 5:].amax(2)) > _CONFIDENT
    instead = (best - objectness) * options.obj_normalizer if options.objectness_smooth else torch.zeros_like(away)
    delta = torch.zeros_like(planes)
    delta[:, :, 4] = torch.where(spared, instead, away)

    assigned = _assign(head, truths, best, which)
    if not len(assigned.image):
        return delta, _cost(head, delta, x.new_zeros(0, 4), x.new_zeros(0, 4))
    cells = ((assigned.image * len(head.anchors) + assigned.anchor) * h + assigned.row) * w + assigned.column
    _, owner = torch.unique(cells, return_inverse=True)  # assignment -> cell, both [P]
    first, last = first_and_last(owner)
    values = planes[assigned.image, assigned.anchor, :, assigned.row, assigned.column]
    best_there = best[assigned.cell]
    predicted = _boxes(head, values, assigned)
    step = _box_steps(head, values, predicted, assigned)
    box = torch.zeros_like(step[first]).index_add_(0, owner, step) if dialect.yolo_truths_add_up else step[last]
    object_step = _object_steps(head, objectness, delta[:, :, 4], assigned, first, best_there)
    class_steps = _class_steps(head, _logistic(head, values[:, 5:]), assigned, owner, first, best_there)
    if options.iou_thresh < 1:
        several = (class_steps > 0).sum(1, keepdim=True).clamp(min=1)
        box = torch.where(object_step[:, None] != 0, box / several, box)
    image, anchor, row, column = (each[first] for each in assigned.cell)
    delta[image, anchor, :, row, column] = torch.cat([box, object_step[:, None], class_steps], 1)
    return delta, _cost(head, delta, predicted[~assigned.dense], assigned.boxes[~assigned.dense])


def _logistic(head: Yolo, raw: Tensor) -> Tensor:
    return raw if head.new_coords else raw.sigmoid()


def _centre(head: Yolo, raw: Tensor) -> Tensor:
    """x and y within the cell, as the head puts them out."""
    return _logistic(head, raw) * head.scale_x_y - (head.scale_x_y - 1) / 2


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


def _boxes(head: Yolo, values: Tensor, assigned: _Assigned) -> Tensor:
    """Predicted boxes of the assigned cells [P, 4]."""
    _, h, w = head.out
    corner = torch.stack([assigned.column, assigned.row], 1)
    centre = (_centre(head, values[:, :2]) + corner) / values.new_tensor([w, h])
    return torch.cat([centre, _size(head, values[:, 2:4]) * values.new_tensor(head.anchors)[assigned.anchor]], 1)


def _assign(head: Yolo, truths: Tensor, best: Tensor, which: Tensor) -> _Assigned:
    """Cells by truth_thresh first, then each truth's own, image by image."""
    options = head.training
    _, h, w = head.out
    dense = torch.where((best > options.truth_thresh) & (options.truth_thresh < 1))
    fitted = truths[dense[0], which[dense]]

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
        taken |= box_iou(prior, centred, options.iou_thresh_kind) > options.iou_thresh
    number, anchor = torch.where(taken & (mine >= 0))
    image, truth = image[number], truth[number]
    column = (truth[:, 1] * w).long().clamp(0, w - 1)
    row = (truth[:, 2] * h).long().clamp(0, h - 1)
    own = (image, mine[anchor], row, column)
    image, anchor, row, column = (torch.cat(pair) for pair in zip(dense, own, strict=True))
    truth = torch.cat([fitted, truth])
    is_dense = torch.arange(len(truth), device=truth.device) < len(fitted)
    return _Assigned(image, anchor, row, column, truth[:, 0].long(), truth[:, 1:], is_dense)


def _box_steps(head: Yolo, values: Tensor, predicted: Tensor, assigned: _Assigned) -> Tensor:
    """What each assignment adds to x, y, w, h [P, 4] (delta_yolo_box)."""
    options = head.training
    _, h, w = head.out
    if options.iou_loss == "mse":
        corner = torch.stack([assigned.column, assigned.row], 1)
        centre = assigned.boxes[:, :2] * values.new_tensor([w, h]) - corner
        ratio = assigned.boxes[:, 2:] / values.new_tensor(head.anchors)[assigned.anchor]
        size = (ratio / 4).sqrt() if head.new_coords else ratio.log()
        small = 2 - assigned.boxes[:, 2:].prod(1, keepdim=True)
        now = torch.cat([_centre(head, values[:, :2]), values[:, 2:4]], 1)
        return small * (torch.cat([centre, size], 1) - now) * options.iou_normalizer
    some = torch.where(predicted[:, 2:] == 0, 1.0, predicted[:, 2:])
    steps = box_gradient(torch.cat([predicted[:, :2], some], 1), assigned.boxes, options.iou_loss)
    if not head.new_coords:
        steps[:, 2:] *= values[:, 2:4].exp()
    steps = (steps * options.iou_normalizer).nan_to_num_(0.0, 0.0, 0.0)
    return steps.clamp_(-options.max_delta, options.max_delta) if options.max_delta < _FLT_MAX else steps


def _object_steps(
    head: Yolo, objectness: Tensor, now: Tensor, assigned: _Assigned, first: Tensor, best: Tensor
) -> Tensor:
    """What objectness gets in each assigned cell [U]."""
    options = head.training
    there = objectness[assigned.cell][first]
    up = (1 - there) * options.obj_normalizer
    if not options.objectness_smooth:
        return up
    fitted = (best[first].square() - there) * options.obj_normalizer
    before = torch.where(assigned.dense[first], fitted, now[assigned.cell][first])
    return torch.where(before == 0, up, before)


def _class_steps(head: Yolo, probs: Tensor, assigned: _Assigned, owner: Tensor, first: Tensor, best: Tensor) -> Tensor:
    """What the classes get in each assigned cell [U, K] (delta_yolo_class).

    The first truth of a cell sets all classes, a later one only its own, and without focal loss.
    """
    options = head.training
    smooth = options.label_smooth_eps
    there, kind = probs[first], assigned.classes[first][:, None]
    wanted = torch.zeros_like(there).scatter_(1, kind, 1.0)
    if options.focal_loss:
        steps = (wanted - there) * focal(there.gather(1, kind))
    else:
        steps = wanted * (1 - smooth) + smooth / 2 - there
    if options.objectness_smooth:
        fitted = best[first][:, None].square() - there.gather(1, kind)
        steps.scatter_(1, kind, torch.where(assigned.dense[first][:, None], fitted, steps.gather(1, kind)))
    later = torch.ones_like(owner, dtype=torch.bool)
    later[first] = False
    own = probs[later].gather(1, assigned.classes[later][:, None])[:, 0]
    steps[owner[later], assigned.classes[later]] = 1 - smooth / 2 - own
    return steps


def _cost(head: Yolo, delta: Tensor, predicted: Tensor, boxes: Tensor) -> Tensor:
    """Sum of squares; with an IoU loss the boxes' part is the mean of 1 - GIoU, or else IoU, instead."""
    options = head.training
    if options.iou_loss == "mse":
        return delta.square().sum()
    overlaps = box_iou(predicted, boxes, "giou" if options.iou_loss == "giou" else "iou")
    rest = delta[:, :, 4:].square().sum() * options.obj_normalizer
    return rest + options.iou_normalizer * (1 - overlaps).sum() / max(len(overlaps), 1)
