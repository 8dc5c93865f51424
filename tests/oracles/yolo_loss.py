"""The loss of AlexeyAB's [yolo] in plain loops, cell by cell and truth by truth as yolo_layer.c walks them.

Written from the description of the algorithm, float64; slow on purpose. What it returns for pjreddie is not used: stock
Darknet itself is that oracle.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from yoloprune.darknet.layers.yolo import Yolo

Doubles = npt.NDArray[np.float64]
Box = tuple[float, float, float, float]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def edges(box: Box) -> Box:
    x, y, w, h = box
    return x - w / 2, y - h / 2, x + w / 2, y + h / 2


def box_iou(a: Box, b: Box) -> float:
    (al, at, ar, ab), (bl, bt, br, bb) = edges(a), edges(b)
    w, h = min(ar, br) - max(al, bl), min(ab, bb) - max(at, bt)
    if w <= 0 or h <= 0:
        return 0.0
    return w * h / (a[2] * a[3] + b[2] * b[3] - w * h)


def box_kind(a: Box, b: Box, kind: str) -> float:
    iou = box_iou(a, b)
    (al, at, ar, ab), (bl, bt, br, bb) = edges(a), edges(b)
    w, h = max(ar, br) - min(al, bl), max(ab, bb) - min(at, bt)
    if kind == "giou":
        inner = iou * (a[2] * a[3] + b[2] * b[3]) / (1 + iou)
        union = a[2] * a[3] + b[2] * b[3] - inner
        return iou - (w * h - union) / (w * h)
    distance = ((a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2) / (w * w + h * h)
    if kind == "diou":
        return iou - distance**0.6
    if kind == "ciou":
        v = 4 / math.pi**2 * (math.atan(b[2] / b[3]) - math.atan(a[2] / a[3])) ** 2
        return iou - distance - v * v / (1 - iou + v + 1e-6)
    return iou


def box_slope(p: Box, t: Box, kind: str) -> Doubles:
    """dx, dy, dw, dh of dx_box_iou."""
    (pl, pt, pr, pb), (tl, tt, tr, tb) = edges(p), edges(t)
    iw, ih = min(pr, tr) - max(pl, tl), min(pb, tb) - max(pt, tt)
    inner = iw * ih
    union = p[2] * p[3] + t[2] * t[3] - inner
    # derivatives by left, top, right, bottom
    d_area = np.array([-(pb - pt), -(pr - pl), pb - pt, pr - pl])
    d_inner = np.array(
        [-ih if pl > tl else 0, -iw if pt > tt else 0, ih if pr < tr else 0, iw if pb < tb else 0], dtype=float
    )
    d_union = d_area - d_inner
    d = (union * d_inner - inner * d_union) / union**2
    hull_w, hull_h = max(pr, tr) - min(pl, tl), max(pb, tb) - min(pt, tt)
    if kind == "giou":
        hull = hull_w * hull_h
        d_hull = np.array(
            [-hull_h if pl < tl else 0, -hull_w if pt < tt else 0, hull_h if pr > tr else 0, hull_w if pb > tb else 0],
            dtype=float,
        )
        own = (hull * d_union - union * d_hull) / hull**2
        d = own if iw <= 0 or ih <= 0 else d + own
    result = np.array([d[0] + d[2], d[1] + d[3], d[2] - d[0], d[3] - d[1]])
    if kind in ("iou", "giou"):
        return result
    diagonal = hull_w**2 + hull_h**2
    gap = (p[0] - t[0]) ** 2 + (p[1] - t[1]) ** 2
    left, top, right, bottom = float(pl < tl), float(pt < tt), float(pr > tr), float(pb > tb)
    own = np.array(
        [
            2 * (t[0] - p[0]) * diagonal - 2 * hull_w * (right - left) * gap,
            2 * (t[1] - p[1]) * diagonal - 2 * hull_h * (bottom - top) * gap,
            2 * hull_w * (right / 2 + left / 2) * gap,
            2 * hull_h * (bottom / 2 + top / 2) * gap,
        ]
    ) / (diagonal**2)
    if kind == "ciou":
        turn = math.atan(t[2] / t[3]) - math.atan(p[2] / p[3])
        v = 4 / math.pi**2 * turn**2
        alpha = v / (1 - inner / union + v + 1e-6)
        own[2] += alpha * 8 / math.pi**2 * turn * p[3]
        own[3] -= alpha * 8 / math.pi**2 * turn * p[2]
    return own if iw <= 0 or ih <= 0 else result + own


class _Walk:
    def __init__(self, head: Yolo, x: Doubles, truths: Doubles) -> None:
        self.head, self.o = head, head.training
        b, _, self.h, self.w = x.shape
        self.v = x.reshape(b, len(head.anchors), -1, self.h, self.w).copy()
        if not head.new_coords:
            for plane in (0, 1, *range(4, self.v.shape[2])):
                self.v[:, :, plane] = 1 / (1 + np.exp(-self.v[:, :, plane]))
        self.v[:, :, :2] = self.v[:, :, :2] * head.scale_x_y - (head.scale_x_y - 1) / 2
        self.delta = np.zeros_like(self.v)
        self.truths = truths
        self.agreements: list[float] = []

    def box(self, b: int, a: int, j: int, i: int) -> Box:
        x, y, w, h = self.v[b, a, :4, j, i]
        aw, ah = self.head.anchors[a]
        fw, fh = ((2 * w) ** 2, (2 * h) ** 2) if self.head.new_coords else (math.exp(w), math.exp(h))
        return (i + x) / self.w, (j + y) / self.h, fw * aw, fh * ah

    def add_box(self, b: int, a: int, j: int, i: int, truth: Box) -> None:
        o, v = self.o, self.v[b, a, :, j, i]
        pred = self.box(b, a, j, i)
        if o.iou_loss == "mse":
            aw, ah = self.head.anchors[a]
            size = (
                (math.sqrt(truth[2] / aw / 4), math.sqrt(truth[3] / ah / 4))
                if self.head.new_coords
                else (math.log(truth[2] / aw), math.log(truth[3] / ah))
            )
            target = np.array([truth[0] * self.w - i, truth[1] * self.h - j, *size])
            step = (2 - truth[2] * truth[3]) * (target - v[:4]) * o.iou_normalizer
        else:
            step = box_slope(pred, truth, o.iou_loss)
            if not self.head.new_coords:
                step[2:] *= np.exp(v[2:4])
            step = np.clip(step * o.iou_normalizer, -o.max_delta, o.max_delta)
        self.delta[b, a, :4, j, i] += step

    def set_class(self, b: int, a: int, j: int, i: int, kind: int) -> None:
        o = self.o
        p, d = self.v[b, a, 5:, j, i], self.delta[b, a, 5:, j, i]
        high, low = 1 - o.label_smooth_eps / 2, o.label_smooth_eps / 2
        if d[kind]:
            d[kind] = high - p[kind]
        elif o.focal_loss:
            pt = p[kind] + 1e-15
            factor = 0.5 * -(1 - pt) * (2 * pt * math.log(pt) + pt - 1)
            for k in range(len(p)):
                d[k] = ((k == kind) - p[k]) * factor
        else:
            for k in range(len(p)):
                d[k] = (high if k == kind else low) - p[k]

    def cell(self, b: int, a: int, j: int, i: int) -> None:
        o, v, d = self.o, self.v[b, a, :, j, i], self.delta[b, a, :, j, i]
        best, best_truth, best_match = 0.0, None, 0.0
        for truth in self.truths[b]:
            if truth[0] < 0:
                break
            iou = box_iou(self.box(b, a, j, i), tuple(truth[1:]))
            if (v[5:] > 0.25).any():
                best_match = max(best_match, iou)
            if iou > best:
                best, best_truth = iou, truth
        d[4] = o.obj_normalizer * -v[4]
        if best_match > o.ignore_thresh:
            d[4] = max(d[4], o.obj_normalizer * (best_match - v[4])) if o.objectness_smooth else 0
        if best_truth is not None and best > o.truth_thresh:
            d[4] = o.obj_normalizer * ((best**2 if o.objectness_smooth else 1) - v[4])
            kind = int(best_truth[0])
            self.set_class(b, a, j, i, kind)
            if o.objectness_smooth:
                d[5 + kind] = best**2 - v[5 + kind]
            self.add_box(b, a, j, i, tuple(best_truth[1:]))

    def claim(self, b: int, a: int, truth: Doubles) -> None:
        o, i, j = self.o, int(truth[1] * self.w), int(truth[2] * self.h)
        kind = "giou" if o.iou_loss == "giou" else "iou"
        self.agreements.append(box_kind(self.box(b, a, j, i), tuple(truth[1:]), kind))
        self.add_box(b, a, j, i, tuple(truth[1:]))
        up = o.obj_normalizer * (1 - self.v[b, a, 4, j, i])
        if not o.objectness_smooth or self.delta[b, a, 4, j, i] == 0:
            self.delta[b, a, 4, j, i] = up
        self.set_class(b, a, j, i, int(truth[0]))

    def run(self) -> tuple[Doubles, float]:
        o = self.o
        batch, anchors = self.v.shape[:2]
        everywhere = [(a, j, i) for a in range(anchors) for j in range(self.h) for i in range(self.w)]
        for b in range(batch):
            for a, j, i in everywhere:
                self.cell(b, a, j, i)
            for truth in self.truths[b]:
                if truth[0] < 0:
                    break
                shape: Box = (0, 0, truth[3], truth[4])
                fits = [box_iou((0, 0, *anchor), shape) for anchor in o.all_anchors]
                best = int(np.argmax(fits))
                if best in o.mask:
                    self.claim(b, o.mask.index(best), truth)
                for n, anchor in enumerate(o.all_anchors):
                    good = box_kind((0, 0, *anchor), shape, o.iou_thresh_kind) > o.iou_thresh
                    if n in o.mask and n != best and o.iou_thresh < 1 and good:
                        self.claim(b, o.mask.index(n), truth)
            if o.iou_thresh < 1:
                for a, j, i in everywhere:
                    several = (self.delta[b, a, 5:, j, i] > 0).sum()
                    if self.delta[b, a, 4, j, i] != 0 and several:
                        self.delta[b, a, :4, j, i] /= several
        cost = float((self.delta**2).sum())
        if o.iou_loss != "mse":
            rest = float((self.delta[:, :, 4:] ** 2).sum()) * o.obj_normalizer
            cost = rest + o.iou_normalizer * sum(1 - x for x in self.agreements) / max(len(self.agreements), 1)
        return self.delta, cost


def yolo_loss(head: Yolo, x: Doubles, truths: Doubles) -> tuple[Doubles, float]:
    """delta [B, A, 5+K, H, W] and cost."""
    return _Walk(head, x, truths).run()
