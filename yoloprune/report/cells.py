"""What tables have in common."""

from __future__ import annotations

from typing import Final

from rich import box
from rich.table import Table

NONE: Final = "-"


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
