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
from yoloprune.errors import InputError
from yoloprune.train import checkpoint
from yoloprune.train.average import Average
from yoloprune.train.batches import batches, network_input
from yoloprune.train.chart import plot_training
from yoloprune.train.checkpoint import State
from yoloprune.train.distill import Teacher
from yoloprune.train.held import Held, Masks
from yoloprune.train.interrupt import uninterrupted
from yoloprune.train.lesson import Lesson
from yoloprune.train.optimizer import Optimizer
from yoloprune.train.processes import Processes, Statistics
from yoloprune.train.progress import Progress, Record, records_of, write_log
from yoloprune.train.recipe import Recipe
from yoloprune.train.samples import Samples
from yoloprune.train.sized import Sized
from yoloprune.train.step import Objective, not_finite

CHECKPOINT = "last.pt"
LOG = "log.csv"
CHART = "chart.png"
_CACHE_BYTES = 1 << 30
_LABELS = Lesson()


@dataclass(frozen=True)
class Trained:
    """What came of a run. `seen` of the weights counts the images of training on."""

    best: Weights
    """Of the best metric, the later of equals; the last where nothing was measured."""
    last: Weights
    best_metric: float | None
    best_iteration: int
    history: tuple[Record, ...]


def train(
    model: Model,
    images: Split | ClassSplit,
    recipe: Recipe,
    *,
    folder: Path,
    seed: int,
    masks: Masks | None = None,
    lesson: Lesson = _LABELS,
    evaluate: Callable[[Network], float] | None = None,
    measured: str = "",
    resume: bool = False,
    device: str = "cpu",
    workers: int = 2,
    cache_bytes: int = _CACHE_BYTES,
    progress: Callable[[Progress], None] = lambda progress: None,
) -> Trained:
    """Train a network by `recipe`; `folder` receives the checkpoint last.pt, log.csv and chart.png.

    masks: values that stay as `TensorSpec.masked` says, exactly and all the time. lesson: who teaches. evaluate: higher
    is better; it gets the network in eval mode, the averaged one where the recipe asks for an average. measured: what
    `evaluate` measures, and on what; figures of one run are compared, so a checkpoint goes on only with the same.
    resume: go on from the checkpoint in `folder` if there is one, else it is replaced; on a CPU the result is then, bit
    for bit, that of an undisturbed run. workers: processes that prepare pictures; they change nothing but the speed.
    cache_bytes: memory for decoded pictures, of all of them together.

    Within `processes.joined` every process calls this alike; the first one measures, tells and writes, and only its
    result has a best. Mini-batches are then dealt out (see `Recipe.for_processes`), which changes nothing but rounding.

    KeyboardInterrupt leaves a checkpoint and goes on up. InputError: nothing to train on, a head without loss, images
    that can't be read, a checkpoint of another run, an unwritable folder, a loss that is no number (the checkpoint
    before it stays).
    """
    processes = Processes()
    recipe = recipe.for_processes(processes.count)
    samples = Samples.of(images, model.graph, recipe, seed, cache_bytes)
    run = _Run(model, samples, masks, lesson, torch.device(device), folder, evaluate, measured, progress, processes)
    run.begin(resume)
    # Dropout draws from torch's own generator: it is seeded at each mini-batch, and given back as it was.
    devices = [run.device] if run.device.type == "cuda" else []
    first = run.state.iteration * recipe.images + processes.rank * recipe.mini_batch
    firsts = range(first, recipe.iterations * recipe.images, processes.count * recipe.mini_batch)
    with (
        torch.random.fork_rng(devices=devices),
        closing(batches(samples, firsts, recipe.mini_batch, workers)) as parts,
    ):
        try:
            run.settle()
            while not run.done:
                with uninterrupted():
                    run.update(islice(parts, recipe.subdivisions // processes.count))
                run.settle()
        except KeyboardInterrupt:
            run.save()
            raise
    run.save()
    run.draw()
    processes.wait()
    return run.result()


class _Run:
    """A run's network, optimizer and state, and what happens to them."""

    def __init__(
        self,
        model: Model,
        samples: Samples,
        masks: Masks | None,
        lesson: Lesson,
        device: torch.device,
        folder: Path,
        evaluate: Callable[[Network], float] | None,
        measured: str,
        progress: Callable[[Progress], None],
        processes: Processes,
    ) -> None:
        self.model, self.samples, self.recipe, self.device = model, samples, samples.recipe, device
        self.folder, self.evaluate, self.progress, self.processes = folder, evaluate, progress, processes
        self.objective = Objective.of(model.graph)
        self.labels = lesson.labels
        self.teacher = Teacher(lesson.teacher, masks, device) if lesson.teacher else None
        self.network = Network(model.graph)
        self.network.set_weights(model.weights)
        self.network.to(device)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch types lack it
        self.held = Held(self.network, masks)
        self.held.restore()
        self.optimizer = Optimizer(self.network, self.recipe)
        self._prepare()
        self.sized = Sized(self.network)
        self.sized.like(*self.recipe.sizes.largest(model.graph.net.input)[1:])
        self.called = processes.wrap(self.sized)
        self.statistics = Statistics(self.network, processes)
        self.average = Average(self.network, self.recipe.ema_alpha) if self.recipe.ema_alpha else None
        self.state = State(
            checkpoint.fingerprint(model, samples, masks, lesson, measured),
            self.network.state_dict(),
            self.optimizer.state_dict(),
            self.average.network.state_dict() if self.average else None,
            torch.full((self.recipe.iterations, 5), math.nan, dtype=torch.float64),
        )
        self.reported = 0
        self.logged = 0
        self.seconds, self.images = 0.0, 0

    @property
    def wanted(self) -> frozenset[int]:
        """Layers whose outputs teach."""
        taught = self.objective.wanted if self.labels else frozenset[int]()
        return taught | (self.teacher.wanted if self.teacher else frozenset[int]())

    @property
    def measured(self) -> Network:
        """The network that counts: the averaged one where there is one."""
        return self.average.network if self.average else self.network

    @property
    def done(self) -> bool:
        """Whether nothing is left to do, or nothing gets better."""
        patience = self.recipe.patience
        if self.state.iteration >= self.recipe.iterations:
            return True
        return patience > 0 and self.processes.agreed(self.state.stale >= patience)

    def begin(self, resume: bool) -> None:
        """From the checkpoint if it is wanted and there is one; else write one, which shows that the folder works."""
        path = self.folder / CHECKPOINT
        if not self.processes.agreed(resume and path.exists()):
            self.save()
            return
        self.state = checkpoint.read(path, self.state.run)
        self.network.load_state_dict(self.state.network)
        self.optimizer.load_state_dict(self.state.optimizer)
        if self.average and self.state.average is not None:
            self.average.network.load_state_dict(self.state.average)
        self.reported = self.state.iteration

    def update(self, parts: Iterable[tuple[Tensor, Tensor]]) -> None:
        """One step of the optimizer on the mini-batches `parts`: pictures and truths as `batches` gives them."""
        start = time.perf_counter()
        recipe, processes, iteration = self.recipe, self.processes, self.state.iteration + 1
        self.optimizer.zero_grad()
        loss = torch.zeros((), device=self.device)
        before = self.model.weights.header.seen + recipe.seen + self.state.iteration * recipe.images
        for turn, (pixels, truths) in enumerate(parts):
            number = turn * processes.count + processes.rank
            drawn = np.random.default_rng((self.samples.seed, 3, self.state.iteration * recipe.subdivisions + number))
            torch.manual_seed(int(drawn.integers(1 << 62)))
            inputs = network_input(pixels, self.device)
            last = (turn + 1) * processes.count == recipe.subdivisions
            seen = before + (number + 1) * recipe.mini_batch
            with processes.gathering(self.called, last):
                loss += self._backward(inputs, truths.to(self.device), seen)
        value = float(processes.total(loss)) / recipe.images
        if not math.isfinite(value):
            where = not_finite(self.sized.like(*inputs.shape[2:]), inputs)
            kept = f"{self.folder / CHECKPOINT} holds the last good weights"
            raise InputError(f"iteration {iteration}: the loss is {value}, first in {where}; {kept}")
        self.held.silence()
        rate = recipe.schedule.rate(iteration)
        self.optimizer.step(iteration, rate)
        self.held.restore()
        if self.average:
            self.average.follow(self.network, iteration)
        history = self.state.history
        average = 0.9 * float(history[iteration - 2, 2]) + 0.1 * value if iteration > 1 else value
        history[iteration - 1] = torch.tensor([iteration, value, average, rate, math.nan], dtype=history.dtype)
        self.state.iteration = iteration
        self.seconds += time.perf_counter() - start
        self.images += recipe.images

    def _backward(self, inputs: Tensor, truths: Tensor, seen: int) -> Tensor:
        """Gradients of a mini-batch; its loss, summed over images: the mean of heads' costs, and the teacher's."""
        self.statistics.begin()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.bfloat16):
            outputs = self.called(inputs, self.wanted)
            graph = self.sized.like(*inputs.shape[2:]).graph
            told = self.objective.costs(graph, outputs, truths, seen) if self.labels else []
            shown = self.teacher.costs(inputs, outputs) if self.teacher else []
        total = torch.stack([*told, *shown]).sum()
        # The processes' gradients are averaged, and are to be summed.
        (total * (self.processes.count / self.recipe.images)).backward()  # type: ignore[no-untyped-call]
        self.statistics.end()
        zero = torch.zeros((), device=self.device)
        return sum((cost.detach() for cost in told), zero) / max(len(told), 1) + sum(
            (cost.detach() for cost in shown), zero
        )

    def settle(self) -> None:
        """What is due after an update: measure, tell, save. Does nothing again for the same update."""
        state, recipe = self.state, self.recipe
        if state.iteration > state.evaluated and self.evaluate and self._due(recipe.evaluate_every):
            if self.processes.rank == 0:
                self._measure(self.evaluate)
            state.evaluated = state.iteration
        if state.iteration > self.reported:
            self.reported = state.iteration
            speed = self.images / self.seconds
            left = (recipe.iterations - state.iteration) * recipe.images / speed
            self.progress(Progress(self._records(-1)[0], recipe.iterations, speed, left, state.best_metric))
            if state.iteration % recipe.checkpoint_every == 0:
                self.save()

    def _measure(self, evaluate: Callable[[Network], float]) -> None:
        state = self.state
        self.network.eval()
        with np.errstate(over="ignore", invalid="ignore"):  # boxes of a network that knows nothing yet may be infinite
            metric = evaluate(self.measured)
        self._prepare()
        state.history[state.iteration - 1, -1] = metric
        rose = state.best_metric is None or metric > state.best_metric
        state.stale = 0 if rose else state.stale + 1
        if rose or metric == state.best_metric:
            state.best_metric, state.best_iteration = metric, state.iteration
            state.best = {name: tensor.clone() for name, tensor in self.measured.state_dict().items()}
        state.evaluated = state.iteration  # before what may be interrupted: measured again, it would count twice
        self.draw()

    def _prepare(self) -> None:
        """Ready to train: frozen layers normalize by their running statistics and have no gradients."""
        self.network.train()
        still = set(self.recipe.frozen)
        if self.processes.count > 1:  # DistributedDataParallel waits for all that is trained
            still.update(set(range(len(self.network.layers))) - _read_by(self.model, self.wanted))
        for index in still:
            self.network.layers[index].eval().requires_grad_(False)

    def _due(self, every: int) -> bool:
        return self.state.iteration == self.recipe.iterations or bool(every and self.state.iteration % every == 0)

    def save(self) -> None:
        """Checkpoint and log. InputError instead if a weight is no number."""
        if self.processes.rank:
            return
        self.state.network = self.network.state_dict()
        self.state.optimizer = self.optimizer.state_dict()
        self.state.average = self.average.network.state_dict() if self.average else None
        bad = [name for name, tensor in self.state.network.items() if not tensor.isfinite().all()]
        if bad:
            layer, name = bad[0].split(".")[1:]
            where = f"{self.model.graph.layers[int(layer)]}, {name}"
            raise InputError(f"iteration {self.state.iteration}: {where} holds values that are no numbers")
        checkpoint.write(self.folder / CHECKPOINT, self.state)
        # What an earlier process wrote may go on behind the checkpoint, so the first time all is written.
        write_log(self.folder / LOG, self._records(self.logged), more=self.logged > 0)
        self.logged = self.state.iteration

    def _records(self, start: int = 0) -> list[Record]:
        """Of the updates done, from index `start` on."""
        return records_of(self.state.history[: self.state.iteration][start:])

    def draw(self) -> None:
        """The chart as it is now."""
        if not self.processes.rank:
            plot_training(self._records(), self.recipe.iterations, self.folder / CHART)

    def result(self) -> Trained:
        """Best and last weights."""
        state, header = self.state, self.model.weights.header
        last = self._weights(self.measured, header.seen + state.iteration * self.recipe.images)
        best = last
        if state.best is not None:
            network = Network(self.model.graph)
            network.load_state_dict(state.best)
            best = self._weights(network, header.seen + state.best_iteration * self.recipe.images)
        return Trained(best, last, state.best_metric, state.best_iteration, tuple(self._records()))

    def _weights(self, network: Network, seen: int) -> Weights:
        return network.get_weights(replace(self.model.weights.header, seen=seen))


def _read_by(model: Model, wanted: Iterable[int]) -> set[int]:
    """Layers that the outputs of `wanted` depend on, themselves included; -1 is the input."""
    found = set(wanted)
    for layer in reversed(model.graph.layers):
        if layer.index in found:
            found.update(layer.sources)
    return found
