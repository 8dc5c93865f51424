"""What tables have in common, and how numbers are written, there and in charts."""

from __future__ import annotations

from typing import Any, Final

from rich import box
from rich.console import RenderableType
from rich.table import Table

from yoloprune.workspace import Figures

NONE: Final = "-"
STRAY: Final = 0.01
"""Share of zeros up to which they are chance, and not shown."""


_WORDS: Final = frozenset(
    {
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
        "severity",
        "finding",
    }
)
"""Columns to the left; the others are numbers, to the right."""
_UNBROKEN: Final = frozenset({"group", "reader", "round", "type", "severity"})
"""Columns that are never too wide: others give way."""


_LONGEST: Final = 24
"""Letters of a word that a column is at least as wide as; longer ones, like paths, are broken."""


class _Whole(Table):
    """A table whose numbers are never broken in two."""

    def add_row(self, *cells: RenderableType | None, **style: Any) -> None:
        """Append a row, and see to it that each column has room for its words."""
        super().add_row(*cells, **style)
        for column, cell in zip(self.columns, cells, strict=False):
            words = (len(word) for word in str(cell or "").split())
            column.min_width = max([column.min_width or 0, *(width for width in words if width <= _LONGEST)])


def table_of(*columns: str, gap: int = 1) -> Table:
    """A table of 80 columns, where that can be: headings and cells break at blanks. gap: between columns, less one."""
    layout: Any = {"title_justify": "left", "caption_justify": "left", "title_style": "", "caption_style": "dim"}
    table = _Whole(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, gap, 0, 0), **layout)
    for column in columns:
        left, whole = column in _WORDS, column in _UNBROKEN
        table.add_column(column, justify="left" if left else "right", overflow="fold", no_wrap=whole)
    return table


def metric_name(key: str) -> str:
    """What people call a metric that programs have as `key`."""
    name = key.removesuffix("_present")
    return _METRICS.get(name, name)


def metric_words(key: str) -> str:
    """The same with what it is a mean over."""
    over = " over classes with objects" if key.endswith("_present") else ""
    return metric_name(key) + over


_METRICS: Final = {
    "map50": "mAP@0.50",
    "map75": "mAP@0.75",
    "map50-95": "mAP@0.50:0.95",
    "top1": "top-1 accuracy",
    "top5": "top-5 accuracy",
}


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
