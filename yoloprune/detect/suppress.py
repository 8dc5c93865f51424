"""Non-maximum suppression, of all images and classes at once. (box.c: do_nms_sort, diounms_sort.)"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from yoloprune.darknet.predictions import Detections
from yoloprune.detect.overlap import Overlap, iou_of
from yoloprune.detect.runs import argsort, ranges, rank

_PAIRS: Final = 1 << 15
_PAIRS_ELSEWHERE: Final = 1 << 22
"""Pairs of boxes that a round compares at the least, on a CPU and on other devices: enough to hide what calls cost."""
_FIRST: Final = 4
"""Boxes of each class that a round settles at the least."""
_CROWDED: Final = 8
"""How many times as many pairs of detections there are as of boxes before all classes are looked at together ..."""
_NEIGHBOURS: Final = 16
"""... and how many others each box may overlap on average: in denser crowds a round removes nearly all."""
_AT_ONCE: Final = 1 << 20
"""Pairs that are then looked at together, or of one class if it has more: memory stays small."""


def suppress(found: Detections, overlaps: Overlap) -> Tensor:
    """Numbers, ascending, of the detections that non-maximum suppression keeps.

    In order of probability every detection that is still there removes the less probable ones of its image and class
    whose boxes `overlaps` with its own. All images and classes go at once, and the result is that of the plain loop.
    """
    if not len(found.probs):
        return found.image
    segment = found.image * (found.classes.max() + 1) + found.classes
    is_first = _first_of_boxes(found)
    first = is_first.nonzero().squeeze(1)
    image = found.image.index_select(0, first)
    by_class, by_image = (torch.bincount(each).square().sum() for each in (segment, image))
    if by_class > _CROWDED * by_image:
        pairs = _overlapping(found.boxes.index_select(0, first), image, overlaps)
        if pairs is not None:
            return _suppress_by_box(found, is_first.cumsum(0) - 1, *pairs)
    return _suppress_by_class(found, segment, overlaps)


def _first_of_boxes(found: Detections) -> Tensor:
    """[M]: whether a row isn't of the same box as the one before: of its image, with its very sides, a later class.

    Two boxes that are taken for one have no class in common, and boxes of different classes don't meet.
    """
    sides = found.boxes.view(torch.int32)
    same = (found.classes[1:] > found.classes[:-1]) & (found.image[1:] == found.image[:-1])
    for side in sides.T:
        same &= side[1:] == side[:-1]
    return torch.cat([same.new_ones(1), ~same])


def _suppress_by_class(found: Detections, segment: Tensor, overlaps: Overlap) -> Tensor:
    """Each class of each image, `segment`, alone; in rounds.

    A round settles the first boxes of each class, and what these remove of the others.
    """
    everything = torch.arange(len(segment), device=segment.device)
    order = argsort(-found.probs, segment)
    segment = segment.index_select(0, order)
    boxes = _Boxes(found.boxes.index_select(0, order), overlaps)
    pairs = _PAIRS if segment.device.type == "cpu" else _PAIRS_ELSEWHERE
    alive = everything
    kept = [alive[:0]]
    while len(alive):
        place = rank(segment.index_select(0, alive))
        settled = max(pairs // len(alive), _FIRST)
        before = place.clamp(max=settled)
        later, earlier = ranges(everything[: len(alive)] - place, before)
        removes = boxes.overlapping(alive.index_select(0, earlier), alive.index_select(0, later))
        stays = ~_removed(earlier.index_select(0, removes), later.index_select(0, removes), len(alive))
        kept.append(alive[stays & (place < settled)])
        alive = alive[stays & (place >= settled)]
    return order.index_select(0, torch.cat(kept)).sort().values


def _suppress_by_box(found: Detections, box: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """All classes of an image together, where box first[i] overlaps box second[i]: that is asked once for all classes.

    box: number of each detection's box, ascending.
    In networks that are pruned too far, or have learned nothing yet, every box of an image has every class.
    """
    classes, probs = found.classes, found.probs
    of_box = torch.bincount(box)
    kinds = int(classes.max()) + 1
    most = max(int(of_box.index_select(0, first).sum()), len(of_box) * kinds)
    parts = min(-(-most // _AT_ONCE), kinds)
    removed = torch.zeros_like(box, dtype=torch.bool)
    for part in range(parts):
        begin, end = kinds * part // parts, kinds * (part + 1) // parts
        some = ((classes >= begin) & (classes < end)).nonzero().squeeze(1)
        one, other = _of_one_class(
            box.index_select(0, some), classes.index_select(0, some) - begin, len(of_box), end - begin, first, second
        )
        one, other = some.index_select(0, one), some.index_select(0, other)
        # Of equally probable ones the first in the heads' order goes before.
        turned = probs.index_select(0, other) > probs.index_select(0, one)
        removed |= _removed(torch.where(turned, other, one), torch.where(turned, one, other), len(box))
    return (~removed).nonzero().squeeze(1)


def _overlapping(boxes: Tensor, image: Tensor, overlaps: Overlap) -> tuple[Tensor, Tensor] | None:
    """Numbers of the pairs of boxes that overlap too much within an image; of each the earlier box, and the later.

    None if there are more than `_NEIGHBOURS` times as many as boxes.
    """
    order = image.argsort(stable=True)
    in_order = _Boxes(boxes.index_select(0, order), overlaps)
    place = rank(image.index_select(0, order))
    parts = torch.split(torch.arange(len(place), device=place.device), max(_AT_ONCE // (int(place.max()) + 1), 1))
    pairs = []
    left = _NEIGHBOURS * len(boxes)
    for some in parts:
        before = place.index_select(0, some)
        owner, earlier = ranges(some - before, before)
        later = some.index_select(0, owner)
        which = in_order.overlapping(earlier, later)
        left -= len(which)
        if left < 0:
            return None
        pairs.append((earlier.index_select(0, which), later.index_select(0, which)))
    first, second = map(torch.cat, zip(*pairs, strict=True))
    return order.index_select(0, first), order.index_select(0, second)


def _of_one_class(
    box: Tensor, classes: Tensor, count: int, kinds: int, first: Tensor, second: Tensor
) -> tuple[Tensor, Tensor]:
    """Numbers of the pairs of detections of one class of which one has box first[i] and the other box second[i].

    box (ascending, below `count`) and classes (below `kinds`): of each detection.
    """
    each = torch.arange(len(box), device=box.device)
    detection = torch.full((count * kinds,), -1, device=box.device)
    detection[box * kinds + classes] = each
    of_box = torch.bincount(box, minlength=count)
    pair, one = ranges((of_box.cumsum(0) - of_box).index_select(0, first), of_box.index_select(0, first))
    other = detection.index_select(0, second.index_select(0, pair) * kinds + classes.index_select(0, one))
    both = (other >= 0).nonzero().squeeze(1)
    return one.index_select(0, both), other.index_select(0, both)


def _removed(earlier: Tensor, later: Tensor, count: int) -> Tensor:
    """[count]: which go, where earlier[i] removes later[i] if it stays itself.

    What none of those left may remove stays, so what it removes goes; both settle others.
    """
    removed = torch.zeros(count, dtype=torch.bool, device=earlier.device)
    while len(earlier):
        threatened = torch.zeros_like(removed)
        threatened[later] = True
        stays = ~threatened.index_select(0, earlier)
        removed[later[stays]] = True
        settled = stays | removed.index_select(0, earlier) | removed.index_select(0, later)
        left = (~settled).nonzero().squeeze(1)
        earlier, later = earlier.index_select(0, left), later.index_select(0, left)
    return removed


class _Boxes:
    """Boxes, to tell which pairs of them overlap too much: quickly, since most don't meet on either axis."""

    def __init__(self, boxes: Tensor, overlaps: Overlap) -> None:
        self._boxes, self._overlaps = boxes, overlaps
        self._areas = boxes[:, 2] * boxes[:, 3]
        # Of each axis. What two boxes have in common is more than the sum of their `least`, if they overlap.
        halves = boxes[:, 2:] / 2
        low, high, least = boxes[:, :2] - halves, boxes[:, :2] + halves, boxes[:, 2:] * overlaps.least
        self._axes = [tuple(each[:, axis].contiguous() for each in (low, high, least)) for axis in range(2)]

    def overlapping(self, a: Tensor, b: Tensor) -> Tensor:
        """Numbers of the pairs of boxes a[i] and b[i] that do."""
        which = torch.arange(len(a), device=a.device)
        sizes: list[Tensor] = []
        for low, high, least in self._axes:
            common = torch.minimum(high.index_select(0, a), high.index_select(0, b))
            common.sub_(torch.maximum(low.index_select(0, a), low.index_select(0, b)))
            near = (common > least.index_select(0, a).add_(least.index_select(0, b))).nonzero().squeeze(1)
            a, b, which, *sizes = (each.index_select(0, near) for each in (a, b, which, *sizes, common))
        width, height = sizes
        overlap = iou_of(width, height, self._areas.index_select(0, a) + self._areas.index_select(0, b))
        return which.index_select(0, self._overlaps(overlap, self._boxes, a, b))
