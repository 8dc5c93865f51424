"""What `train` and `finetune` have in common."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from yoloprune.darknet import weights as weights_file
from yoloprune.darknet.data import ClassSplit, Split
from yoloprune.darknet.model import Graph, Model
from yoloprune.darknet.network import Network
from yoloprune.detect.measure import Measure
from yoloprune.errors import warn
from yoloprune.options import FinetuneOptions, TrainOptions
from yoloprune.progress import OnProgress, Progress
from yoloprune.steps.inputs import check_readable
from yoloprune.train.loop import Evaluation, Resources, Trained, train
from yoloprune.train.masks import UNMASKED, Masks
from yoloprune.train.processes import process_group
from yoloprune.train.progress import TrainingProgress
from yoloprune.train.ranks import rank_of
from yoloprune.train.recipe import Recipe
from yoloprune.train.supervision import LABELS, Supervision
from yoloprune.train.unsupported import unsupported

Options = FinetuneOptions | TrainOptions


@dataclass(frozen=True)
class Training:
    """A training run of a step: what learns, from what and how, and where its files go."""

    stage: str
    """What progress calls it."""
    model: Model
    images: Split | ClassSplit
    recipe: Recipe
    folder: Path
    """Of checkpoint, log and chart."""
    best: Path
    last: Path
    """Files of weights."""
    options: Options
    masks: Masks = UNMASKED
    supervision: Supervision = LABELS
    start: float | None = None
    """Accuracy of the weights that it begins with, where it is known."""

    def announce(self, device: str, how: str, progress: OnProgress) -> None:
        """Say in a line what does not come, if anything, and in another how long and how it trains."""
        if missing := left_out(self.model.graph, self.recipe, device):
            progress(Progress("left out", 0, 1, "; ".join(missing)))
        text = f"{self.recipe.iterations} iterations of {self.recipe.images} pictures, {how}"
        progress(Progress(self.stage, 0, self.recipe.iterations, text))

    def check_pictures(self, measure: Measure, progress: OnProgress) -> None:
        """InputError that names every picture, to train or measure on, that can't be decoded."""
        check_readable([*self.images.images, *measure.pictures.paths], self.model.graph, progress)

    def run(
        self,
        measure: Measure,
        device: str,
        progress: OnProgress,
        evaluate: Callable[[Network], float] | None = None,
    ) -> Trained | None:
        """Train, together with torchrun's other processes; None in all of them but the first. Errors as `train`.

        evaluate: gives the measure's accuracy, if another than the measure itself is to.
        """
        # What figures of a run are figures of: the metric, how pictures are fitted, the pictures and their truth.
        measured = f"{measure.steering} {measure.pictures.fit} {measure.digest()}"
        with process_group(device) as own:
            trained = train(
                self.model,
                self.images,
                self.recipe,
                folder=self.folder,
                seed=self.options.seed,
                masks=self.masks,
                supervision=self.supervision,
                evaluation=Evaluation(evaluate or measure.accuracy, measured, self.start),
                resources=Resources(own, self.options.workers),
                progress=follower(progress, self.stage),
            )
        return None if rank_of() else trained

    def write(self, trained: Trained) -> None:
        """Best and last weights to their files, in place of what is there."""
        for file, weights in ((self.best, trained.best), (self.last, trained.last)):
            weights_file.write(file, weights, self.model.graph.layers, force=True)


def with_options(recipe: Recipe, options: Options, device: str, measurements: int) -> Recipe:
    """The recipe as options change it, that measures accuracy about `measurements` times, the end included."""
    return replace(
        recipe,
        ema_alpha=recipe.ema_alpha if options.ema is None else options.ema,
        patience=options.early_stop,
        bn_l1=options.bn_l1,
        bfloat16=mixed_precision(device, options.bf16),
        evaluate_every=math.ceil(recipe.iterations / measurements),
    )


def mixed_precision(device: str, asked: bool) -> bool:
    """Whether layers compute in bfloat16: on a GPU that has it always, elsewhere if asked for."""
    return asked or (device.startswith("cuda") and torch.cuda.is_bf16_supported(including_emulation=False))


def left_out(graph: Graph, recipe: Recipe, device: str) -> list[str]:
    """What was asked for, or is usual, and does not come."""
    missing = unsupported(graph)
    if device.startswith("cuda") and not recipe.bfloat16:
        missing.append("this GPU has no bfloat16: layers compute in float32")
    return missing


def follower(progress: OnProgress, stage: str) -> Callable[[TrainingProgress], None]:
    """Tells of every update: loss, its average, rate, best accuracy, images a second, time left."""

    def tell(now: TrainingProgress) -> None:
        record = now.record
        best = "" if now.best is None else f", best {now.best:.4f}"
        left, speed = f"{_duration(now.seconds_left)} left", f"{now.images_per_second:.0f} images/s"
        text = f"{left}, loss {record.loss:.3f}, avg {record.average:.3f}{best}, rate {record.rate:.2g}, {speed}"
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
