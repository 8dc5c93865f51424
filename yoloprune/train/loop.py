"""The training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from yoloprune.darknet.data import Split
from yoloprune.darknet.model import Model
from yoloprune.darknet.network import Network
from yoloprune.darknet.weights import Weights
from yoloprune.errors import InputError
from yoloprune.train import checkpoint
from yoloprune.train.average import Average
from yoloprune.train.batches import batches, network_input
from yoloprune.train.checkpoint import State
from yoloprune.train.held import Held, Masks
from yoloprune.train.interrupt import uninterrupted
from yoloprune.train.progress import Progress, Record, write_log
from yoloprune.train.recipe import Recipe
from yoloprune.train.samples import Samples
from yoloprune.train.sgd import darknet_sgd, set_rate
from yoloprune.train.step import Objective, not_finite

CHECKPOINT = "last.pt"
LOG = "log.csv"
_CACHE_BYTES = 1 << 30


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
    images: Split,
    recipe: Recipe,
    *,
    folder: Path,
    seed: int,
    masks: Masks | None = None,
    evaluate: Callable[[Network], float] | None = None,
    resume: bool = False,
    device: str = "cpu",
    workers: int = 2,
    cache_bytes: int = _CACHE_BYTES,
    progress: Callable[[Progress], None] = lambda progress: None,
) -> Trained:
    """Train a network by `recipe`; `folder` receives the checkpoint last.pt and log.csv.

    masks: values that stay as `TensorSpec.masked` says, exactly and all the time. evaluate: higher is better; it gets
    the network in eval mode, the averaged one where the recipe asks for an average. resume: go on from the checkpoint
    in `folder` if there is one, else it is replaced; on a CPU the result is then, bit for bit, that of an undisturbed
    run. workers: threads that prepare pictures; they change nothing but the speed. cache_bytes: memory for decoded
    pictures.

    KeyboardInterrupt leaves a checkpoint and goes on up. InputError: nothing to train on, a head without loss, images
    that can't be read, a checkpoint of another run, an unwritable folder, a loss that is no number (the checkpoint
    before it stays).
    """
    samples = Samples.of(images, model.graph, recipe.augmentation, seed, cache_bytes)
    run = _Run(model, recipe, samples, masks, torch.device(device), folder, evaluate, progress)
    run.begin(resume)
    # Dropout draws from torch's own generator: it is seeded at each update, and given back as it was.
    devices = [run.device] if run.device.type == "cuda" else []
    start, stop = run.state.iteration * recipe.images, recipe.iterations * recipe.images
    with (
        torch.random.fork_rng(devices=devices),
        closing(batches(samples, start, stop, recipe.mini_batch, workers)) as parts,
    ):
        try:
            run.settle()
            while run.state.iteration < recipe.iterations:
                with uninterrupted():
                    run.update(islice(parts, recipe.subdivisions))
                run.settle()
        except KeyboardInterrupt:
            run.save()
            raise
    run.save()
    return run.result()


class _Run:
    """A run's network, optimizer and state, and what happens to them."""

    def __init__(
        self,
        model: Model,
        recipe: Recipe,
        samples: Samples,
        masks: Masks | None,
        device: torch.device,
        folder: Path,
        evaluate: Callable[[Network], float] | None,
        progress: Callable[[Progress], None],
    ) -> None:
        self.model, self.recipe, self.samples, self.device = model, recipe, samples, device
        self.folder, self.evaluate, self.progress = folder, evaluate, progress
        self.objective = Objective.of(model.graph)
        self.network = Network(model.graph)
        self.network.set_weights(model.weights)
        self.network.to(device).train()
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch types lack it
        self.held = Held(self.network, masks)
        self.held.restore()
        self.optimizer = darknet_sgd(self.network, recipe.momentum, recipe.decay)
        self.average = Average(self.network, recipe.ema_alpha) if recipe.ema_alpha else None
        self.state = State(
            checkpoint.fingerprint(model, recipe, samples, masks),
            self.network.state_dict(),
            self.optimizer.state_dict(),
            self.average.network.state_dict() if self.average else None,
        )
        self.reported = 0
        self.seconds, self.images = 0.0, 0

    @property
    def measured(self) -> Network:
        """The network that counts: the averaged one where there is one."""
        return self.average.network if self.average else self.network

    def begin(self, resume: bool) -> None:
        """From the checkpoint if it is wanted and there is one; else write one, which shows that the folder works."""
        path = self.folder / CHECKPOINT
        if not resume or not path.exists():
            self.save()
            return
        self.state = checkpoint.read(path, self.state.run, str(self.device))
        self.network.load_state_dict(self.state.network)
        self.optimizer.load_state_dict(self.state.optimizer)
        if self.average and self.state.average is not None:
            self.average.network.load_state_dict(self.state.average)
        self.reported = self.state.iteration

    def update(self, parts: Iterable[tuple[Tensor, Tensor]]) -> None:
        """One step of the optimizer on the mini-batches `parts`: pictures and truths as `batches` gives them."""
        start = time.perf_counter()
        recipe, iteration = self.recipe, self.state.iteration + 1
        torch.manual_seed((self.samples.seed << 32) + iteration)
        self.optimizer.zero_grad()
        loss = torch.zeros((), device=self.device)
        seen = self.model.weights.header.seen + self.state.iteration * recipe.images
        for pixels, truths in parts:
            seen += len(pixels)
            inputs = network_input(pixels, self.device)
            loss += self.objective.backward(self.network, inputs, truths.to(self.device), recipe.images, seen)
        value = float(loss) / recipe.images
        if not math.isfinite(value):
            where = not_finite(self.network, inputs)
            kept = f"{self.folder / CHECKPOINT} holds the last good weights"
            raise InputError(f"iteration {iteration}: the loss is {value}, first in {where}; {kept}")
        self.held.silence()
        rate = recipe.schedule.rate(iteration)
        set_rate(self.optimizer, rate)
        self.optimizer.step()
        self.held.restore()
        if self.average:
            self.average.follow(self.network, iteration)
        average = 0.9 * self.state.history[-1].average + 0.1 * value if self.state.history else value
        self.state.history.append(Record(iteration, value, average, rate))
        self.state.iteration = iteration
        self.seconds += time.perf_counter() - start
        self.images += recipe.images

    def settle(self) -> None:
        """What is due after an update: measure, tell, save. Does nothing again for the same update."""
        state, recipe = self.state, self.recipe
        if state.iteration > state.evaluated and self.evaluate and self._due(recipe.evaluate_every):
            self.network.eval()
            metric = self.evaluate(self.measured)
            self.network.train()
            state.evaluated = state.iteration
            state.history[-1] = replace(state.history[-1], metric=metric)
            if state.best_metric is None or metric >= state.best_metric:
                state.best_metric, state.best_iteration = metric, state.iteration
                state.best = {name: tensor.clone() for name, tensor in self.measured.state_dict().items()}
        if state.iteration > self.reported:
            self.reported = state.iteration
            speed = self.images / self.seconds
            left = (recipe.iterations - state.iteration) * recipe.images / speed
            self.progress(Progress(state.history[-1], recipe.iterations, speed, left, state.best_metric))
            if state.iteration % recipe.checkpoint_every == 0:
                self.save()

    def _due(self, every: int) -> bool:
        return self.state.iteration == self.recipe.iterations or bool(every and self.state.iteration % every == 0)

    def save(self) -> None:
        """Checkpoint and log. InputError instead if a weight is no number."""
        self.state.network = self.network.state_dict()
        self.state.optimizer = self.optimizer.state_dict()
        self.state.average = self.average.network.state_dict() if self.average else None
        bad = [name for name, tensor in self.state.network.items() if not tensor.isfinite().all()]
        if bad:
            layer, name = bad[0].split(".")[1:]
            where = f"{self.model.graph.layers[int(layer)]}, {name}"
            raise InputError(f"iteration {self.state.iteration}: {where} holds values that are no numbers")
        checkpoint.write(self.folder / CHECKPOINT, self.state)
        write_log(self.folder / LOG, self.state.history)

    def result(self) -> Trained:
        """Best and last weights."""
        state, header = self.state, self.model.weights.header
        last = self._weights(self.measured, header.seen + state.iteration * self.recipe.images)
        best = last
        if state.best is not None:
            network = Network(self.model.graph)
            network.load_state_dict(state.best)
            best = self._weights(network, header.seen + state.best_iteration * self.recipe.images)
        return Trained(best, last, state.best_metric, state.best_iteration, tuple(state.history))

    def _weights(self, network: Network, seen: int) -> Weights:
        return network.get_weights(replace(self.model.weights.header, seen=seen))
