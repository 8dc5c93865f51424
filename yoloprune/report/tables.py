"""Tables for a terminal, and the same as values for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich.table import Table
from rich.text import Text

from yoloprune.choices import REFERENCE_LOSS, UNIT_NAMES, saved
from yoloprune.report.cells import (
    NONE,
    STRAY,
    accuracy,
    change,
    is_sparse,
    metric_name,
    metric_words,
    only_if,
    short,
    table_of,
)
from yoloprune.workspace import Figures, Workspace

if TYPE_CHECKING:
    from yoloprune.darknet.predictions import Detections
    from yoloprune.prune.granularity import Granularity
    from yoloprune.prune.sensitivity import Curve, Sensitivity
    from yoloprune.steps.ana import Analysed
    from yoloprune.steps.check import Checked
    from yoloprune.steps.detect import Found
    from yoloprune.steps.stat import Stat
    from yoloprune.steps.status import Status
    from yoloprune.steps.verify import Verified

_COLOURS: Final = ((REFERENCE_LOSS, "green"), (5 * REFERENCE_LOSS, "yellow"))
"""Colour of a loss of accuracy up to here; red above."""
_SEVERITIES: Final = {"break": "red", "differs": "yellow"}


def accuracy_tables(report: Mapping[str, Any]) -> list[Table]:
    """Average precision of each class, if there are any, and the figures over all."""
    figures = table_of("figure", "value")
    for key, value in report.items():
        if key != "ap":
            figures.add_row(key, f"{value:.4f}" if isinstance(value, float) else str(value))
    if "ap" not in report:
        return [figures]
    classes = table_of("class", "AP")
    for name, value in report["ap"].items():
        classes.add_row(name, accuracy(value))
    return [classes, figures]


def layer_table(stat: Stat) -> Table:
    """The layers as Darknet's own table shows them, and the totals; how much of each is zeros, where much is."""
    layers = stat.as_dict()["layers"]
    sparse = any((shown.get("sparsity") or 0.0) > STRAY for shown in layers)
    columns = ("layer", "type", "filters", "size/strd", "from", "input", "output", "BFLOPs", "parameters")
    table = table_of(*columns, *only_if(sparse, "sparsity"), gap=0)
    for layer, shown in zip(stat.graph.layers, layers, strict=True):
        filters = _text(shown["filters"]) + (f"/{layer.groups_summed}" if layer.groups_summed > 1 else "")
        before = layer.sources == (layer.index - 1,)
        table.add_row(
            str(layer.index),
            layer.name,
            filters,
            _window(shown["size"], shown["stride"]),
            "" if before else ",".join(map(str, layer.sources)),
            _shape(shown["input"]),
            _shape(shown["output"]),
            f"{shown['bflops']:.3f}" if shown["bflops"] else "",
            f"{shown['parameters']:,}" if shown["parameters"] else "",
            *only_if(sparse, "" if shown.get("sparsity") is None else f"{shown['sparsity']:.1%}"),
        )
    table.add_section()
    table.add_row("total", "", "", "", "", "", "", short(stat.graph.bflops), f"{stat.graph.parameters:,}")
    table.caption = f"{stat.bytes:,} bytes of weights"
    return table


def detection_table(found: Sequence[Found], names: Sequence[str]) -> Table:
    """Every detection, box in pixels."""
    table = table_of("picture", "class", "probability", "left", "top", "width", "height")
    for each in found:
        if not len(each.detections.probs):
            table.add_row(each.image.name, "nothing found")
        for name, probability, (x, y, w, h) in boxes_of(each.detections, names):
            width, height = each.size
            pixels = ((x - w / 2) * width, (y - h / 2) * height, w * width, h * height)
            table.add_row(each.image.name, name, f"{probability:.2f}", *(str(round(value)) for value in pixels))
    return table


def detection_dict(found: Sequence[Found], names: Sequence[str]) -> dict[str, Any]:
    """The same for programs; boxes as in a label file: centre x, y, width, height as fractions."""
    images = [
        {
            "image": each.image,
            "picture": each.picture,
            "detections": [
                {"class": name, "probability": probability, "box": bounds}
                for name, probability, bounds in boxes_of(each.detections, names)
            ],
        }
        for each in found
    ]
    return {"images": images}


def boxes_of(found: Detections, names: Sequence[str]) -> list[tuple[str, float, list[float]]]:
    """Class name, probability, and centre x, centre y, width, height as fractions, of each detection."""
    rows = zip(found.classes.tolist(), found.probs.tolist(), found.boxes.tolist(), strict=True)
    return [(names[number], probability, bounds) for number, probability, bounds in rows]


def sensitivity_table(sensitivity: Sensitivity, gains: Mapping[str, float]) -> Table:
    """How far each group is prunable at each loss, and accuracy on the grid, coloured by the loss.

    gains: for each group, the share of the BFLOPs, or of the weights, that goes at a loss of `REFERENCE_LOSS`; where
    most can be won comes first.
    """
    granularity = str(sensitivity.options.granularity)
    at_losses = (f"at loss {loss:g}" for loss in sensitivity.tolerances)
    on_grid = (f"{sparsity:.0%}" for sparsity in sensitivity.sparsities)
    off = f"{saved(granularity)} off at {REFERENCE_LOSS:g}"
    table = table_of("group", _units(granularity), off, *at_losses, *on_grid, "points")
    metric = metric_words(f"{sensitivity.setup.metric}_present" if "map" in sensitivity.setup.metric else "")
    accuracy = f"accuracy {sensitivity.baseline:.4f}, {sensitivity.start:.4f} before this round"
    table.title = f"how far each group, pruned alone, can go; {accuracy}"
    table.caption = (
        f"loss: of {metric or sensitivity.setup.metric}; points: measured; ±: half of the 90 % interval of the loss "
        f"there, on {sensitivity.setup.images} images"
    )
    for curve in sorted(sensitivity.curves, key=lambda each: -gains[each.label]):
        shares = [_prunable(sensitivity, curve, loss) for loss in sensitivity.tolerances]
        cells = [_accuracy(sensitivity, curve, sparsity) for sparsity in sensitivity.sparsities]
        gain = f"{gains[curve.label]:.1%}"
        table.add_row(curve.label, str(curve.size), gain, *shares, *cells, str(len(curve.points)))
    return table


def trade_off_table(done: Analysed) -> Table:
    """What thresholds are expected to do."""
    off = f"{saved(str(done.sensitivity.options.granularity))} off"
    table = table_of("--threshold", off, "expected joint loss", "likely between")
    table.title = "what prune would do, before any training"
    for each in done.trade_offs:
        low, high = each.interval
        table.add_row(
            f"{each.threshold:g}", f"{each.removed:.1%}", f"{each.joint_loss:.4f}", f"{low:.3f} and {high:.3f}"
        )
    return table


def sensitivity_dict(sensitivity: Sensitivity, gains: Mapping[str, float]) -> dict[str, Any]:
    """The same for programs; `gain` as in the table."""
    groups = [
        {
            "group": curve.label,
            _units(str(sensitivity.options.granularity)): curve.size,
            "gain": gains[curve.label],
            "prunable_at": {
                f"{loss:g}": sensitivity.prunable_within(curve, loss) / curve.size for loss in sensitivity.tolerances
            },
            "points": [
                {
                    "sparsity": point.dropped / curve.size,
                    "accuracy": point.accuracy,
                    "loss": sensitivity.loss(point),
                    "interval": point.interval,
                    "share": point.share,
                }
                for point in curve.points
            ],
        }
        for curve in sensitivity.curves
    ]
    return {"baseline": sensitivity.baseline, "start": sensitivity.start, "groups": groups}


def group_table(units: Granularity) -> Table:
    """What is left of each group."""
    table = table_of("group", _units(units.name), "kept", "sparsity")
    for group in units.groups:
        kept = units.left(group)
        table.add_row(group.label, str(group.size), str(kept), f"{1 - kept / group.size:.1%}")
    return table


def round_files(found: Status) -> tuple[str, ...]:
    """Files of a workspace, a line for each of its folders."""
    folders: dict[Path, list[str]] = {}
    for path in found.files:
        folders.setdefault(path.parent, []).append(path.name)
    return tuple(f"{folder}: {', '.join(names)}" for folder, names in folders.items())


def figures_table(rows: Mapping[str, Figures]) -> Table:
    """Networks one below the other; shares are of the first. What is not 0 is shown where that is much less."""
    first = next(iter(rows.values()))
    sparse, small = any(map(is_sparse, rows.values())), any(each.packed is not None for each in rows.values())
    effective, nonzero = only_if(sparse, "effective BFLOPs"), only_if(sparse, "nonzero")
    sizes = ("BFLOPs", *effective, "parameters", *nonzero, "MB", *only_if(small, "MB packed"))
    table = table_of("network", metric_name(first.metric), *sizes)
    table.caption = metric_words(first.metric)
    for name, each in rows.items():
        table.add_row(
            name,
            f"{each.accuracy:.4f}",
            _changed(short(each.bflops), each.bflops, first.bflops),
            *only_if(sparse, _changed(short(each.effective_bflops), each.effective_bflops, first.effective_bflops)),
            _changed(f"{each.parameters:,}", each.parameters, first.parameters),
            *only_if(sparse, _changed(f"{each.nonzero:,}", each.nonzero, first.nonzero)),
            _changed(short(each.bytes / 1e6), each.bytes, first.bytes),
            *only_if(small, _changed(_megabytes(each.packed), each.packed or first.packed or 0, first.packed or 0)),
        )
    return table


def round_table(workspace: Workspace) -> Table:
    """The original network and every round of pruning; what is removed is counted against the original.

    What is not 0 is shown where that is much less.
    """
    original, newest = workspace.original, [each.newest for each in workspace.rounds]
    every = newest if original is None else [original, *newest]
    sparse, small = any(map(is_sparse, every)), any(each.packed is not None for each in every)
    sizes = ("BFLOPs", *only_if(sparse, "effective BFLOPs"), "parameters", *only_if(sparse, "nonzero"))
    sizes += only_if(small, "MB packed")
    table = table_of("round", "threshold", "before", "pruned", "finetuned", *sizes, "BFLOPs off")
    if original is not None:
        table.caption = metric_words(original.metric)
        table.add_row("original", "", f"{original.accuracy:.4f}", "", "", *_sizes(original, sparse, small), "")
    for each, now in zip(workspace.rounds, newest, strict=True):
        table.add_row(
            str(each.number),
            accuracy(each.threshold),
            f"{each.before.accuracy:.4f}",
            f"{each.pruned.accuracy:.4f}",
            accuracy(each.finetuned.accuracy if each.finetuned else None),
            *_sizes(now, sparse, small),
            f"{1 - now.bflops / original.bflops:.1%}" if original else NONE,
        )
    return table


def round_dict(workspace: Workspace) -> dict[str, Any]:
    """The same for programs."""

    def shown(figures: Figures | None) -> dict[str, Any] | None:
        return figures.as_dict() if figures else None

    rounds = [
        {
            "number": each.number,
            "options": asdict(each.options) | {"threshold": each.threshold},
            "before": shown(each.before),
            "pruned": shown(each.pruned),
            "finetuned": shown(each.finetuned),
        }
        for each in workspace.rounds
    ]
    return {"original": shown(workspace.original), "rounds": rounds}


def reader_table(verified: Verified) -> Table:
    """How far two networks are apart in each reader."""
    table = table_of("reader", "max difference", "of the largest value", "answer")
    for name, diff in verified.max_abs_diff.items():
        relative = verified.max_relative_diff[name]
        within = relative <= verified.tolerance
        answer = Text("same", "green") if within else Text(f"differs by more than {verified.tolerance:g}", "red")
        table.add_row(name, f"{diff:.3g}", f"{relative:.3g}", answer)
    for name, reason in verified.skipped.items():
        table.add_row(name, NONE, NONE, f"skipped: {reason}")
    for name, reason in verified.refused.items():
        table.add_row(name, NONE, NONE, f"runs the first only: {reason}")
    return table


def finding_table(checked: Checked) -> Table:
    """What a check found, a row for each remark with the readers that it holds for."""
    readers: dict[tuple[str, ...], list[str]] = {}
    for each in checked.findings:
        line, layer = (_text(number) for number in (each.line, each.layer))
        readers.setdefault((line, layer, each.severity, each.message), []).append(each.reader)
    table = table_of("line", "layer", "severity", "reader", "finding")
    for (line, layer, severity, message), names in readers.items():
        colour = _SEVERITIES.get(severity, "")
        table.add_row(line, layer, Text(severity, colour), ", ".join(names), Text(message))
    if not readers:
        table.add_row("", "", "", ", ".join(checked.readers), "nothing found")
    return table


def _units(granularity: str) -> str:
    """What units are called; of a granularity of the user's own, as it calls itself."""
    return UNIT_NAMES.get(granularity, granularity)


def _prunable(sensitivity: Sensitivity, curve: Curve, loss: float) -> str:
    """The largest sparsity within a loss, and how sure what it loses is."""
    share, sure = sensitivity.prunable_within(curve, loss) / curve.size, sensitivity.margin(curve, loss)
    return f"{share:.0%}" if sure is None else f"{share:.0%} ±{sure:.3f}"


def _accuracy(sensitivity: Sensitivity, curve: Curve, sparsity: float) -> Text:
    """The measurement at a sparsity; empty where there is none."""
    dropped = round(sparsity * curve.size)
    point = next((each for each in curve.points if each.dropped == dropped), None)
    if point is None:
        return Text()
    loss = sensitivity.loss(point)
    colour = next((colour for most, colour in _COLOURS if loss <= most), "red")
    return Text(f"{point.accuracy:.4f}", colour)


def _sizes(figures: Figures, sparse: bool, small: bool) -> tuple[str, ...]:
    """Operations and floats, each beside what is left of it without zeros; and what packing makes of them."""
    effective, nonzero = only_if(sparse, short(figures.effective_bflops)), only_if(sparse, f"{figures.nonzero:,}")
    packed = only_if(small, _megabytes(figures.packed))
    return (short(figures.bflops), *effective, f"{figures.parameters:,}", *nonzero, *packed)


def _megabytes(count: int | None) -> str:
    return NONE if count is None else short(count / 1e6)


def _changed(written: str, value: float, first: float) -> str:
    """A value, and by how much it differs from the first, which may stand on the line below."""
    return f"{written} {change(value, first)}".rstrip()


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _window(size: int | None, stride: int | None) -> str:
    if size is None:
        return "" if stride is None else f"/{stride}"
    return f"{size}x{size}/{stride}"


def _shape(whc: Sequence[int]) -> str:
    w, h, c = whc
    return f"{w}x{h}x{c}"
