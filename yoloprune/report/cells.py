"""What tables have in common, and how numbers are written, there and in charts."""

from __future__ import annotations

from typing import Final

from rich import box
from rich.table import Table

from yoloprune.workspace import Figures

NONE: Final = "-"
STRAY: Final = 0.01
"""Share of zeros up to which they are chance, and not shown."""


def table_of(*columns: str) -> Table:
    """Words to the left, numbers to the right."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title_justify="left", caption_justify="left")
    words = {
        "class",
        "type",
        "picture",
        "figure",
        "network",
        "reader",
        "answer",
        "group",
        "round",
        "from",
        "file",
        "path",
        "severity",
        "finding",
    }
    for column in columns:
        table.add_column(column, justify="left" if column in words else "right", overflow="fold")
    return table


def only_if(wanted: bool, *cells: str) -> tuple[str, ...]:
    """Columns or cells that are there only if they are wanted."""
    return cells if wanted else ()


def short(value: float) -> str:
    """Three decimals, or as many digits where that says more."""
    return f"{value:.3f}" if value >= 0.1 else f"{value:.3g}"


def change(value: float, first: float) -> str:
    """In percent of the first; nothing where there is none."""
    return "" if value == first or not first else f"{value / first - 1:+.1%}"


def accuracy(value: float | None) -> str:
    """Four decimals, or a dash."""
    return NONE if value is None else f"{value:.4f}"


def percent(value: float) -> str:
    """A share, as axes have it."""
    return f"{100 * value:g}%"


def is_sparse(figures: Figures) -> bool:
    """Whether more of a network is 0 than chance brings."""
    pairs = ((figures.nonzero, figures.parameters), (figures.effective_bflops, figures.bflops))
    return any(left < (1 - STRAY) * whole for left, whole in pairs)
