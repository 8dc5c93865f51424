"""What each command answers: values for programs, tables and lines for people, and warnings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich.console import RenderableType

from yoloprune.options import PruneOptions, TrainOptions
from yoloprune.report import following as next_step
from yoloprune.report import tables, times
from yoloprune.run_options import RunOptions
from yoloprune.steps.goal import OF_ROUNDS
from yoloprune.workspace import DEFAULT, Figures, Workspace

if TYPE_CHECKING:
    from yoloprune.report.rewrite import Reported
    from yoloprune.steps.ana import Analysed
    from yoloprune.steps.bench import Bench
    from yoloprune.steps.board import Emitted
    from yoloprune.steps.check import Checked
    from yoloprune.steps.detect import Found
    from yoloprune.steps.export import Exported
    from yoloprune.steps.finetune import Finetuned
    from yoloprune.steps.forecast import Forecast
    from yoloprune.steps.goal import Goal
    from yoloprune.steps.layer_by_layer import Ahead
    from yoloprune.steps.onnx_file import OnnxFile
    from yoloprune.steps.pack import Packed, Unpacked
    from yoloprune.steps.prune import Pruned
    from yoloprune.steps.run import RunResult
    from yoloprune.steps.stat import Stat
    from yoloprune.steps.status import Status
    from yoloprune.steps.train import TrainedNetwork
    from yoloprune.steps.verify import Verified


_DRY: Final = "nothing is written: --dry-run"


@dataclass(frozen=True)
class Answer:
    """What a command found out."""

    payload: Mapping[str, Any]
    """For programs, as JSON."""
    parts: tuple[RenderableType, ...]
    """For people, one below the other."""
    warnings: tuple[str, ...] = ()
    written: tuple[Path, ...] = ()
    """Files, for people; the payload has them by name."""
    following: str = ""
    """The command that comes next."""


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
        parts = (_forecast_line(ahead), searched, _total_line(ahead, 1, analysed=True) + " a round")
        return Answer({**asdict(ahead), "target_map": options.target_map}, parts)
    name = goals[0].name
    values = [getattr(goal, name) for goal in goals]
    pruned = f"pruned at {name.replace('_', ' ')} {', '.join(f'{each:g}' for each in values)}, {trained}"
    total = _total_line(ahead, len(goals), analysed=not goals[0].prescribed)
    if goals[0].prescribed:
        return Answer({"sparsities": values, "training_seconds": ahead.training_seconds}, (pruned, total))
    return Answer(
        {**asdict(ahead), OF_ROUNDS[name].removeprefix("round_"): values},
        (_forecast_line(ahead), f"after it, {pruned}", total),
    )


def layers_ahead(ahead: Sequence[Ahead]) -> Answer:
    """What `run --layer-by-layer` would do."""
    lines = tuple(f"layer {each.group}: {each.kept} of {each.channels} channels stay" for each in ahead)
    return Answer({"groups": [asdict(each) for each in ahead]}, lines)


def analysed(done: Analysed, workspace: Path = DEFAULT) -> Answer:
    """Sensitivity curves, and what thresholds are expected to do."""
    files = {"sensitivity": done.file, "plot": done.file.with_suffix(".png")}
    payload = tables.sensitivity_dict(done.sensitivity, done.gains)
    payload |= {"trade_off": [asdict(each) for each in done.trade_offs], "warnings": done.cautions, "files": files}
    parts = (tables.sensitivity_table(done.sensitivity, done.gains), tables.trade_off_table(done))
    following = next_step.after_ana(done, workspace)
    return Answer(payload, parts, done.cautions, tuple(files.values()), following)


def pruned(done: Pruned, options: PruneOptions, workspace: Path = DEFAULT) -> Answer:
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
        *times.figures_tables({"original": done.original, "before": done.before, "pruned": done.after}),
        f"all groups together lose {done.joint_loss:.4f}"
        + ("" if done.threshold is None else f"; {each_alone} {done.threshold:.4f}"),
    )
    if not done.written:
        return Answer(payload, (*parts, _DRY), done.cautions)
    return Answer(payload, parts, done.cautions, (done.plan, done.weights), next_step.after_prune(workspace))


def finetuned(done: Finetuned, workspace: Path = DEFAULT) -> Answer:
    """Accuracy before and after training."""
    networks = {"pruned": done.before} | ({"finetuned": done.after} if done.written else {})
    files = {"weights": done.best, "last": done.last}
    payload = _figures(done.before, done.after, files, written=done.written)
    table = tables.figures_table(networks)
    if not done.written:
        return Answer(payload, (table, _DRY))
    return Answer(payload, (table,), (), tuple(files.values()), next_step.after_finetune(workspace))


def trained(done: TrainedNetwork, options: TrainOptions, cfg: Path, data: Path | None) -> Answer:
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
        return Answer(payload, (f"{done.iterations} iterations would be done{start}", _DRY))
    parts = (tables.figures_table({"trained": done.figures}), f"best after iteration {done.iteration}")
    following = next_step.command("ana", cfg, done.best, *_with_data(data))
    return Answer(payload, parts, (), tuple(files.values()), following)


def exported(done: Exported) -> Answer:
    """The slim network's files."""
    files = {"cfg": done.cfg, "weights": done.weights} | ({"names": done.names} if done.names else {})
    said: tuple[str, ...] = ()
    more: dict[str, Any] = {}
    if done.onnx is not None:
        files["onnx"] = done.onnx.file
        more["onnx"], said = onnx_parts(done.onnx)
    payload = _figures(done.before, done.after, files, written=done.written) | more
    parts: tuple[RenderableType, ...] = times.figures_tables({"original": done.before, "slim": done.after})
    parts += said
    if not done.written:
        return Answer(payload, (*parts, _DRY))
    following = next_step.command("verify", *done.made_of, done.cfg, done.weights)
    return Answer(payload, parts, (), tuple(files.values()), following)


def ran(done: RunResult) -> Answer:
    """All rounds."""
    payload = _figures(done.before, done.after, done.files) | tables.round_dict(done.workspace)
    networks = times.figures_tables({"original": done.before, "slim": done.after})
    parts = (tables.round_table(done.workspace), *networks)
    space, files = done.workspace, done.files
    following = next_step.command("bench", space.cfg.path, space.weights.path, files["cfg"], files["weights"])
    return Answer(payload | {"warnings": done.cautions}, parts, done.cautions, tuple(files.values()), following)


def status(found: Status) -> Answer:
    """How far a job is, and what comes next."""
    following = next_step.after_status(found)
    payload = tables.round_dict(found.workspace) | {
        "changes": found.changes,
        "inputs": found.inputs,
        "analysis": found.analysis and asdict(found.analysis),
        "training": found.training and asdict(found.training),
        "files": found.files,
        "next": following,
        **({"ms": {name: each.ms for name, each in found.timed.items()}} if found.timed else {}),
    }
    said = [f"{role}: {path}" for role, path in found.inputs.items()]
    if found.analysis is not None:
        said.append(f"analysis of the next round: {found.analysis.done} of {found.analysis.of} groups measured")
    if found.training is not None:
        said.append(
            f"training of the last round: interrupted after {found.training.done} of {found.training.of} updates"
        )
    tables_of_times = (times.ms_table(found.timed),) if found.timed else ()
    parts = (*said, *found.changes, tables.round_table(found.workspace), *tables_of_times, *tables.round_files(found))
    return Answer(payload, parts, following=following)


def reported(done: Reported) -> Answer:
    """Where the report is."""
    return Answer({"files": {"report": done.file}}, (), written=(done.file,))


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
    return Answer(asdict(done), (times.bench_table(done), *said))


def demo(networks: Mapping[str, Figures], images: int, out: Path) -> Answer:
    """Figures of the built-in network before, pruned and after."""
    before, *_, after = networks.values()
    payload = _figures(before, after, {"cfg": out / "slim" / "shapes-slim.cfg"})
    said = f"\non {images} fresh pictures, which neither training nor choosing has seen:"
    following = next_step.command("status", workspace=out / "workspace")
    written = (out / "slim", out / "before", out / "after")
    return Answer(payload, (said, *times.figures_tables(networks)), (), written, following)


def emitted(done: Emitted) -> Answer:
    """A folder for the board."""
    said = [
        f"{done.folder}: {done.networks} networks and {done.layers} layers",
        *(f"{file}: not in ncnn ({reason})" for file, reason in done.not_in_ncnn.items()),
        f"On the board: python3 {done.folder.name}/time_here.py",
    ]
    timings = done.folder / "timings.json"
    following = next_step.command("prune", "--objective", "latency", "--timings", timings, "--ratio", "0.5")
    return Answer(asdict(done), tuple(said), (), (done.folder,), f"{following}   (with the board's timings.json)")


def packed(done: Packed) -> Answer:
    """A packed network."""
    sizes = {"before": done.before, "after": done.after}
    payload: dict[str, Any] = {"bytes": sizes, "bits": done.bits, "files": {"packed": done.file}}
    said = [f"{done.file}: {done.after:,} of {done.before:,} bytes ({done.after / done.before:.1%})"]
    if done.accuracy is not None:
        before, after = done.accuracy
        payload[done.metric] = {"before": before, "after": after}
        said.append(f"{done.metric} {before:.4f} before, {after:.4f} with {done.bits} bits")
    following = next_step.command("unpack", done.file, "-o", done.file.with_suffix(""))
    return Answer(payload, tuple(said), (), (done.file,), following)


def converted(done: OnnxFile) -> Answer:
    """A network as ONNX."""
    payload, said = onnx_parts(done)
    following = next_step.command("verify", *done.made_of, done.file)
    return Answer(payload | {"files": {"onnx": done.file}}, said, (), (done.file,), following)


def onnx_parts(done: OnnxFile) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What is said of a network as ONNX."""
    payload: dict[str, Any] = {
        "bytes": done.size,
        "outputs": {name: list(shape) for name, shape in done.outputs.items()},
        "max_relative_diff": {} if done.max_relative_diff is None else {"onnxruntime": done.max_relative_diff},
        "skipped": {"onnxruntime": done.unchecked} if done.unchecked else {},
    }
    outputs = ", ".join(f"{name} [{', '.join(map(str, shape))}]" for name, shape in done.outputs.items())
    said = [f"{done.file}: {done.size:,} bytes; outputs {outputs}"]
    if done.max_relative_diff is None:
        said.append(f"NOT CHECKED: {done.unchecked}")
    else:
        said.append(f"onnxruntime computes the same, to {done.max_relative_diff:.1e} of the largest value")
    if done.int8 is not None:
        accuracy, seconds = done.int8.accuracy, done.int8.seconds
        payload["int8"] = {
            done.int8.metric: {"before": accuracy[0], "after": accuracy[1]},
            "ms": {"before": 1000 * seconds[0], "after": 1000 * seconds[1]},
        }
        said.append(
            f"{done.int8.metric} {accuracy[0]:.4f} in float, {accuracy[1]:.4f} in int8; onnxruntime takes "
            f"{1000 * seconds[0]:.2f} ms and {1000 * seconds[1]:.2f} ms an image on one thread"
        )
    return payload, tuple(said)


def unpacked(done: Unpacked) -> Answer:
    """The files of a packed network."""
    files = {"cfg": done.cfg, "weights": done.weights} | ({"names": done.names} if done.names else {})
    payload = {"bytes": {"before": done.before, "after": done.after}, "files": files}
    return Answer(payload, (), (), tuple(files.values()), next_step.command("stat", done.cfg, done.weights))


def _figures(before: Figures, after: Figures, files: Mapping[str, Path], *, written: bool = True) -> dict[str, Any]:
    """`files` names what was written, nothing after a dry run."""
    return {"before": before.as_dict(), "after": after.as_dict(), "files": dict(files) if written else {}}


def _with_data(data: Path | None) -> tuple[object, ...]:
    return () if data is None else ("--data", data)


def _forecast_line(ahead: Forecast) -> str:
    return (
        f"{ahead.groups} groups, {ahead.points} points of {ahead.images} pictures, "
        f"about {_duration(ahead.seconds)} and refitting"
    )


def _total_line(ahead: Forecast, rounds: int, analysed: bool) -> str:
    """How long all rounds take, trained."""
    each = (ahead.seconds if analysed else 0.0) + (ahead.training_seconds or 0.0)
    training, everything = _duration(ahead.training_seconds or 0.0), _duration(rounds * each)
    counted = f"all {rounds} rounds" if rounds > 1 else "with the analysis"
    return f"training takes about {training} a round, {counted} about {everything}"


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
