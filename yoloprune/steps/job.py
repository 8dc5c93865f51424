"""What every step starts from: a workspace's network as it is now."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from yoloprune.artefacts import read_bytes
from yoloprune.darknet import weights as weights_file
from yoloprune.darknet.model import Graph, Model
from yoloprune.errors import InputError
from yoloprune.options import AnalysisOptions, Settings
from yoloprune.prune.granularities import granularity_named
from yoloprune.prune.granularity import Granularity
from yoloprune.prune.plan import Plan
from yoloprune.prune.pruner import Pruner
from yoloprune.steps.inputs import Inputs
from yoloprune.workspace import Figures, Workspace


@dataclass(frozen=True, eq=False)
class Job:
    """A workspace's network as it is now."""

    workspace: Workspace
    inputs: Inputs
    model: Model
    """Original cfg, newest weights."""
    weights_sha: str
    """SHA-256 of those weights."""
    units: Granularity
    """What is left after the rounds so far."""

    @property
    def next_round(self) -> int:
        """Number of the round to come."""
        return len(self.workspace.rounds) + 1

    @property
    def original(self) -> Figures:
        """Figures of the network that the job started with. InputError if they were never measured."""
        if self.workspace.original is None:
            raise InputError("lacks the original network's accuracy; run yoloprune ana", file=self.workspace.folder)
        return self.workspace.original

    def figures(self, accuracy: float, units: Granularity) -> Figures:
        """Accuracy and the sizes of the network that is slimmed to `units`."""
        return figures_of(units.slim_graph(), self.model, self.inputs.measure.steering, accuracy)

    def of_granularity(self, name: str) -> Job:
        """The same in units of another granularity. InputError once something is pruned."""
        if name == self.units.name:
            return self
        if self.workspace.rounds:
            raise InputError(f"--granularity {name}: round 1 was pruned by {self.units.name}, and one job has one")
        return replace(self, units=granularity_named(name).of(self.model.graph))

    def pruner(self, options: AnalysisOptions, device: str) -> Pruner:
        """How the network is pruned; without calibration images nothing compensates."""
        images = partial(self.inputs.calibration_batches, options.calibrate)
        return Pruner(self.model, self.units, images, options.compensation, device)

    def measured_originally(self) -> Job:
        """The job that knows the original network's figures; the workspace is written if it is new."""
        if self.workspace.original is not None:
            return self
        measure, original = self.inputs.measure, self.inputs.original
        accuracy = measure.outcome(self.inputs.findings).accuracy
        figures = figures_of(original.graph, original, measure.steering, accuracy)
        workspace = self.workspace.with_original(figures)
        workspace.begin()
        return replace(self, workspace=workspace)


def figures_of(graph: Graph, model: Model, key: str, accuracy: float) -> Figures:
    """A graph's sizes beside an accuracy called `key`; `model` gives the weights file's header."""
    parameters = weights_file.count(graph.layers)
    return Figures(key, accuracy, graph.bflops, parameters, model.weights.header.size + 4 * parameters)


def start_job(
    cfg: Path, weights: Path, data: Path | None, folder: Path, settings: Settings, *, device: str, force: bool
) -> Job:
    """The job that was started with the same, or a new one, which `measured_originally` will write."""
    inputs = Inputs.opened(cfg, weights, data, settings, device)
    new = Workspace(folder, inputs.cfg, inputs.weights, inputs.data, settings, pictures=inputs.measure.digest())
    return job_of(new.started(force=force), inputs)


def open_job(folder: Path, device: str = "cpu") -> Job:
    """The job in a workspace. InputError if there is none or its files are gone."""
    return job_of(Workspace.load(folder), device=device)


def job_of(workspace: Workspace, inputs: Inputs | None = None, device: str = "cpu") -> Job:
    """A workspace's job; `inputs`: where they are open."""
    if inputs is None:
        workspace = workspace.opened()
        inputs = Inputs.of(workspace, device)
    graph, file = inputs.graph, workspace.current_weights()
    if file is None:
        units = granularity_named("channel").of(graph)
        return Job(workspace, inputs, inputs.original, inputs.weights.sha256, units)
    content = read_bytes(file)
    model = Model(graph, weights_file.read(file, graph.layers, content))
    units = units_after(workspace, graph, workspace.last.number)
    return Job(workspace, inputs, model, hashlib.sha256(content).hexdigest(), units)


def units_after(workspace: Workspace, graph: Graph, number: int) -> Granularity:
    """What a round's plan leaves of a graph's units."""
    file = workspace.plan_file(number)
    plan = Plan.load(file)
    if plan.cfg != workspace.cfg.sha256:
        raise InputError("is a plan for another cfg", file=file)
    return plan.units(graph, file)
