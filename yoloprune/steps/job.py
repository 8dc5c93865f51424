"""What every step starts from: the workspace's files loaded and checked, and a way to say how far it is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yoloprune.artefacts import sha256
from yoloprune.darknet import weights as weights_file
from yoloprune.darknet.data import DataFile, load_split, read_data
from yoloprune.darknet.dialect import dialect_named
from yoloprune.darknet.model import Graph, Model, load
from yoloprune.darknet.network import build
from yoloprune.detect.intact import check_pictures
from yoloprune.detect.measure import Measure, default_metric, digest_of, load_measure, steering_key
from yoloprune.errors import InputError
from yoloprune.progress import OnProgress, Progress, silent
from yoloprune.prune.channels import Channels, KeepMask, trace
from yoloprune.prune.plan import Plan
from yoloprune.prune.slim import slim_graph
from yoloprune.workspace import Figures, Settings, Workspace


@dataclass(frozen=True)
class Job:
    """A workspace's network as it is now."""

    workspace: Workspace
    model: Model
    """Original cfg, newest weights."""
    weights_sha: str
    """SHA-256 of those weights."""
    channels: Channels
    keep: KeepMask
    """What is left after the rounds so far."""
    data: DataFile

    @property
    def next_round(self) -> int:
        """Number of the round to come."""
        return len(self.workspace.rounds) + 1

    def measure(self, device: str = "cpu") -> Measure:
        """Ready to measure on the workspace's pictures."""
        settings = self.workspace.settings
        return load_measure(
            self.model.graph,
            self.data,
            metric=settings.metric,
            letterbox=settings.letterbox,
            limit=settings.images,
            device=device,
            teacher=None if settings.labels else build(self.original, device),
        )

    @property
    def original(self) -> Model:
        """The network that the job started with."""
        return _original(self.workspace)

    def figures(self, accuracy: float, keep: KeepMask) -> Figures:
        """Accuracy and the sizes of the network that is slimmed to `keep`."""
        graph = slim_graph(self.model.graph, self.channels, keep)
        settings = self.workspace.settings
        return figures_of(
            graph, self.model, steering_key(settings.metric or default_metric(graph), settings.labels), accuracy
        )


def figures_of(graph: Graph, model: Model, key: str, accuracy: float) -> Figures:
    """A graph's sizes beside an accuracy called `key`; `model` gives the weights file's header."""
    parameters = weights_file.count(graph.layers)
    return Figures(key, accuracy, graph.bflops, parameters, model.weights.header.size + 4 * parameters)


def open_job(folder: Path) -> Job:
    """The job in a workspace. InputError if there is none or its files are gone."""
    return job_of(Workspace.load(folder))


def job_of(workspace: Workspace) -> Job:
    """The workspace's files loaded."""
    weights = workspace.current_weights()
    dialect = dialect_named(workspace.settings.dialect)
    model = load(workspace.file_of("cfg"), weights, dialect) if workspace.rounds else _original(workspace)
    channels = trace(model.graph)
    keep = channels.all_kept()
    if workspace.rounds:
        plan = Plan.load(workspace.plan_file(workspace.last.number))
        if plan.cfg != workspace.cfg.sha256:
            raise InputError("is a plan for another cfg", file=workspace.plan_file(workspace.last.number))
        channels = plan.channels(model.graph)
        keep = plan.keep(channels)
    data = read_data(workspace.file_of("data"), Path(workspace.data.path).parent)
    return Job(workspace, model, sha256(weights), channels, keep, data)


def _original(workspace: Workspace) -> Model:
    settings = workspace.settings
    dialect = dialect_named(settings.dialect)
    cfg, weights = workspace.file_of("cfg"), workspace.file_of("weights")
    return load(cfg, weights, dialect, allow_partial=settings.allow_partial)


def start_job(cfg: Path, weights: Path, data: Path | None, folder: Path, settings: Settings, *, force: bool) -> Job:
    """The job that was started with the same, or a new one, whose workspace `original_figures` will write."""
    graph = load(cfg, weights, dialect_named(settings.dialect), allow_partial=settings.allow_partial).graph
    found = find_data(cfg, data)
    file = read_data(found)
    if settings.labels:
        pictures = load_measure(graph, file, metric=settings.metric, limit=settings.images).digest()
    else:
        split = load_split(file, "valid", graph.dialect, classes=graph.classes, limit=settings.images, labels=False)
        pictures = digest_of(split.images)
    return job_of(Workspace.start(folder, cfg, weights, found, settings, pictures, force=force))


def find_data(cfg: Path, data: Path | None) -> Path:
    """The .data file: the one named, else the only one beside the cfg or in the current folder. InputError else."""
    if data is not None:
        return data
    candidates = data_candidates(cfg)
    if len(candidates) != 1:
        listed = ", ".join(str(path) for path in candidates) or "none"
        raise InputError(f"--data: expected one .data file beside {cfg} or here, found {listed}")
    return candidates[0]


def data_candidates(cfg: Path) -> list[Path]:
    """The .data files beside a cfg and in the current folder."""
    return sorted({path.resolve() for folder in (cfg.parent, Path()) for path in folder.glob("*.data")})


def expect_one_of(option: str, found: object, known: Sequence[object]) -> None:
    """InputError if an option is given and none of those known."""
    if found is not None and found not in known:
        raise InputError(f"{option}: expected one of {', '.join(map(str, known))}, found {found}")


def check_readable(images: Iterable[Path], graph: Graph, progress: OnProgress = silent) -> None:
    """InputError that names every picture that can't be decoded; told of before work that would end there."""
    check_pictures(tuple(images), graph.net.input.c, lambda done, total: progress(Progress("pictures", done, total)))


def original_findings(job: Job, measure: Measure, device: str = "cpu") -> list[Any]:
    """What the network that the job started with finds in each of the measure's pictures."""
    return measure.found(build(job.original, device))


def original_figures(job: Job, accuracy: float, measure: Measure) -> Workspace:
    """The workspace that knows the original network's figures, its accuracy as measured; written if new."""
    workspace = job.workspace
    if workspace.original is None:
        original = job.original
        workspace = workspace.with_original(figures_of(original.graph, original, measure.steering, accuracy))
        workspace.begin()
    return workspace
