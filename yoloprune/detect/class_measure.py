"""Classifiers are measured by how often the true class is among their best answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from yoloprune.darknet.data import ClassSplit
from yoloprune.darknet.network import Network
from yoloprune.darknet.predictions import Predictions
from yoloprune.detect.classify import METRICS, ClassOutcome, hits
from yoloprune.detect.details import ClassDetails, Details, by_picture, resampled
from yoloprune.detect.measure import Measure, digest_of
from yoloprune.detect.pictures import Batch


@dataclass(frozen=True)
class ClassScores(Predictions):
    """One row an image."""

    scores: Tensor
    """[M, K] float32: of each class."""


@dataclass(frozen=True, eq=False)
class ClassMeasure(Measure):
    """Top-1 and top-5 by Darknet's rules; predictions are `ClassScores`."""

    split: ClassSplit
    metric: str = "top1"

    def predict(
        self, outputs: Iterable[tuple[Batch, Mapping[int, Tensor]]]
    ) -> Iterator[tuple[Sequence[int], ClassScores]]:
        head = self.graph.layers[self.graph.outputs[-1]]
        for batch, output in outputs:
            yield batch.numbers, ClassScores(torch.tensor(batch.numbers), head.scores(output[head.index]).cpu())

    def outcome(self, predictions: ClassScores) -> ClassOutcome:
        return self._outcome(predictions, self.metric)

    def summary(self, predictions: ClassScores) -> Mapping[str, Any]:
        figures = {metric: self._outcome(predictions, metric).accuracy for metric in METRICS}
        return {**figures, "metric": self.metric, "images": len(self.split.images)}

    def details(self, predictions: ClassScores) -> Details:
        outcome, images = self.outcome(predictions), len(self.split.images)
        scores, true = _in_order(predictions), np.array(self.split.classes, np.int64)
        classes = scores.shape[1]
        answers = scores.argmax(1)
        pairs = Counter(zip(np.where(true < 0, classes, true).tolist(), answers.tolist(), strict=True))
        counts, right = np.bincount(true[true >= 0], minlength=classes), outcome.right
        found = np.bincount(true[right], minlength=classes)
        rows = torch.from_numpy(np.stack([answers, scores[np.arange(images), answers]], 1))
        return Details(
            metric=self.steering,
            accuracy=outcome.accuracy,
            images=images,
            resampled=resampled(outcome, images),
            classes=tuple(
                ClassDetails(name, count, own / count if count else None)
                for name, count, own in zip(self.split.names, counts.tolist(), found.tolist(), strict=True)
            ),
            confusion=tuple((*pair, count) for pair, count in sorted(pairs.items())),
            pictures=by_picture(self.split.images, list(true.reshape(-1, 1, 1)), rows, torch.arange(images)),
            data=self.digest(),
        )

    def digest(self) -> str:
        classes = self.split.classes if self.labels else ()
        return digest_of(self.split.images, (str(number).encode() for number in classes))

    def supervised_by(self, teacher: Network) -> Measure:
        best = _in_order(self.predictions(teacher)).argmax(1)
        return replace(self, split=replace(self.split, classes=tuple(best.tolist())), labels=False)

    def _outcome(self, predictions: ClassScores, metric: str) -> ClassOutcome:
        return ClassOutcome(hits(_in_order(predictions), np.array(self.split.classes, np.int64), METRICS[metric]))


def _in_order(predictions: ClassScores) -> np.typing.NDArray[np.float32]:
    """[I, K]: the scores of each image."""
    scores: np.typing.NDArray[np.float32] = predictions.by_image().scores.numpy()
    return scores
