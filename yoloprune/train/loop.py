"""The training loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from yoloprune.darknet.data import ClassSplit, Split
from yoloprune.darknet.mask import Mask
from yoloprune.darknet.model import Model
from yoloprune.darknet.network import Network
from yoloprune.darknet.weights import Header, Weights
from yoloprune.errors import InputError, warn
from yoloprune.train import checkpoint
from yoloprune.train.batches import batches
from yoloprune.train.interrupt import uninterrupted
from yoloprune.train.masks import UNMASKED, Masks
from yoloprune.train.processes import Processes
from yoloprune.train.progress import Record, TrainingProgress
from yoloprune.train.recipe import Recipe
from yoloprune.train.run_folder import RunFolder
from yoloprune.train.samples import Samples
from yoloprune.train.state import Snapshot, State, copied
from yoloprune.train.supervision import LABELS, Supervision
from yoloprune.train.trainer import Trainer

ROLLBACKS = 3
"""Times that a run goes back where values aren't finite; each halves the rate of all updates to come."""
_DIVERGED = 10.0
"""A state whose averaged loss is more than so many times that of the last good one is none to go back to."""


@dataclass(frozen=True)
class Evaluation:
    """How a run's network is measured."""

    evaluate: Callable[[Network], float] | None = None
    """Higher is better. It gets the network in eval mode, the averaged one where the recipe asks for an average."""
    measured: str = ""
    """What it measures, and on what: figures of one run are compared, so a checkpoint goes on only with the same."""
    start: float | None = None
    """Its figure for the weights to begin with, if that is known; they are the best until others are."""


@dataclass(frozen=True)
class Resources:
    """What a run computes with; but for rounding on another device, this changes nothing but the speed."""

    device: str = "cpu"
    workers: int = 2
    """Processes that prepare pictures; 0: none."""
    cache_bytes: int = 1 << 30
    """Memory for decoded pictures, of all processes together."""


@dataclass(frozen=True)
class Trained:
    """What came of a run. `seen` of the weights counts the images of training on."""

    best: Weights
    """Of the best metric, the later of equals, among those measured with the final mask; the last where none was."""
    last: Weights
    start_metric: float | None
    """Of the weights that it began with, where it is known."""
    best_metric: float | None
    best_iteration: int
    """0: the weights that it began with."""
    history: tuple[Record, ...]
    mask: Mask | None
    """What is kept in the end."""


_UNMEASURED, _USUAL = Evaluation(), Resources()


def train(
    model: Model,
    images: Split | ClassSplit,
    recipe: Recipe,
    *,
    folder: Path,
    seed: int,
    masks: Masks = UNMASKED,
    supervision: Supervision = LABELS,
    evaluation: Evaluation = _UNMEASURED,
    resources: Resources = _USUAL,
    progress: Callable[[TrainingProgress], None] = lambda progress: None,
) -> Trained:
    """Train a network by `recipe`, or go on from the checkpoint in `folder` if there is one.

    On a CPU the result is, bit for bit, that of a run that was never interrupted.

    Where the loss or a weight isn't finite, an InputWarning says so, and the run goes back to the last good state and
    on from there at half the rate, `ROLLBACKS` times in all; a best that was measured on the way stays. Good are the
    start, and every state after a multiple of `checkpoint_every` updates behind which the next one has a loss and its
    average hasn't risen tenfold.

    Within `processes.process_group` every process calls this alike; the first one measures, tells and writes, and only
    its result has a best. Mini-batches are distributed (`Recipe.for_processes`), which changes nothing but rounding.

    KeyboardInterrupt leaves a checkpoint and goes on up. InputError: nothing to train on, a head without loss, images
    that can't be read, a checkpoint of another run, an unwritable folder, values that aren't finite after all
    those times (the checkpoint stays).

    Parameters
    ----------
    model, images, recipe, seed
        What is trained, on what and how.
    folder
        Receives the checkpoint last.pt, log.csv and chart.png.
    masks
        Values that are not kept are as `TensorSpec.masked` says, exactly, and all the time or by a schedule. With one,
        the best, and what `Recipe.patience` counts, are of its final mask. With grids, weights that are given back are
        values of theirs, exactly.
    supervision, evaluation, resources, progress
        Labels or teacher, what accuracy is, with what is computed, and who is told of every update.
    """
    processes = Processes()
    recipe = recipe.for_processes(processes.count)
    samples = Samples.of(images, model.graph, recipe, seed, resources.cache_bytes)
    trainer = Trainer(model, recipe, seed, masks, supervision, torch.device(resources.device), processes)
    fingerprint = checkpoint.fingerprint(model, samples, masks, supervision, evaluation.measured)
    run = _Run(trainer, samples, RunFolder(folder, writes=processes.rank == 0), evaluation, fingerprint, progress)
    run.begin()
    # Dropout draws from torch's own generator: it is seeded at each mini-batch, and given back as it was.
    with torch.random.fork_rng(devices=[trainer.device] if trainer.device.type == "cuda" else []):
        try:
            run.to_the_end(resources.workers)
        except KeyboardInterrupt:
            run.save()
            raise
    run.save()
    run.folder.draw(run.state)
    processes.barrier()
    return run.result(model.weights.header)


class _Run:
    """A run's state, and what is done between updates: measure, report, save, roll back."""

    def __init__(
        self,
        trainer: Trainer,
        samples: Samples,
        folder: RunFolder,
        evaluation: Evaluation,
        fingerprint: str,
        progress: Callable[[TrainingProgress], None],
    ) -> None:
        self.trainer, self.samples, self.recipe = trainer, samples, samples.recipe
        self.folder, self.evaluation, self.progress = folder, evaluation, progress
        self.processes, self.counted_from = trainer.processes, trainer.counted_from
        history = torch.full((self.recipe.iterations, 5), torch.nan, dtype=torch.float64)
        self.state = State(iteration=0, **trainer.state_dicts(), run=fingerprint, history=history)
        self.good = self._snapshot()
        self.stale = 0
        self.seconds, self.images = 0.0, 0

    def begin(self) -> None:
        """From the checkpoint if there is one; else write one, which shows that the folder works."""
        if self.processes.broadcast(self.folder.checkpoint.exists()):
            self.state = checkpoint.read(self.folder.checkpoint, self.state.run)
            self.trainer.load(self.state)
            self.good = Snapshot(**self.state.good) if self.state.good else self._snapshot()
            self.stale = self.state.stale(self.counted_from)
            return
        self.trainer.choose_mask(0)
        self.good = self._snapshot()
        if self.evaluation.start is not None:
            self._add_metric(self.evaluation.start)
        self.save()

    def to_the_end(self, workers: int) -> None:
        """All updates, also where some are done again after a rollback."""
        self._evaluate()
        while not self._done:
            with closing(batches(self.samples, self._starts(), self.recipe.mini_batch, workers)) as parts:
                went_on = True
                while went_on and not self._done:
                    with uninterrupted():
                        went_on = self._update(islice(parts, self.recipe.subdivisions // self.processes.count))
                    if went_on:
                        self._evaluate()
                        self._report()

    @property
    def _done(self) -> bool:
        """Whether nothing is left to do, or nothing gets better."""
        if self.state.iteration >= self.recipe.iterations:
            return True
        return self.recipe.patience > 0 and self.processes.broadcast(self.stale >= self.recipe.patience)

    def _starts(self) -> range:
        """Where this process's mini-batches of the updates to come begin among the samples."""
        recipe, processes = self.recipe, self.processes
        first = self.state.iteration * recipe.images + processes.rank * recipe.mini_batch
        return range(first, recipe.iterations * recipe.images, processes.count * recipe.mini_batch)

    def _update(self, parts: Iterable[tuple[Tensor, Tensor]]) -> bool:
        """The next update, on mini-batches as `batches` gives them; False if the run went back instead."""
        begun = time.perf_counter()
        state, iteration = self.state, self.state.iteration + 1
        rate = self.recipe.schedule.rate(iteration) * 0.5 ** len(state.rollbacks)
        marked = state.iteration % self.recipe.checkpoint_every == 0 and state.iteration > self.good.iteration
        before = self._snapshot() if marked else None
        loss, trouble = self.trainer.update(parts, iteration, rate)
        if trouble:
            self._roll_back(iteration, trouble)
            return False
        state.add_update(loss, rate)
        if before:  # was good, as the update from there shows
            most = _DIVERGED * state.average_loss(max(self.good.iteration, 1))
            if self.processes.broadcast(state.average_loss(iteration) <= most):
                self.good = before
        self.seconds += time.perf_counter() - begun
        self.images += self.recipe.images
        return True

    def _roll_back(self, iteration: int, trouble: str) -> None:
        """Go back from an update after which values aren't finite. InputError instead after all the times."""
        state, good, done = self.state, self.good, len(self.state.rollbacks)
        if done == ROLLBACKS:
            raise InputError(
                f"iteration {iteration}: {trouble}, with 1/{2**done} of the learning rate, too; "
                f"{self.folder.checkpoint} holds the last good weights. Try a much lower learning rate (--force trains "
                "anew) or, behind pruning, less of it"
            )
        state.roll_back(good, iteration, self.counted_from)
        self.trainer.load(good)
        self.samples = replace(self.samples, cache=self.samples.cache.emptied())
        self.stale = state.stale(self.counted_from)
        self.save()
        self.folder.draw(state)
        if self.processes.rank == 0:
            rate = f"with 1/{2 ** (done + 1)} of the learning rate ({done + 1} of {ROLLBACKS} times)"
            warn(f"iteration {iteration}: {trouble}; on from iteration {good.iteration} {rate}")

    def _evaluate(self) -> None:
        """Measure accuracy if that is due and not done yet."""
        state, evaluate = self.state, self.evaluation.evaluate
        if state.iteration <= state.evaluated or not evaluate or not self.recipe.evaluates_after(state.iteration):
            return
        if self.processes.rank == 0:
            with self.trainer.evaluating() as network, np.errstate(over="ignore", invalid="ignore"):
                metric = evaluate(network)  # boxes of one that knows nothing yet may be infinite
            self._add_metric(metric)
            self.folder.draw(state)
        state.evaluated = state.iteration

    def _report(self) -> None:
        """Tell of an update, and save where that is due."""
        state, recipe = self.state, self.recipe
        speed = self.images / self.seconds
        left = (recipe.iterations - state.iteration) * recipe.images / speed
        self.progress(TrainingProgress(state.records(-1)[0], recipe.iterations, speed, left, state.best_metric))
        if state.iteration % recipe.checkpoint_every == 0:
            self.save()

    def _add_metric(self, metric: float) -> None:
        if self.processes.rank == 0:
            self.state.add_metric(metric, self.trainer.network.state_dict(), self.counted_from)
        self.state.evaluated = self.state.iteration
        self.stale = self.state.stale(self.counted_from)

    def _snapshot(self) -> Snapshot:
        return Snapshot(self.state.iteration, **copied(self.trainer.state_dicts()))

    def save(self) -> None:
        """Checkpoint and log. InputError instead if a weight isn't finite."""
        if self.processes.rank:
            return
        state = self.state
        for name, value in self.trainer.state_dicts().items():
            setattr(state, name, value)
        state.good = None if self.good.iteration == state.iteration else vars(self.good)
        for name, tensor in state.network.items():
            if not tensor.isfinite().all():
                layer, array = name.split(".")[1:]
                where = f"{self.samples.graph.layers[int(layer)]}, {array}"
                raise InputError(f"iteration {state.iteration}: {where} holds values that are no numbers")
        self.folder.save(state)

    def result(self, header: Header) -> Trained:
        """Best and last weights; header: of those that it began with."""
        state, network = self.state, self.trainer.network

        def weights_after(iteration: int) -> Weights:
            with self.trainer.evaluating():
                return network.get_weights(replace(header, seen=header.seen + iteration * self.recipe.images))

        best = last = weights_after(state.iteration)
        if state.best is not None:
            network.load_state_dict(state.best)
            best = weights_after(state.best_iteration)
        history = tuple(state.records())
        return Trained(
            best, last, state.start_metric, state.best_metric, state.best_iteration, history, self.trainer.mask
        )
