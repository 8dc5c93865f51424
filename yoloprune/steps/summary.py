"""Everything that a report shows of a job, as the workspace's files have it. Nothing is measured here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ParamSpec, TypeVar

from yoloprune.choices import CHANNEL, REFERENCE_LOSS, saved
from yoloprune.darknet.data import list_images, read_data
from yoloprune.darknet.dialect import dialect_named
from yoloprune.darknet.model import Graph, load_graph
from yoloprune.detect.details import PICTURES, Details
from yoloprune.errors import InputError
from yoloprune.options import PruneOptions, UnitOptions
from yoloprune.progress import silent
from yoloprune.prune.cost import flops
from yoloprune.prune.granularities import units_of
from yoloprune.prune.granularity import AllocationCosts, Granularity
from yoloprune.prune.sensitivity import Sensitivity
from yoloprune.steps.differing import Picture, differing
from yoloprune.steps.job import units_after
from yoloprune.steps.method import limits_of, with_limits
from yoloprune.steps.milliseconds import Times
from yoloprune.steps.repeat import commands, versions
from yoloprune.steps.tradeoff import TradeOff, frontier, gains, trade_offs
from yoloprune.train.progress import Record, read_log
from yoloprune.train.run_folder import LOG
from yoloprune.workspace import DEFAULT, Figures, Workspace

_Value = TypeVar("_Value")
_Arguments = ParamSpec("_Arguments")


@dataclass(frozen=True)
class GroupLeft:
    """What stays of a group."""

    label: str
    size: int
    """Units of the original."""
    kept: int


@dataclass(frozen=True)
class Analysis:
    """The curves that one round chooses by, and what they promise."""

    number: int
    """Of the round."""
    sensitivity: Sensitivity
    loss: float
    """At which groups are compared: the round's threshold, else a point more than what is lost already."""
    gains: Mapping[str, float]
    """As `tradeoff.gains` has them, at that loss."""
    promise: tuple[TradeOff, ...]
    """What growing thresholds are expected to do."""


@dataclass(frozen=True)
class TrainingCurve:
    """The training of one round."""

    number: int
    start: float
    """Accuracy before the first update."""
    records: tuple[Record, ...]


@dataclass(frozen=True)
class JobSummary:
    """A job as it is; what isn't there yet, or can't be read any more, is None or empty."""

    workspace: Workspace
    granularity: str
    """Units of the newest round, before it of the analysis."""
    groups: tuple[GroupLeft, ...]
    """What stays after the last round; as it was before the first."""
    analyses: tuple[Analysis, ...]
    """Those that have measured something, the first round's first."""
    trainings: tuple[TrainingCurve, ...]
    before: Details | None
    """Of the original."""
    after: Details | None
    """Of the newest weights; None before the first round."""
    pictures: tuple[Picture, ...] | None
    """Those on which the two differ most; None where images can't be read."""
    commands: tuple[str, ...]
    versions: Mapping[str, str]
    ms: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Milliseconds as `Times` has them, where networks were timed."""

    @property
    def newest(self) -> Figures | None:
        """Of the newest weights, once something is pruned."""
        rounds = self.workspace.rounds
        return rounds[-1].newest if rounds else None

    @property
    def saves(self) -> str:
        """What pruning saves: BFLOPs or weights."""
        return saved(self.granularity)

    def share_off(self, figures: Figures) -> float:
        """The share of that which is gone."""
        original = self.workspace.original
        assert original is not None  # a round has one
        if self.granularity == CHANNEL:
            return 1 - figures.bflops / original.bflops
        return 1 - figures.nonzero / max(original.nonzero, 1)


def summary(workspace: Path = DEFAULT) -> JobSummary:
    """A job as its files have it. InputError where `workspace.json` can't be read."""
    known = Workspace.load(workspace)
    graph = _or_none(_graph, known)
    sensitivities = {
        number: each
        for number in range(1, len(known.rounds) + 2)
        if (each := _or_none(Sensitivity.load, known.sensitivity_file(number))) is not None
    }
    measured = {number: each for number, each in sensitivities.items() if any(curve.points for curve in each.curves)}
    analyses = () if graph is None else tuple(_analyses(known, graph, measured))
    units = None if graph is None else _or_none(_units, known, graph, sensitivities)
    before = _details(known, known.details_file(0))
    after = _details(known, known.newest_details_file()) if known.rounds else None
    pictures = _or_none(_pictures, known, before, after)
    return JobSummary(
        workspace=known,
        granularity=units.name if units is not None else CHANNEL,
        groups=() if units is None else tuple(GroupLeft(g.label, g.size, units.left(g)) for g in units.groups),
        analyses=analyses,
        trainings=tuple(_trainings(known)),
        before=before,
        after=after,
        pictures=pictures,
        commands=commands(known, measured),
        versions=versions(),
        ms={} if (times := _or_none(Times.load, known.milliseconds_file)) is None else times.networks,
    )


def _or_none(read: Callable[_Arguments, _Value], *args: _Arguments.args, **named: _Arguments.kwargs) -> _Value | None:
    """What is read; None where a file is gone or not as it was, of which `status` tells."""
    try:
        return read(*args, **named)
    except InputError:
        return None


def _graph(workspace: Workspace) -> Graph:
    opened = workspace.open_input("cfg")
    return load_graph(opened.path, dialect_named(workspace.settings.dialect), opened.content)


def _units(workspace: Workspace, graph: Graph, analyses: Mapping[int, Sensitivity]) -> Granularity:
    """What is left now; before the first round, of the units that were analysed."""
    if workspace.rounds:
        return units_after(workspace, graph, workspace.last.number)
    return units_of(graph, analyses[1].options.units if 1 in analyses else UnitOptions(CHANNEL))


def _analyses(workspace: Workspace, graph: Graph, measured: Mapping[int, Sensitivity]) -> Iterator[Analysis]:
    for number, known in measured.items():
        costs = _or_none(_costs_before, workspace, graph, number, known)
        if costs is not None:
            threshold = workspace.rounds[number - 1].threshold if number <= len(workspace.rounds) else None
            loss = threshold or max(known.baseline - known.start, 0.0) + REFERENCE_LOSS
            yield Analysis(number, known, loss, gains(costs, known, loss), _promise(workspace, costs, known))


def _costs_before(workspace: Workspace, graph: Graph, number: int, known: Sensitivity) -> AllocationCosts:
    """What allocations of a round cost."""
    options, file = known.options.units, workspace.sensitivity_file(number)
    units = units_of(graph, options)
    if number > 1:
        left = units_after(workspace, graph, number - 1)
        units = left if left.options == options else units_of(graph, options, left.mask(), left.branches)
    known.check_groups(units, file)
    return units.costs(flops(graph), known.orders)


def _promise(workspace: Workspace, costs: AllocationCosts, known: Sensitivity) -> tuple[TradeOff, ...]:
    """At each loss that was measured, by the limits of the last round."""
    pruning = with_limits(PruneOptions(granularity=known.options.granularity), workspace, silent)
    losses = [loss for loss, _ in frontier(costs, known)]
    return trade_offs(costs, known, limits_of(pruning), losses)


def _trainings(workspace: Workspace) -> list[TrainingCurve]:
    found = []
    for done in workspace.rounds:
        file = workspace.training_folder(done.number) / LOG
        records = _or_none(read_log, file)
        scheduled = done.finetuning is not None and done.finetuning.schedule is not None
        if records:
            start = done.before.accuracy if scheduled else done.pruned.accuracy
            found.append(TrainingCurve(done.number, start, tuple(records)))
    return found


def _details(workspace: Workspace, file: Path) -> Details | None:
    """A measurement on what the workspace measures on."""
    found = _or_none(Details.load, file)
    return found if found is not None and workspace.pictures in ("", found.data) else None


def _pictures(workspace: Workspace, before: Details | None, after: Details | None) -> tuple[Picture, ...]:
    if before is None or after is None:
        return ()
    opened = workspace.open_input("data")
    data = read_data(opened.path, Path(opened.path).parent, opened.content)
    return differing(before, after, list_images(data, "valid", min(PICTURES, before.images)))
