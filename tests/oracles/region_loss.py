"""The loss of [region] in plain loops, cell by cell and truth by truth as region_layer.c walks them, in both dialects.

Written from the description of the algorithm, float64; slow on purpose. Stock Darknet is no oracle: on a CPU its
[region] passes nothing back.
"""

from __future__ import annotations

import math

import numpy as np

from tests.oracles.yolo_loss import Box, Doubles, box_iou, sigmoid
from yoloprune.darknet.layers.region import Region

PULLED = 12800


def region_loss(head: Region, x: Doubles, truths: Doubles, *, alexeyab: bool, seen: int) -> tuple[Doubles, float]:
    """delta [B, A, 5+K, H, W] and cost."""
    o = head.training
    b, _, h, w = x.shape
    v = x.reshape(b, len(head.anchors), -1, h, w).copy()
    delta = np.zeros_like(v)
    for cell in np.ndindex(b, len(head.anchors), h, w):
        at = v[cell[0], cell[1], :, cell[2], cell[3]]
        for plane in (0, 1, 4):
            at[plane] = sigmoid(at[plane])
        if head.softmax:
            powers = np.exp(at[5:] - at[5:].max())
            at[5:] = powers / powers.sum()
        elif not alexeyab:
            at[5:] = [sigmoid(value) for value in at[5:]]

    def slope(value: float) -> float:
        return value * (1 - value) if alexeyab else 1.0

    def box(cell: tuple[int, int, int, int]) -> Box:
        n, a, j, i = cell
        x0, y0, w0, h0 = v[n, a, :4, j, i]
        return (i + x0) / w, (j + y0) / h, math.exp(w0) * head.anchors[a][0], math.exp(h0) * head.anchors[a][1]

    def set_box(cell: tuple[int, int, int, int], truth: Box, scale: float) -> float:
        n, a, j, i = cell
        p, d = v[n, a, :, j, i], delta[n, a, :, j, i]
        d[0] = scale * (truth[0] * w - i - p[0]) * slope(p[0])
        d[1] = scale * (truth[1] * h - j - p[1]) * slope(p[1])
        d[2] = scale * (math.log(truth[2] / head.anchors[a][0]) - p[2])
        d[3] = scale * (math.log(truth[3] / head.anchors[a][1]) - p[3])
        return box_iou(box(cell), truth)

    def set_class(cell: tuple[int, int, int, int], kind: int, scale: float) -> None:
        n, a, j, i = cell
        p, d = v[n, a, 5:, j, i], delta[n, a, 5:, j, i]
        if not alexeyab and not head.softmax and d[0]:
            d[kind] = scale * (1 - p[kind])
            return
        for k in range(len(p)):
            d[k] = scale * ((k == kind) - p[k])
            if o.focal_loss:
                pt = p[kind] + 1e-15
                d[k] *= 0.5 * -(1 - pt) * (2 * pt * math.log(pt) + pt - 1)

    for n in range(b):
        rows = [truth for truth in truths[n] if truth[0] >= 0]
        for j, i, a in np.ndindex(h, w, len(head.anchors)):
            cell = (n, a, j, i)
            best, kind = 0.0, -1
            for truth in rows:
                overlap = box_iou(box(cell), tuple(truth[1:]))
                if overlap > best:
                    best, kind = overlap, int(truth[0])
            p = v[n, a, 4, j, i]
            delta[n, a, 4, j, i] = o.noobject_scale * (0 - p) * slope(p)
            if o.classfix == -1:
                delta[n, a, 4, j, i] = o.noobject_scale * (best - p) * slope(p)
            elif best > o.thresh:
                delta[n, a, 4, j, i] = 0
                if o.classfix > 0:
                    set_class(cell, kind, o.class_scale * (p if o.classfix == 2 else 1))
            if seen < PULLED:
                set_box(cell, ((i + 0.5) / w, (j + 0.5) / h, *head.anchors[a]), 0.01)
        for truth in rows:
            i, j = int(truth[1] * w), int(truth[2] * h)
            best, chosen = 0.0, 0
            for a, anchor in enumerate(head.anchors):
                sides = anchor if o.bias_match else box((n, a, j, i))[2:]
                overlap = box_iou((0, 0, *sides), (0, 0, truth[3], truth[4]))
                if overlap > best:
                    best, chosen = overlap, a
            cell = (n, chosen, j, i)
            scale = o.coord_scale * (1 if alexeyab else 2 - truth[3] * truth[4])
            overlap = set_box(cell, tuple(truth[1:]), scale)
            p = v[n, chosen, 4, j, i]
            delta[n, chosen, 4, j, i] = o.object_scale * ((overlap if o.rescore else 1) - p) * slope(p)
            set_class(cell, int(truth[0]), o.class_scale)
    return delta, float((delta**2).sum())
