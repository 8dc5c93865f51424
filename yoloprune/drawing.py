"""A picture to plot in, written whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yoloprune.artefacts import atomic_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@contextmanager
def drawing(file: Path, **layout: Any) -> Iterator[Figure]:
    """An empty figure of matplotlib, written to `file` as PNG when the block is left. layout: as `Figure` takes it."""
    # Here, as the import takes a third of a second, and most commands draw nothing.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(**layout)
    FigureCanvasAgg(figure)
    yield figure
    with atomic_path(file) as temporary:
        figure.savefig(temporary, format="png")
