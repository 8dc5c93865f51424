"""The training loop."""

from __future__ import annotations

import math
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
from yoloprune.darknet.model import Model
from yoloprune.darknet.network import Network
from yoloprune.darknet.weights import Weights
from yoloprune.errors import InputError, warn
from yoloprune.train import checkpoint
from yoloprune.train.batches import batches
from yoloprune.train.chart import plot_training
from yoloprune.train.checkpoint import Snapshot, State, kept
from yoloprune.train.interrupt import uninterrupted
from yoloprune.train.learner import Learner
from yoloprune.train.mask_enforcer import Mask
from yoloprune.train.processes import Processes
from yoloprune.train.progress import Record, TrainingProgress, records_of, stale, write_log
from yoloprune.train.recipe import Recipe
from yoloprune.train.samples import Samples
from yoloprune.train.supervision import Supervision

CHECKPOINT = "last.pt"
LOG = "log.csv"
CHART = "chart.png"
ROLLBACKS = 3
"""Times that a run goes back where numbers end; each halves the rate of all updates to come."""
_BLOWN_UP = 10.0
"""A state whose averaged loss is more than so many times that of the last good one is none to go back to."""
_CACHE_BYTES = 1 << 30
_LABELS = Supervision()


@dataclass(frozen=True)
class Trained:
    """What came of a run. `seen` of the weights counts the images of training on."""

    best: Weights
    """Of the best metric, the later of equals; the last where nothing was measured."""
    last: Weights
    start_metric: float | None
    """Of the weights that it began with, where it is known."""
    best_metric: float | None
    best_iteration: int
    """0: the weights that it began with."""
    history: tuple[Record, ...]


def train(
    model: Model,
    images: Split | ClassSplit,
    recipe: Recipe,
    *,
    folder: Path,
    seed: int,
    masks: Mask | None = None,
    supervision: Supervision = _LABELS,
    evaluate: Callable[[Network], float] | None = None,
    measured: str = "",
    start: float | None = None,
    resume: bool = False,
    device: str = "cpu",
    workers: int = 2,
    cache_bytes: int = _CACHE_BYTES,
    progress: Callable[[TrainingProgress], None] = lambda progress: None,
) -> Trained:
    """Train a network by `recipe`; `folder` receives the checkpoint last.pt, log.csv and chart.png.

    masks: values that stay as `TensorSpec.masked` says, exactly and all the time. supervision: who teaches. evaluate:
    higher is better; it gets the network in eval mode, the averaged one where the recipe asks for an average. measured:
    what `evaluate` measures, and on what; figures of one run are compared, so a checkpoint goes on only with the same.
    start: what `evaluate` gives for the weights to begin with, if that is known; they are the best until others are.
    resume: go on from the checkpoint in `folder` if there is one, else it is replaced; on a CPU the result is then, bit
    for bit, that of an undisturbed run. workers: processes that prepare pictures; they change nothing but the speed.
    cache_bytes: memory for decoded pictures, of all of them together.

    Where the loss or a weight is no number, an InputWarning says so, and the run goes back to the last good state and
    on from there at half the rate, `ROLLBACKS` times in all; a best that was measured on the way stays. Good are the
    start, and every state after a multiple of `checkpoint_every` updates behind which the next one has a loss and its
    average hasn't risen tenfold.

    Within `processes.joined` every process calls this alike; the first one measures, tells and writes, and only its
    result has a best. Mini-batches are then dealt out (see `Recipe.for_processes`), which changes nothing but rounding.

    KeyboardInterrupt leaves a checkpoint and goes on up. InputError: nothing to train on, a head without loss, images
    that can't be read, a checkpoint of another run, an unwritable folder, no numbers after all those times (the
    checkpoint stays).
    """
    processes = Processes()
    recipe = recipe.for_processes(processes.count)
    samples = Samples.of(images, model.graph, recipe, seed, cache_bytes)
    learner = Learner(model, recipe, seed, masks, supervision, torch.device(device), processes)
    fingerprint = checkpoint.fingerprint(model, samples, masks, supervision, measured)
    run = _Run(model, learner, samples, folder, evaluate, fingerprint, progress, processes)
    run.begin(resume, start)
    # Dropout draws from torch's own generator: it is seeded at each mini-batch, and given back as it was.
    devices = [learner.device] if learner.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        try:
            run.settle()
            while not run.done:
                with closing(batches(run.samples, run.places(), recipe.mini_batch, workers)) as parts:
                    went_on = True
                    while went_on and not run.done:
                        with uninterrupted():
                            went_on = run.update(islice(parts, recipe.subdivisions // processes.count))
                        run.settle()
        except KeyboardInterrupt:
            run.save()
            raise
    run.save()
    run.draw()
    processes.barrier()
    return run.result()


class _Run:
    """The books of a run: its state, files and measurements."""

    def __init__(
        self,
        model: Model,
        learner: Learner,
        samples: Samples,
        folder: Path,
        evaluate: Callable[[Network], float] | None,
        fingerprint: str,
        progress: Callable[[TrainingProgress], None],
        processes: Processes,
    ) -> None:
        self.model, self.learner, self.samples, self.recipe = model, learner, samples, samples.recipe
        self.folder, self.evaluate, self.progress, self.processes = folder, evaluate, progress, processes
        history = torch.full((self.recipe.iterations, 5), math.nan, dtype=torch.float64)
        self.state = State(iteration=0, **learner.state_dicts(), run=fingerprint, history=history)
        self.good = self._snapshot()
        self.stale = 0
        self.reported = 0
        self.logged = 0
        self.seconds, self.images = 0.0, 0

    @property
    def done(self) -> bool:
        """Whether nothing is left to do, or nothing gets better."""
        patience = self.recipe.patience
        if self.state.iteration >= self.recipe.iterations:
            return True
        return patience > 0 and self.processes.broadcast(self.stale >= patience)

    def places(self) -> range:
        """Where this process's mini-batches of the updates to come begin."""
        recipe, processes = self.recipe, self.processes
        first = self.state.iteration * recipe.images + processes.rank * recipe.mini_batch
        return range(first, recipe.iterations * recipe.images, processes.count * recipe.mini_batch)

    def begin(self, resume: bool, start: float | None) -> None:
        """From the checkpoint if it is wanted and there is one; else write one, which shows that the folder works."""
        path = self.folder / CHECKPOINT
        if self.processes.broadcast(resume and path.exists()):
            self.state = checkpoint.read(path, self.state.run)
            self.learner.load(self.state)
            self.good = Snapshot(**self.state.good) if self.state.good else self._snapshot()
            self._take_up()
            return
        if start is not None:
            if self.processes.rank == 0:
                self._note(start)
            self.state.evaluated = 0
        self.save()

    def update(self, parts: Iterable[tuple[Tensor, Tensor]]) -> bool:
        """The next update, on mini-batches as `batches` gives them; False if the run went back instead."""
        begun = time.perf_counter()
        state, history, iteration = self.state, self.state.history, self.state.iteration + 1
        rate = self.recipe.schedule.rate(iteration) * 0.5 ** len(state.rollbacks)
        marked = state.iteration % self.recipe.checkpoint_every == 0 and state.iteration > self.good.iteration
        before = self._snapshot() if marked else None
        loss, trouble = self.learner.update(parts, iteration, rate)
        if trouble:
            self._roll_back(iteration, trouble)
            return False
        average = 0.9 * float(history[iteration - 2, 2]) + 0.1 * loss if iteration > 1 else loss
        history[iteration - 1] = torch.tensor([iteration, loss, average, rate, math.nan], dtype=history.dtype)
        state.iteration = iteration
        if before:  # was good, as the update from there shows
            known = float(history[max(self.good.iteration, 1) - 1, 2])
            if self.processes.broadcast(average <= _BLOWN_UP * known):
                self.good = before
        self.seconds += time.perf_counter() - begun
        self.images += self.recipe.images
        return True

    def _roll_back(self, iteration: int, trouble: str) -> None:
        """Go back from an update that ended in no numbers. InputError instead after all the times."""
        state, good = self.state, self.good
        if len(state.rollbacks) == ROLLBACKS:
            raise InputError(
                f"iteration {iteration}: {trouble}, {self._rate}, too; {self.folder / CHECKPOINT} holds the last good "
                "weights. Try a much lower learning rate (--force trains anew) or, behind pruning, a smaller cut"
            )
        state.rollbacks.append([iteration, good.iteration])
        state.iteration, state.evaluated = good.iteration, min(state.evaluated, good.iteration)
        state.history[good.iteration :] = math.nan
        self.learner.load(good)
        self.samples = replace(self.samples, cache=self.samples.cache.emptied())
        self._take_up()
        self.save()
        self.draw()
        if self.processes.rank == 0:
            times = f"{len(state.rollbacks)} of {ROLLBACKS} times"
            warn(f"iteration {iteration}: {trouble}; on from iteration {good.iteration} {self._rate} ({times})")

    @property
    def _rate(self) -> str:
        return f"with 1/{2 ** len(self.state.rollbacks)} of the learning rate"

    def _take_up(self) -> None:
        """Go on from a state that is not the last update's."""
        self.reported, self.logged = self.state.iteration, 0
        self.stale = stale(self._records(), self.state.start_metric)

    def settle(self) -> None:
        """What is due after an update: measure, tell, save. Does nothing again for the same update."""
        state, recipe = self.state, self.recipe
        if state.iteration > state.evaluated and self.evaluate and self._due:
            if self.processes.rank == 0:
                self._measure(self.evaluate)
            state.evaluated = state.iteration
        if state.iteration > self.reported:
            self.reported = state.iteration
            speed = self.images / self.seconds
            left = (recipe.iterations - state.iteration) * recipe.images / speed
            self.progress(TrainingProgress(self._records(-1)[0], recipe.iterations, speed, left, state.best_metric))
            if state.iteration % recipe.checkpoint_every == 0:
                self.save()

    @property
    def _due(self) -> bool:
        """Whether to measure now."""
        iteration, every = self.state.iteration, self.recipe.evaluate_every
        if iteration == 0:
            return self.recipe.evaluate_start
        return iteration == self.recipe.iterations or bool(every and iteration % every == 0)

    def _measure(self, evaluate: Callable[[Network], float]) -> None:
        with self.learner.resting() as network, np.errstate(over="ignore", invalid="ignore"):
            metric = evaluate(network)  # boxes of a network that knows nothing yet may be infinite
        self._note(metric)
        self.draw()

    def _note(self, metric: float) -> None:
        """What the network as it is now measures."""
        state = self.state
        if state.iteration:
            state.history[state.iteration - 1, -1] = metric
        else:
            state.start_metric = metric
        if state.best_metric is None or metric >= state.best_metric:
            state.best_metric, state.best_iteration = metric, state.iteration
            state.best = kept(self.learner.network.state_dict())
        self.stale = stale(self._records(), state.start_metric)
        state.evaluated = state.iteration  # before what may be interrupted: measured again, it would count twice

    def _snapshot(self) -> Snapshot:
        return Snapshot(self.state.iteration, **kept(self.learner.state_dicts()))

    def save(self) -> None:
        """Checkpoint and log. InputError instead if a weight is no number."""
        if self.processes.rank:
            return
        state = self.state
        for name, value in self.learner.state_dicts().items():
            setattr(state, name, value)
        state.good = None if self.good.iteration == state.iteration else vars(self.good)
        bad = [name for name, tensor in state.network.items() if not tensor.isfinite().all()]
        if bad:
            layer, name = bad[0].split(".")[1:]
            where = f"{self.model.graph.layers[int(layer)]}, {name}"
            raise InputError(f"iteration {state.iteration}: {where} holds values that are no numbers")
        checkpoint.write(self.folder / CHECKPOINT, state)
        # What an earlier process wrote may go on behind the checkpoint, so the first time all is written.
        write_log(self.folder / LOG, self._records(self.logged), more=self.logged > 0)
        self.logged = state.iteration

    def _records(self, start: int = 0) -> list[Record]:
        """Of the updates done, from index `start` on."""
        return records_of(self.state.history[: self.state.iteration][start:])

    def draw(self) -> None:
        """The chart as it is now."""
        if not self.processes.rank:
            plot_training(self._records(), self.recipe.iterations, self.folder / CHART, self.state.start_metric)

    def result(self) -> Trained:
        """Best and last weights."""
        state, header = self.state, self.model.weights.header
        last = self._weights(self.learner.network, header.seen + state.iteration * self.recipe.images)
        best = last
        if state.best is not None:
            network = Network(self.model.graph)
            network.load_state_dict(state.best)
            best = self._weights(network, header.seen + state.best_iteration * self.recipe.images)
        history = tuple(self._records())
        return Trained(best, last, state.start_metric, state.best_metric, state.best_iteration, history)

    def _weights(self, network: Network, seen: int) -> Weights:
        return network.get_weights(replace(self.model.weights.header, seen=seen))
