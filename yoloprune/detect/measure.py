"""What networks are measured by: from their outputs on a set of pictures to one figure."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from yoloprune.darknet.data import ClassSplit, Split
from yoloprune.darknet.model import Graph, Model
from yoloprune.darknet.network import Network, build
from yoloprune.darknet.predictions import join
from yoloprune.detect import classify
from yoloprune.detect.details import Details
from yoloprune.detect.outcome import Outcome
from yoloprune.detect.pictures import Batch, Pictures


@dataclass(frozen=True, eq=False)
class Measure(ABC):
    """What networks of a graph's shape are measured by; of detectors or of classifiers.

    What they predict is a `Predictions` of the measure's own kind, its images numbered as in the split.
    """

    graph: Graph
    split: Split | ClassSplit
    pictures: Pictures
    """The split's."""
    metric: str
    labels: bool = field(default=True, kw_only=True)
    """Whether the truth is people's; else it is what another network finds."""

    @property
    def steering(self) -> str:
        """What the figure is called that steers pruning."""
        return steering_key(self.metric, self.labels)

    @abstractmethod
    def predict(self, outputs: Iterable[tuple[Batch, Mapping[int, Tensor]]]) -> Iterator[tuple[Sequence[int], Any]]:
        """From the network's outputs, batch by batch: numbers of some pictures, and what is predicted of them."""

    @abstractmethod
    def outcome(self, predictions: Any) -> Outcome:
        """What steers pruning, from what is predicted of all pictures, in any order."""

    @abstractmethod
    def summary(self, predictions: Any) -> Mapping[str, Any]:
        """All figures, as `map` reports them, likewise."""

    @abstractmethod
    def details(self, predictions: Any) -> Details:
        """What a report shows of a measurement, likewise."""

    @abstractmethod
    def supervised_by(self, teacher: Network) -> Measure:
        """The same pictures, and as truth what `teacher` finds in them. InputError if that is nothing."""

    @abstractmethod
    def digest(self) -> str:
        """SHA-256 of what is measured on: the pictures' names, and people's truth.

        What a network finds differs in the last bit from machine to machine.
        """

    def run(self, network: Network) -> Iterator[tuple[Sequence[int], Any]]:
        """What a network predicts, some pictures at a time: their numbers, and the predictions."""
        network = network.eval()
        with torch.inference_mode():
            yield from self.predict((batch, network(batch.inputs)) for batch in self.pictures)

    def predictions(self, network: Network) -> Any:
        """What a network predicts of all pictures."""
        return join(part for _, part in self.run(network))

    def accuracy(self, network: Network) -> float:
        """The figure that steers pruning, of a network."""
        return self.outcome(self.predictions(network)).accuracy


def network_for_measuring(model: Model, device: str | torch.device = "cpu", *, in_one_pass: bool = True) -> Network:
    """A network laid out in memory as `Pictures` gives its input, which computes activations with their convolutions.

    in_one_pass: False: activations by themselves, as in training. The two round otherwise.
    """
    network = build(model, device)
    if in_one_pass:
        network.in_one_pass()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's types lack it
    return network


def steering_key(metric: str, labels: bool = True) -> str:
    """What the steering figure is called in reports: over the classes that are present."""
    if not labels:
        return f"{metric}_agreement"
    return metric if metric in classify.METRICS else f"{metric}_present"


def digest_of(images: Sequence[Path], truths: Iterable[bytes] = ()) -> str:
    """SHA-256 of pictures' file names and of what is true of them."""
    hashed = hashlib.sha256()
    names = (image.name.encode("utf-8", "surrogateescape") for image in images)
    for part in (*names, *truths):
        hashed.update(part + b"\0")
    return hashed.hexdigest()
