"""The chart of a run, in the manner of Darknet's: loss and accuracy over iterations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from yoloprune.drawing import drawing
from yoloprune.train.progress import Record

_HIGHEST = 3.0
"""The loss axis ends at so many times the median of the averages, so that the start doesn't flatten the rest."""


def plot_training(records: Sequence[Record], iterations: int, file: Path, start: float | None = None) -> None:
    """Write a picture: averaged loss on the left axis, accuracy where it was measured on the right one.

    start: accuracy before the first update, where it is known.
    """
    with drawing(file, figsize=(9, 6), dpi=110, layout="constrained") as figure:
        axes = figure.add_subplot()
        averages = [record.average for record in records]
        axes.plot([record.iteration for record in records], averages, color="tab:blue", linewidth=1.0)
        axes.set(xlabel=f"iteration of {iterations}", ylabel="average loss", xlim=(0, iterations))
        if records:
            top = _HIGHEST * float(np.median(averages))
            axes.set_ylim(0, top if np.isfinite(top) and top > 0 else None)
            axes.set_title(f"iteration {records[-1].iteration}: average loss {averages[-1]:.3f}")
        axes.grid(alpha=0.3)
        known = [(0, start), *((record.iteration, record.metric) for record in records)]
        measured = [(iteration, 100 * value) for iteration, value in known if value is not None]
        if measured:
            right = axes.twinx()
            right.plot(*zip(*measured, strict=True), color="tab:red", marker=".", linewidth=1.2)
            right.set(ylabel="accuracy [%]", ylim=(0, 100))
            best = max(measured, key=lambda point: point[1])
            right.annotate(f"best {best[1]:.1f} %", best, color="tab:red", va="bottom")
