"""Detectors are measured by their mean average precision."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

import torch
from torch import Tensor

from yoloprune.darknet.data import Split
from yoloprune.darknet.network import Network
from yoloprune.darknet.predictions import Detections, join
from yoloprune.detect.confusion import confusion
from yoloprune.detect.details import RECALLS, ClassDetails, Details, by_picture, resampled, rounded
from yoloprune.detect.evaluate import DISPLAY_THRESH, MAP_THRESH, DetectionOutcome, Points
from yoloprune.detect.match import Matches, Objects, match
from yoloprune.detect.measure import Measure, digest_of
from yoloprune.detect.pictures import Batch
from yoloprune.detect.postprocess import decode, overlap_of, postprocess
from yoloprune.errors import InputError

SUPPRESSED: Final = 32
SUPPRESSED_ELSEWHERE: Final = 256
"""Pictures whose boxes are suppressed together, on a CPU and on other devices: they share what starting each operation
takes."""
CROWD: Final = 1 << 12
"""Boxes of each of these, on average, at the most, but for those of one batch: ruined networks find that many."""

_MEANS: Final = tuple(f"{name}{over}" for name in ("map50", "map75", "map50_95") for over in ("", "_present"))


@dataclass(frozen=True, eq=False)
class DetectionMeasure(Measure):
    """Mean average precision by Darknet's rules; predictions are `Matches`."""

    split: Split
    metric: str = "map50"
    points: Points = 0
    nms_kind: str | None = None
    """Instead of the cfg's."""

    def predict(self, outputs: Iterable[tuple[Batch, Mapping[int, Tensor]]]) -> Iterator[tuple[Sequence[int], Matches]]:
        parts: list[Detections] = []
        numbers: list[int] = []
        together = SUPPRESSED if self.pictures.device.type == "cpu" else SUPPRESSED_ELSEWHERE
        for batch, output in outputs:
            part = decode(self.graph, output, MAP_THRESH, batch.sizes, self.pictures.fit)
            parts.append(replace(part, image=part.image + len(numbers)))
            numbers += batch.numbers
            crowded = sum(len(part.probs) for part in parts) > CROWD * together
            if crowded or len(numbers) >= min(together, self.pictures.part):
                yield numbers, self._matches(join(parts), numbers)
                parts, numbers = [], []
        if parts:
            yield numbers, self._matches(join(parts), numbers)

    def outcome(self, predictions: Matches) -> DetectionOutcome:
        return DetectionOutcome.of(predictions, self._objects, self.metric, self.points)

    def summary(self, predictions: Matches) -> Mapping[str, Any]:
        result = self.outcome(predictions).result
        return {
            **{name.replace("_95", "-95"): getattr(result, name) for name in _MEANS},
            "metric": self.metric,
            **{name: getattr(result, name) for name in ("images", "precision", "recall", "f1", "average_iou")},
            "ap": _by_name(self.split.names, result.ap),
        }

    def details(self, predictions: Matches) -> Details:
        outcome, images = self.outcome(predictions), len(self.split.images)
        shown = outcome.found.over(DISPLAY_THRESH)
        rows = torch.cat([shown.classes[:, None].float(), shown.probs[:, None], shown.boxes], 1)
        classes = [
            ClassDetails(name, count, accuracy, rounded(precision.tolist()))
            for name, (count, accuracy, precision) in zip(self.split.names, outcome.by_class(RECALLS), strict=True)
        ]
        return Details(
            metric=self.steering,
            accuracy=outcome.accuracy,
            images=images,
            resampled=resampled(outcome, images),
            classes=tuple(classes),
            confusion=confusion(shown, self.split.truths, self.graph.classes),
            pictures=by_picture(self.split.images, self.split.truths, rows, shown.image),
            data=self.digest(),
        )

    def digest(self) -> str:
        truths = (*self.split.truths, *self.split.difficult) if self.labels else ()
        return digest_of(self.split.images, (truth.tobytes() for truth in truths))

    def supervised_by(self, teacher: Network) -> Measure:
        images = len(self.pictures)
        sure = self.predictions(teacher).over(DISPLAY_THRESH).by_image()
        if not len(sure.image):
            raise InputError(f"--no-labels: the network finds nothing over {DISPLAY_THRESH} in {images} pictures")
        rows = torch.cat([sure.classes[:, None].float(), sure.boxes], 1)
        truths = torch.split(rows, torch.bincount(sure.image, minlength=images).tolist())
        return replace(self, split=replace(self.split, truths=tuple(each.numpy() for each in truths)), labels=False)

    def _matches(self, found: Detections, numbers: Sequence[int]) -> Matches:
        """What is left of all that the heads propose for some batches' pictures, and which objects it is of."""
        found = postprocess(found, overlap_of(self.graph, self.nms_kind))
        return match(replace(found, image=torch.tensor(numbers)[found.image]), self._objects, self._difficult)

    @cached_property
    def _objects(self) -> Objects:
        return Objects.of(self.split.truths, self.graph.classes)

    @cached_property
    def _difficult(self) -> Objects:
        return Objects.of(self.split.difficult, self.graph.classes)


def _by_name(names: Sequence[str], values: Sequence[float | None]) -> dict[str, float | None]:
    """Values of classes; a name that comes again, which Darknet doesn't mind, has the class's number behind it."""
    found: dict[str, float | None] = {}
    for number, (name, value) in enumerate(zip(names, values, strict=True)):
        key = name
        while key in found:
            key = f"{key} ({number})"
        found[key] = value
    return found
