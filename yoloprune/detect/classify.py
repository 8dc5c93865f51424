"""Top-1 and top-5 accuracy by Darknet's rules (classifier.c: validate_classifier_single; utils.c: top_k)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from yoloprune.detect.outcome import MISSED

Scores = npt.NDArray[np.float32]

METRICS: Final = {"top1": 1, "top5": 5}
"""Among how many best answers the true class is to be; of fewer classes, among all of them."""


@dataclass(frozen=True)
class ClassOutcome:
    """What steers pruning, of a classifier: the share of images whose class is among the best (an `Outcome`)."""

    right: npt.NDArray[np.bool_]
    """[I]"""

    @property
    def accuracy(self) -> float:
        """On every image once."""
        return float(self.right.mean()) if self.right.size else 0.0

    @property
    def contributions(self) -> npt.NDArray[np.float64]:
        """[I]: what each image adds to the accuracy, and `MISSED` of what it could add."""
        contributions: npt.NDArray[np.float64] = np.where(self.right, 1, MISSED) / self.right.size
        return contributions

    def resampled(self, counts: Tensor) -> npt.NDArray[np.float64]:
        """[R]: on R sets in which image i counts `counts[r, i]` times; computed where `counts` is."""
        weights = counts.double()
        right = weights @ torch.from_numpy(self.right).to(weights)
        share: npt.NDArray[np.float64] = (right / weights.sum(1)).cpu().numpy()
        return share


def hits(scores: Scores, classes: npt.NDArray[np.int64], k: int) -> npt.NDArray[np.bool_]:
    """[B]: whether the true class is among the `k` best of scores [B, K]."""
    k = min(k, scores.shape[1])
    own = np.take_along_axis(scores, np.maximum(classes, 0)[:, None], axis=1)
    result: npt.NDArray[np.bool_] = ((scores > own).sum(1) < k) & (classes >= 0)
    # Which of equal scores are among the best depends on the order in which top_k meets them, and so does NaN's place.
    equal = result & ((scores >= own).sum(1) > k)
    for row in np.flatnonzero(equal | np.isnan(scores).any(1)):
        result[row] = classes[row] in top_k(scores[row], k)
    return result


def top_k(scores: Scores, k: int) -> list[int]:
    """The `k` best of scores [K], best first, equal ones as utils.c leaves them. k is at most K."""
    best: list[int] = []
    for current in range(len(scores)):
        for place, held in enumerate(best):
            if scores[current] > scores[held]:
                best[place], current = current, held  # what is pushed out goes on to the next place
        if len(best) < k:
            best.append(current)
    return best
