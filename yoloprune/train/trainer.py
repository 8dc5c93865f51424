"""A network that is trained, its optimizer and its average, one update at a time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from yoloprune.darknet.layers.head import Head
from yoloprune.darknet.mask import Mask
from yoloprune.darknet.model import Model
from yoloprune.darknet.network import Network
from yoloprune.detect.measure import network_for_measuring
from yoloprune.errors import InputError
from yoloprune.train.batches import network_input
from yoloprune.train.distill import Teacher
from yoloprune.train.ema import averaged, update_average
from yoloprune.train.fake_quantization import FakeQuantization
from yoloprune.train.mask_enforcer import MaskEnforcer
from yoloprune.train.masks import Masks
from yoloprune.train.multi_scale import MultiScale
from yoloprune.train.optimizer import Optimizer
from yoloprune.train.processes import Processes, RunningStatistics
from yoloprune.train.recipe import Recipe
from yoloprune.train.state import Snapshot, copied
from yoloprune.train.supervision import Supervision
from yoloprune.train.training_loss import TrainingLoss


class Trainer:
    """Trains a model by a recipe, the same in all processes. Arguments as `loop.train` has them."""

    def __init__(
        self,
        model: Model,
        recipe: Recipe,
        seed: int,
        masks: Masks,
        supervision: Supervision,
        device: torch.device,
        processes: Processes,
    ) -> None:
        self._model, self._recipe, self._seed, self.device, self.processes = model, recipe, seed, device, processes
        if masks.counted_from > recipe.iterations:
            last = f"the final mask after at most {recipe.iterations} iterations"
            raise InputError(f"schedule: expected {last}, found it after {masks.counted_from}")
        self.counted_from = masks.counted_from
        self._loss = TrainingLoss(model.graph)
        self._labels = supervision.labels
        self._teacher = Teacher(supervision.teacher, masks.always, device) if supervision.teacher else None
        self._network = network_for_measuring(model, device)
        self._enforcer = MaskEnforcer(self._network, masks)
        self._quantization = FakeQuantization(self._network, masks.grids)
        self._enforcer.enforce()
        self._optimizer = Optimizer(self._network, recipe)
        self._train_mode()
        self._scales = MultiScale(self._network)
        self._scales.at_size(*recipe.sizes.largest(model.graph.net.input)[1:])
        self._ddp = processes.wrap(self._scales)
        self._statistics = RunningStatistics(self._network, processes)
        self._average = averaged(self._network) if recipe.ema_alpha else None
        parts = {"network": self._network, "optimizer": self._optimizer, "average": self._average}
        parts |= {"mask": self._enforcer if masks.schedule else None}
        self._stateful: dict[str, Any] = {name: part for name, part in parts.items() if part}

    @property
    def wanted(self) -> frozenset[int]:
        """Layers whose outputs losses take."""
        labels = self._loss.wanted if self._labels else frozenset[int]()
        return labels | (self._teacher.wanted if self._teacher else frozenset[int]())

    @property
    def mask(self) -> Mask | None:
        """What is kept now."""
        return self._enforcer.mask

    @property
    def network(self) -> Network:
        """The network that counts: the averaged one where there is one."""
        return self._average or self._network

    @contextmanager
    def evaluating(self) -> Iterator[Network]:
        """The network that counts, in eval mode and on its grids for the block."""
        self._network.eval()
        try:
            with self._quantization.applied(self.network):
                yield self.network
        finally:
            self._train_mode()

    def _train_mode(self) -> None:
        """Ready to train: frozen layers normalize by their running statistics and have no gradients."""
        self._network.train()
        frozen = set(self._recipe.frozen)
        if self.processes.count > 1:  # DistributedDataParallel waits for all that is trained
            frozen |= set(range(len(self._network.layers))) - _ancestors(self._model, self.wanted)
        for index in frozen:
            self._network.layers[index].eval().requires_grad_(False)

    def update(self, parts: Iterable[tuple[Tensor, Tensor]], iteration: int, rate: float) -> tuple[float, str]:
        """Update number `iteration`, from 1, on mini-batches as `batches` gives them: the loss and "".

        Where that, or a weight after it, isn't finite in any of the processes: instead of "" what, and where that
        begins. Only `load` makes anything of the trainer then.
        """
        self._enforcer.release(iteration)
        self._optimizer.zero_grad()
        with self._quantization.applied(self._network):
            loss, inputs = self._gradients(parts, iteration)
        value = float(self.processes.all_reduce(loss.clone())) / self._recipe.images
        if not math.isfinite(value):
            where = "pictures of another process" if loss.isfinite() else self._first_not_finite(inputs)
            return value, f"the loss is {value}, first in {where}"
        self._enforcer.zero_gradients()
        self._optimizer.step(iteration, rate)
        self._quantization.enforce(self._network)
        self._enforcer.enforce()
        if self.processes.all_reduce((~self._finite()).float()):
            return value, f"weights are no numbers after the update, first in {self._first_not_finite(inputs)}"
        self.choose_mask(iteration)
        if self._average:
            update_average(self._average, self._network, self._recipe.ema_alpha, iteration)
        return value, ""

    def choose_mask(self, iteration: int) -> None:
        """Prune as the schedule has it after an update, if a mask is due then; 0: before the first.

        What goes leaves momentum and average, too.
        """
        if not self._enforcer.due(iteration):
            return
        self._network.eval()
        self._enforcer.choose(iteration, self.processes)
        self._train_mode()
        self._follow_mask()
        self._enforcer.enforce()
        if self._average:
            self._enforcer.enforce(self._average)
        for tensor, pruned, _ in self._enforcer.pruned(self._network):
            self._optimizer.forget(tensor, pruned)

    def _follow_mask(self) -> None:
        if self._teacher:
            self._teacher.follow(self._enforcer.mask)

    def _gradients(self, parts: Iterable[tuple[Tensor, Tensor]], iteration: int) -> tuple[Tensor, Tensor]:
        """Gradients of an update; the loss of this process's images, summed, and inputs after which it isn't finite.

        Where it is finite, the inputs of the last mini-batch.
        """
        recipe, processes = self._recipe, self.processes
        loss = torch.zeros((), device=self.device)
        before = self._model.weights.header.seen + recipe.seen + (iteration - 1) * recipe.images
        suspect = torch.zeros((), device=self.device)
        for turn, (pixels, truths) in enumerate(parts):
            number = turn * processes.count + processes.rank
            drawn = np.random.default_rng((self._seed, 3, (iteration - 1) * recipe.subdivisions + number))
            torch.manual_seed(int(drawn.integers(1 << 62)))
            inputs = network_input(pixels, self.device)
            suspect = torch.where(loss.isfinite(), inputs, suspect)
            last = (turn + 1) * processes.count == recipe.subdivisions
            seen = before + (number + 1) * recipe.mini_batch
            with processes.gradient_sync(self._ddp, last):
                loss += self._backward(inputs, truths.to(self.device), seen)
        return loss, suspect

    def _backward(self, inputs: Tensor, truths: Tensor, seen: int) -> Tensor:
        """Gradients of a mini-batch; its loss, summed over images: the mean of heads' costs, and the teacher's."""
        with self._statistics.synchronized():
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self._recipe.bfloat16):
                outputs = self._ddp(inputs, self.wanted)
                graph = self._scales.at_size(*inputs.shape[2:]).graph
                by_labels = self._loss.costs(graph, outputs, truths, seen) if self._labels else []
                by_teacher = self._teacher.costs(inputs, outputs) if self._teacher else []
            total = torch.stack([*by_labels, *by_teacher]).sum()
            # The processes' gradients are averaged, and are to be summed.
            (total * (self.processes.count / self._recipe.images)).backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            zero = total.new_zeros(())
            return sum(by_labels, zero) / max(len(by_labels), 1) + sum(by_teacher, zero)

    def _finite(self) -> Tensor:
        """Whether all weights and running statistics are finite, as then their sums are; on the device."""
        return torch.stack([tensor.sum() for tensor in self._network.state_dict().values()]).isfinite().all()

    @torch.no_grad()
    def _first_not_finite(self, inputs: Tensor) -> str:
        """For a message: the first layer whose weights or output aren't finite, else the losses."""
        network = self._scales.at_size(*inputs.shape[2:])
        for layer, module in zip(network.graph.layers, network.layers, strict=True):
            for name, tensor in module.named_parameters():
                if not tensor.isfinite().all():
                    return f"{layer}, {name}"
        for index, output in network(inputs, range(len(network.layers))).items():
            if not output.isfinite().all():
                return f"{network.graph.layers[index]}, output"
        return f"the loss of {' or '.join(str(layer) for layer in network.graph.layers if isinstance(layer, Head))}"

    def state_dicts(self) -> dict[str, Any]:
        """The fields of a `Snapshot` that are the trainer's; they change with it."""
        return {"average": None, "mask": None} | {name: part.state_dict() for name, part in self._stateful.items()}

    def load(self, snapshot: Snapshot) -> None:
        """Be as it was then."""
        for name, part in self._stateful.items():
            part.load_state_dict(copied(getattr(snapshot, name)))  # torch's optimizers take the tensors themselves
        self._follow_mask()


def _ancestors(model: Model, wanted: Iterable[int]) -> set[int]:
    """Layers that the outputs of `wanted` depend on, themselves included; -1 is the input."""
    found = set(wanted)
    for layer in reversed(model.graph.layers):
        if layer.index in found:
            found.update(layer.sources)
    return found
