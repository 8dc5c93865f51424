"""What commands found out, as pictures. Nothing here is measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from yoloprune.choices import CHANNEL, saved
from yoloprune.drawing import drawing
from yoloprune.prune.search import Expectation, output_error_at
from yoloprune.prune.sensitivity import Curve, Sensitivity

if TYPE_CHECKING:
    from yoloprune.steps.ana import Analysed

_COLUMNS: Final = 6
_INCHES: Final = 1.9
_HEADING: Final = 0.3
_EACH: Final = {CHANNEL: "each group of channels"}
_LAYER: Final = "each layer's weights"
_MOST_SHOWN: Final = 0.12
"""Loss at which the axes end: what lies beyond nobody wants."""


def plot_sensitivity(done: Analysed, file: Path) -> None:
    """Write a picture: loss over sparsity of each group with its interval, and what goes in all at each loss.

    Where most can be won comes first.
    """
    sensitivity = done.sensitivity
    curves = sorted(sensitivity.curves, key=lambda each: -done.gains[each.label])
    rows = -(-(len(curves) + 1) // _COLUMNS)
    height = rows * _INCHES + _HEADING
    with drawing(file, figsize=(_COLUMNS * _INCHES, height), dpi=110) as figure:
        # Laid out by hand: matplotlib's own layouts draw everything twice.
        figure.subplots_adjust(0.04, 0.3 / height, 0.99, 1 - 2 * _HEADING / height, wspace=0.32, hspace=0.5)
        grid = figure.subplots(rows, _COLUMNS, squeeze=False).flat
        granularity = str(sensitivity.options.granularity)
        _plot_frontier(grid[0], done.frontier, saved(granularity))
        expected = Expectation.of(sensitivity)
        for axes, curve in zip(grid[1:], curves, strict=False):
            _plot_curve(axes, sensitivity, curve, expected)
        for axes in grid[len(curves) + 1 :]:
            axes.set_axis_off()
        figure.suptitle(
            f"{sensitivity.setup.metric} lost over sparsity, {_EACH.get(granularity, _LAYER)} pruned alone: "
            "measured (90 % interval), expected (line), prunable (green)",
            fontsize="small",
            y=1 - 0.4 * _HEADING / height,
        )


def _plot_frontier(axes: Any, frontier: Sequence[tuple[float, float]], off: str) -> None:
    axes.plot([loss for loss, _ in frontier], [share for _, share in frontier], color="black", linewidth=1.2)
    axes.set_title(f"{off} off", fontsize="x-small")
    axes.set_xlabel("loss of each group alone", fontsize="xx-small")
    axes.set_ylim(0, 1)
    axes.tick_params(labelsize="xx-small")
    axes.grid(alpha=0.3)


def _plot_curve(axes: Any, sensitivity: Sensitivity, curve: Curve, expected: Expectation) -> None:
    before = sensitivity.baseline - sensitivity.start
    shares = [point.dropped / curve.size for point in curve.points]
    losses = [sensitivity.loss(point) for point in curve.points]
    for loss in sensitivity.tolerances:
        axes.axvline(sensitivity.prunable_within(curve, loss) / curve.size, color="green", linewidth=0.8, alpha=0.5)
        axes.axhline(loss, color="grey", linewidth=0.4)
    if curve.proxy:
        counts = range(curve.gone + 1, curve.size)
        line = [before + expected.at(output_error_at(curve, count)) for count in counts]
        axes.plot([count / curve.size for count in counts], line, color="tab:blue", linewidth=0.8)
    known = [point for point in curve.points if point.interval is not None]
    if known:
        bars = [[max(sensitivity.loss(p) - p.interval[0], 0) for p in known if p.interval]]
        bars.append([max(p.interval[1] - sensitivity.loss(p), 0) for p in known if p.interval])
        at = [point.dropped / curve.size for point in known]
        axes.errorbar(
            at, [sensitivity.loss(point) for point in known], bars, fmt="none", ecolor="orange", linewidth=0.8
        )
    axes.plot(shares, losses, ".", color="black", markersize=4)
    axes.set_title(f"{curve.label} ({curve.size})", fontsize="x-small")
    axes.set_xlim(0, 1)
    axes.set_xticks((0, 0.5, 1))
    axes.set_ylim(-0.02, _MOST_SHOWN)
    axes.set_yticks((0, 0.05, 0.1))
    axes.tick_params(labelsize="xx-small")
