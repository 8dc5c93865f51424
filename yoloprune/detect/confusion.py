"""Which class is taken for which, by detectors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from yoloprune.darknet.data import Labels
from yoloprune.detect.match import Matches
from yoloprune.detect.overlap import iou

OVERLAP: Final = 0.5
"""IoU over which a find is of an object."""


def confusion(found: Matches, truths: Sequence[Labels], classes: int) -> tuple[tuple[int, int, int], ...]:
    """True class, class found, count; `classes` for none. found: what is shown, in any order; truths: of each image.

    Of one image the pair of a find and an object that overlap most goes first, whatever their classes, and each is of
    one pair. A find that overlaps nothing but a difficult object doesn't count.
    """
    found = found.by_image()
    counts = torch.bincount(found.image, minlength=len(truths)).tolist()
    pairs: Counter[tuple[int, int]] = Counter()
    start = 0
    for count, truth in zip(counts, truths, strict=True):
        some = slice(start, start + count)
        start += count
        true, kinds = truth[:, 0].astype(int), found.classes[some].numpy()
        found_of, object_of = paired(found.boxes[some].numpy(), truth[:, 1:])
        pairs.update(zip(true[object_of].tolist(), kinds[found_of].tolist(), strict=True))
        pairs.update((kind, classes) for kind in np.delete(true, object_of).tolist())
        alone = np.ones(count, np.bool_)
        alone[found_of] = False
        alone &= found.difficult[some].numpy() <= OVERLAP
        pairs.update((classes, kind) for kind in kinds[alone].tolist())
    return tuple((*pair, count) for pair, count in sorted(pairs.items()))


def paired(found: NDArray[np.float32], objects: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Numbers of boxes `found` [D, 4] and `objects` [T, 4] that belong together [P] each: those that overlap most."""
    overlap = iou(torch.from_numpy(found)[:, None], torch.from_numpy(objects)[None]).nan_to_num(0.0).numpy()
    pairs = np.argwhere(overlap > OVERLAP)
    order = np.argsort(-overlap[pairs[:, 0], pairs[:, 1]], kind="stable")
    rows: list[int] = []
    columns: list[int] = []
    for row, column in pairs[order].tolist():
        if row not in rows and column not in columns:
            rows.append(row)
            columns.append(column)
    return np.array(rows, np.int64), np.array(columns, np.int64)
