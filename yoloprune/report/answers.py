"""What each command answers: values for programs, tables and lines for people, and warnings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType

from yoloprune.options import PruneOptions, RunOptions, TrainOptions
from yoloprune.report import tables
from yoloprune.workspace import Figures, Workspace

if TYPE_CHECKING:
    from yoloprune.steps.ana import Analysed
    from yoloprune.steps.bench import Bench
    from yoloprune.steps.board import Emitted
    from yoloprune.steps.check import Checked
    from yoloprune.steps.detect import Found
    from yoloprune.steps.export import Exported
    from yoloprune.steps.finetune import Finetuned
    from yoloprune.steps.forecast import Forecast
    from yoloprune.steps.goal import Goal
    from yoloprune.steps.pack import Packed, Unpacked
    from yoloprune.steps.prune import Pruned
    from yoloprune.steps.run import RunResult
    from yoloprune.steps.stat import Stat
    from yoloprune.steps.status import Status
    from yoloprune.steps.train import TrainedNetwork
    from yoloprune.steps.verify import Verified


@dataclass(frozen=True)
class Answer:
    """What a command found out."""

    payload: Mapping[str, Any]
    """For programs, as JSON."""
    parts: tuple[RenderableType, ...]
    """For people, one below the other."""
    warnings: tuple[str, ...] = ()


def forecast(ahead: Forecast) -> Answer:
    """What an analysis would do."""
    return Answer(asdict(ahead), (_forecast_line(ahead),))


def run_forecast(ahead: Forecast, goals: Sequence[Goal], options: RunOptions) -> Answer:
    """What `run` would do; with sparsities, no analysis. goals: none where each is found by the one before."""
    training = options.training
    length = f"{training.iterations} iterations" if training.epochs is None else f"{training.epochs:g} epochs"
    trained = f"each time trained for {length}"
    if not goals:
        searched = f"pruned and {trained}, until no smaller network keeps {options.target_map:g}"
        return Answer({**asdict(ahead), "target_map": options.target_map}, (_forecast_line(ahead), searched))
    name = goals[0].name
    values = [getattr(goal, name) for goal in goals]
    pruned = f"pruned at {name.replace('_', ' ')} {', '.join(f'{each:g}' for each in values)}, {trained}"
    if goals[0].prescribed:
        return Answer({"sparsities": values}, (pruned,))
    plural = {"threshold": "thresholds", "total_loss": "total_losses", "ratio": "ratios"}[name]
    return Answer({**asdict(ahead), plural: values}, (_forecast_line(ahead), f"after it, {pruned}"))


def analysed(done: Analysed) -> Answer:
    """Sensitivity curves."""
    files = {"sensitivity": done.file, "plot": done.file.with_suffix(".png")}
    payload = tables.sensitivity_dict(done.sensitivity, done.gains)
    table = tables.sensitivity_table(done.sensitivity, done.gains)
    return Answer({**payload, "warnings": done.cautions, "files": files}, (table,), done.cautions)


def pruned(done: Pruned, options: PruneOptions) -> Answer:
    """What is left, and what it costs. options: as the user gave them."""
    each_alone = "each alone loses at most" if options.threshold is None else "each alone may lose"
    payload = {
        **_figures(done.before, done.after, {"plan": done.plan, "weights": done.weights}, written=done.written),
        "threshold": done.threshold,
        "joint_loss": done.joint_loss,
        "warnings": done.cautions,
        "branches_gone": done.units.branches,
    }
    parts: tuple[RenderableType, ...] = (
        tables.group_table(done.units),
        *(f"branch {each.inside[0]}..{each.sum} is gone" for each in done.branches),
        tables.figures_table({"original": done.original, "before": done.before, "pruned": done.after}),
        f"all groups together lose {done.joint_loss:.4f}"
        + ("" if done.threshold is None else f"; {each_alone} {done.threshold:.4f}"),
    )
    return Answer(payload, parts, done.cautions)


def finetuned(done: Finetuned) -> Answer:
    """Accuracy before and after training."""
    networks = {"pruned": done.before} | ({"finetuned": done.after} if done.written else {})
    files = {"weights": done.best, "last": done.last}
    payload = _figures(done.before, done.after, files, written=done.written)
    return Answer(payload, (tables.figures_table(networks),))


def trained(done: TrainedNetwork, options: TrainOptions) -> Answer:
    """A trained network, or what would be done."""
    files = {"best": done.best, "last": done.last, "log": done.log, "chart": done.chart}
    payload = {
        "figures": done.figures.as_dict() if done.figures else None,
        "iteration": done.iteration,
        "iterations": done.iterations,
        "pretrained_layers": done.layers,
        "files": files if done.figures else {},
    }
    if done.figures is None:
        start = f", from the first {done.layers} layers of {options.pretrained}" if options.pretrained else ""
        return Answer(payload, (f"{done.iterations} iterations would be done{start}", tables.file_list(files)))
    best = f"best after iteration {done.iteration}"
    return Answer(payload, (tables.figures_table({"trained": done.figures}), best, tables.file_list(files)))


def exported(done: Exported) -> Answer:
    """The slim network's files."""
    files = {"cfg": done.cfg, "weights": done.weights} | ({"names": done.names} if done.names else {})
    payload = _figures(done.before, done.after, files, written=done.written)
    return Answer(
        payload, (tables.figures_table({"original": done.before, "slim": done.after}), tables.file_list(files))
    )


def ran(done: RunResult) -> Answer:
    """All rounds."""
    payload = _figures(done.before, done.after, done.files) | tables.round_dict(done.workspace)
    networks = tables.figures_table({"original": done.before, "slim": done.after})
    parts = (tables.round_table(done.workspace), networks, tables.file_list(done.files))
    return Answer(payload | {"warnings": done.cautions}, parts, done.cautions)


def status(found: Status) -> Answer:
    """The rounds of a workspace."""
    payload = tables.round_dict(found.workspace) | {"changes": found.changes}
    return Answer(payload, (tables.round_table(found.workspace), *found.changes))


def undone(number: int, left: Workspace, *, dry_run: bool) -> Answer:
    """A round taken back."""
    said = f"round {number} {'would be' if dry_run else 'is'} taken back"
    return Answer(tables.round_dict(left) | {"undone": number}, (tables.round_table(left), said))


def accuracy(found: Mapping[str, Any]) -> Answer:
    """All figures of a measurement."""
    return Answer(found, tuple(tables.accuracy_tables(found)))


def detections(names: Sequence[str], found: Sequence[Found]) -> Answer:
    """What was found in pictures."""
    return Answer(tables.detection_dict(found, names), (tables.detection_table(found, names),))


def stat(found: Stat) -> Answer:
    """A cfg's layers; warns of keys that nothing reads."""
    keys = ", ".join(f"{entry.key} (line {entry.line})" for entry in found.graph.unused)
    warnings = (f"{found.graph.cfg.file}: nothing reads {keys}",) if keys else ()
    return Answer(found.as_dict(), (tables.layer_table(found),), warnings)


def checked(found: Checked) -> Answer:
    """What breaks or differs where."""
    return Answer(found.as_dict(), (tables.finding_table(found),))


def verified(found: Verified) -> Answer:
    """How far two networks are apart."""
    return Answer({**asdict(found), "verified": found.within}, (tables.reader_table(found),))


def bench(done: Bench) -> Answer:
    """Times of networks."""
    said = [f"{reader}: left out ({reason})" for reader, reason in done.skipped.items()]
    said += [
        f"{file} in {reader}: {reason}" for file, known in done.refused.items() for reader, reason in known.items()
    ]
    return Answer(asdict(done), (tables.bench_table(done), *said))


def emitted(done: Emitted) -> Answer:
    """A folder for the board."""
    said = [
        f"{done.folder}: {done.networks} networks and {done.layers} layers",
        *(f"{file}: not in ncnn ({reason})" for file, reason in done.not_in_ncnn.items()),
        f"Next: copy {done.folder} to the board, there: python3 {done.folder.name}/time_here.py",
        "then here: yoloprune prune --objective latency --timings timings.json --ratio 0.5",
    ]
    return Answer(asdict(done), tuple(said))


def packed(done: Packed) -> Answer:
    """A packed network."""
    sizes = {"before": done.before, "after": done.after}
    payload: dict[str, Any] = {"bytes": sizes, "bits": done.bits, "files": {"packed": done.file}}
    said = [f"{done.file}: {done.after:,} of {done.before:,} bytes ({done.after / done.before:.1%})"]
    if done.accuracy is not None:
        before, after = done.accuracy
        payload[done.metric] = {"before": before, "after": after}
        said.append(f"{done.metric} {before:.4f} before, {after:.4f} with {done.bits} bits")
    return Answer(payload, tuple(said))


def unpacked(done: Unpacked) -> Answer:
    """The files of a packed network."""
    files = {"cfg": done.cfg, "weights": done.weights} | ({"names": done.names} if done.names else {})
    payload = {"bytes": {"before": done.before, "after": done.after}, "files": files}
    return Answer(payload, (tables.file_list(files),))


def _figures(before: Figures, after: Figures, files: Mapping[str, Path], *, written: bool = True) -> dict[str, Any]:
    """`files` names what was written, nothing after a dry run."""
    return {"before": before.as_dict(), "after": after.as_dict(), "files": dict(files) if written else {}}


def _forecast_line(ahead: Forecast) -> str:
    return (
        f"{ahead.groups} groups, {ahead.points} points of {ahead.images} pictures, "
        f"about {ahead.seconds / 60:.1f} min and refitting"
    )
