"""What `train` and `finetune` have in common."""

from __future__ import annotations

from collections.abc import Callable

import torch

from yoloprune.darknet.data import ClassSplit, DataFile, Split, load_classes, load_split
from yoloprune.darknet.model import Graph
from yoloprune.detect.measure import Measure
from yoloprune.errors import warn
from yoloprune.progress import OnProgress, Progress
from yoloprune.train.loop import Trained
from yoloprune.train.progress import TrainingProgress
from yoloprune.train.recipe import Recipe
from yoloprune.train.unsupported import unsupported


def train_images(data: DataFile, graph: Graph, *, labels: bool = True) -> Split | ClassSplit:
    """The train list as the network learns from it; without labels only its pictures."""
    if graph.detection_heads:
        return load_split(data, "train", graph.dialect, classes=graph.classes, labels=labels)
    if labels:
        return load_classes(data, "train", classes=graph.classes)
    split = load_split(data, "train", graph.dialect, classes=graph.classes, labels=False)
    return ClassSplit(split.names, split.images, (-1,) * len(split.images))


def measured_by(measure: Measure) -> str:
    """What figures of a run are figures of: the metric, how pictures are fitted, the pictures and their truth."""
    return f"{measure.steering} {measure.pictures.fit} {measure.digest()}"


def mixed_precision(device: str, asked: bool) -> bool:
    """Whether layers compute in bfloat16: on a GPU that has it always, elsewhere if asked for."""
    return asked or (device.startswith("cuda") and torch.cuda.is_bf16_supported(including_emulation=False))


def announce(progress: OnProgress, graph: Graph, recipe: Recipe, device: str) -> None:
    """Say in one line what was asked for, or is usual, and does not come."""
    left_out = unsupported(graph)
    if device.startswith("cuda") and not recipe.bfloat16:
        left_out.append("this GPU has no bfloat16: layers compute in float32")
    if left_out:
        progress(Progress("left out", 0, 1, "; ".join(left_out)))


def follower(progress: OnProgress, stage: str) -> Callable[[TrainingProgress], None]:
    """Tells of every update: loss, its average, rate, best accuracy, images a second, time left."""

    def tell(now: TrainingProgress) -> None:
        record = now.record
        best = "" if now.best is None else f", best {now.best:.4f}"
        speed = f"{now.images_per_second:.0f} images/s, {_duration(now.seconds_left)} left"
        text = f"loss {record.loss:.3f}, avg {record.average:.3f}, rate {record.rate:.2g}{best}, {speed}"
        progress(Progress(stage, record.iteration, now.iterations, text))

    return tell


def warn_of_no_gain(trained: Trained, metric: str, remedy: str) -> None:
    """An InputWarning if training ended no better than it began. metric: what it is called; remedy: what to try."""
    start, best = trained.start_metric, trained.best_metric
    if start is None or best is None or best > start:
        return
    reached = max(record.metric for record in trained.history if record.metric is not None)
    stays = "; the weights that it began with stay" if trained.best_iteration == 0 else ""
    warn(f"training did not help: {metric} {start:.4f} before, at best {reached:.4f} after some of it{stays}; {remedy}")


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
