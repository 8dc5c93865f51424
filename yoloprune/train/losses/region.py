"""Loss of [region], in both dialects (Darknet: region_layer.c forward_region_layer, delta_region_box).

Darknet walks cells, then truths; what a later truth writes into a cell replaces what an earlier one wrote. Legend as in
yolo.py, P now being the truths: each is assigned to one anchor of the cell its centre is in.
"""

from __future__ import annotations

import torch
from torch import Tensor

from yoloprune.darknet.dialect import Dialect
from yoloprune.darknet.layers.region import Region
from yoloprune.detect.overlap import iou
from yoloprune.train.losses.base import focal, loss_for
from yoloprune.train.losses.boxes import best_truths, first_and_last

_PULLED = 12800
"""Images in which every prediction is also drawn to its anchor, in the middle of its cell."""
_PULL = 0.01


@loss_for(Region)
def region_loss(head: Region, x: Tensor, truths: Tensor, dialect: Dialect, seen: int) -> tuple[Tensor, Tensor]:
    """Darknet's loss of [region]; see `Loss`. x: [B, A*(5+K), H, W], truths: [B, T, 5]; delta: [B, A, 5+K, H, W]."""
    options, truths = head.training, truths[:, : head.training.max_truths]
    b, _, h, w = x.shape
    anchors = x.new_tensor(head.anchors)
    # [B, H, W, A, 5+K]: x, y, objectness through the logistic, classes as the head puts them out
    values = head.module(dialect)(x).view(b, len(anchors), -1, h, w).permute(0, 3, 4, 1, 2)
    corner = torch.stack(torch.meshgrid(torch.arange(w), torch.arange(h), indexing="xy"), -1).to(x)[:, :, None]
    boxes = torch.cat([(values[..., :2] + corner) / x.new_tensor([w, h]), values[..., 2:4].exp() * anchors], -1)
    best, which = best_truths(boxes.permute(4, 0, 1, 2, 3), truths[:, :, 1:])

    delta = torch.zeros_like(values)
    objectness = values[..., 4]
    if options.classfix == -1:
        delta[..., 4] = options.noobject_scale * (best - objectness)
    else:
        delta[..., 4] = torch.where(best > options.thresh, 0.0, -options.noobject_scale * objectness)
        if options.classfix and truths.shape[1]:
            fits = best > options.thresh
            there = values[fits]
            sure = there[:, 4:5] if options.classfix == 2 else 1.0
            kinds = truths[:, :, 0].gather(1, which.flatten(1)).view_as(best)[fits].long()
            delta[..., 5:][fits] = sure * _class_steps(head, there[:, 5:], kinds)
    if seen < _PULLED:
        delta[..., :2], delta[..., 2:4] = _PULL * (0.5 - values[..., :2]), -_PULL * values[..., 2:4]

    if (truths[:, :, 0] >= 0).any():
        at, steps = _assign(head, truths, values, boxes, dialect)
        delta[at] = steps
    if dialect.region_slopes:
        delta[..., [0, 1, 4]] *= values[..., [0, 1, 4]] * (1 - values[..., [0, 1, 4]])
    delta = delta.permute(0, 3, 4, 1, 2)
    return delta, delta.square().sum()


def _assign(
    head: Region, truths: Tensor, values: Tensor, boxes: Tensor, dialect: Dialect
) -> tuple[tuple[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """Anchors of cells that truths are assigned to, as indexes of image, row, column, anchor, and their steps [U, 5+K].

    values: [B, H, W, A, 5+K], boxes: [B, H, W, A, 4]. Steps are without the logistic's slopes.
    """
    options, (_, h, w) = head.training, head.out
    anchors = values.new_tensor(head.anchors)
    image, place = torch.where(truths[:, :, 0] >= 0)
    truth = truths[image, place]
    column, row = (truth[:, 1] * w).long().clamp(0, w - 1), (truth[:, 2] * h).long().clamp(0, h - 1)
    shapes = anchors.expand(len(truth), -1, -1) if options.bias_match else boxes[image, row, column, :, 2:]
    flat, own = (torch.cat([torch.zeros_like(sides), sides], -1) for sides in (shapes, truth[:, None, 3:]))
    anchor = iou(flat, own).argmax(1)
    _, owner = torch.unique(((image * h + row) * w + column) * len(anchors) + anchor, return_inverse=True)
    first, last = first_and_last(owner)
    there, kinds = values[image, row, column, anchor], truth[:, 0].long()

    size = 1.0 if dialect.region_slopes else (2 - truth[:, 3:].prod(1, keepdim=True))
    centre = truth[:, 1:3] * values.new_tensor([w, h]) - torch.stack([column, row], 1)
    wanted = torch.cat([centre, (truth[:, 3:] / anchors[anchor]).log()], 1)
    box = options.coord_scale * size * (wanted - there[:, :4])
    overlap = iou(boxes[image, row, column, anchor], truth[:, 1:]) if options.rescore else 1.0
    certain = options.object_scale * (overlap - there[:, 4])
    steps = _class_steps(head, there[:, 5:], kinds)
    classes = steps[last]
    if not dialect.region_slopes and not head.softmax:
        # The first truth of a cell sets all classes, a later one only its own.
        said = torch.zeros_like(classes).index_put_((owner, kinds), torch.ones_like(steps[:, 0]))
        classes = torch.where(said > 0, options.class_scale * (1 - there[first, 5:]), steps[first])
    at = (image[last], row[last], column[last], anchor[last])
    return at, torch.cat([box[last], certain[last, None], classes], 1)


def _class_steps(head: Region, values: Tensor, kinds: Tensor) -> Tensor:
    """What a truth of class `kinds` [P] gives the classes [P, K]."""
    steps = torch.zeros_like(values).scatter_(1, kinds[:, None], 1.0) - values
    if head.training.focal_loss:
        steps *= focal(values.gather(1, kinds[:, None]))
    return head.training.class_scale * steps
