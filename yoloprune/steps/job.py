"""What every step starts from: a workspace's network as it is now."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

from yoloprune.artefacts import read_bytes
from yoloprune.choices import BITS, CHANNEL
from yoloprune.darknet import weights as weights_file
from yoloprune.darknet.model import Graph, Model
from yoloprune.darknet.sparsity import effective_bflops, total_nonzero
from yoloprune.errors import InputError
from yoloprune.formats import ypz
from yoloprune.formats.layout import files_of
from yoloprune.options import AnalysisOptions, Settings, UnitOptions
from yoloprune.prune.granularities import units_of
from yoloprune.prune.granularity import Granularity
from yoloprune.prune.plan import Plan
from yoloprune.prune.pruner import Pruner
from yoloprune.steps.inputs import Inputs
from yoloprune.workspace import Figures, Workspace

_PACKED: Final = 16_000_000
"""Bytes of a .weights file up to which it is packed for its figures, which takes a second for 4 MB."""


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

    def figures(self, accuracy: float, model: Model, units: Granularity) -> Figures:
        """Accuracy of a model of the original cfg, and the sizes of it slimmed to `units`."""
        return figures_of(units.slim(model), self.inputs.measure.steering, accuracy)

    def in_units(self, options: UnitOptions) -> Job:
        """The same in other units. InputError once weights are pruned: what is left of them fits no other pattern."""
        if options == self.units.options:
            return self
        before = self.units.name
        if self.workspace.rounds and before != CHANNEL and (before == BITS or options.granularity != BITS):
            raise InputError(
                f"--granularity {options.granularity}: {_said(self.units.options)} is pruned already, and only "
                "channels go before something else, and weights before bits"
            )
        mask = self.units.mask() if self.workspace.rounds else None
        return replace(self, units=units_of(self.model.graph, options, mask, self.units.branches))

    def pruner(self, options: AnalysisOptions, device: str) -> Pruner:
        """How the network is pruned; without calibration images nothing compensates."""
        images = partial(self.inputs.calibration_batches, options.calibrate)
        return Pruner(self.model, self.units, images, options.compensation, device, options.criterion or "")

    def measured_originally(self) -> Job:
        """The job that knows the original network's figures; the workspace is written if it is new."""
        if self.workspace.original is not None:
            return self
        measure, original = self.inputs.measure, self.inputs.original
        details = measure.details(self.inputs.findings)
        figures = figures_of(original, measure.steering, details.accuracy)
        workspace = self.workspace.with_original(figures)
        workspace.begin()
        details.save(workspace.details_file(0))
        return replace(self, workspace=workspace)


def figures_of(model: Model, key: str, accuracy: float) -> Figures:
    """A network's sizes as its files have it, zeros counted, beside an accuracy called `key`."""
    graph = model.graph
    size = model.weights.header.size + 4 * graph.parameters
    packed = len(ypz.dump(files_of(model))) if size <= _PACKED else None
    nonzero = total_nonzero(model)
    return Figures(key, accuracy, graph.bflops, effective_bflops(model), graph.parameters, nonzero, size, packed)


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
        units = units_of(graph, UnitOptions(CHANNEL))
        return Job(workspace, inputs, inputs.original, inputs.weights.sha256, units)
    content = read_bytes(file)
    model = Model(graph, weights_file.read(file, graph.layers, content))
    units = units_after(workspace, graph, workspace.last.number)
    return Job(workspace, inputs, model, hashlib.sha256(content).hexdigest(), units)


def units_after(workspace: Workspace, graph: Graph, number: int) -> Granularity:
    """What a round's plan leaves of a graph's units."""
    file = workspace.newest_plan_file(number)
    plan = Plan.load(file)
    if plan.cfg != workspace.cfg.sha256:
        raise InputError("is a plan for another cfg", file=file)
    return plan.units(graph, file)


def slim_models(job: Job) -> list[Model]:
    """The original network, and the slim one of each round."""
    workspace, graph = job.workspace, job.model.graph
    models = [job.inputs.original]
    for each in workspace.rounds:
        number = each.number
        file = workspace.finetuned_file(number) if each.finetuned else workspace.pruned_file(number)
        model = Model(graph, weights_file.read(file, graph.layers))
        models.append(units_after(workspace, graph, number).slim(model))
    return models


def _said(options: UnitOptions) -> str:
    """What a unit is, as the command line says it."""
    given = {key.replace("_", "-"): value for key, value in vars(options).items() if value and key != "granularity"}
    written = (f"--{key} {','.join(value) if isinstance(value, tuple) else value}" for key, value in given.items())
    return " ".join((str(options.granularity), *written))
