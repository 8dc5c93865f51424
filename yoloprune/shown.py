"""How results show themselves: one line in a shell, a table in a notebook."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from html import escape
from typing import Final

_FEW: Final = 3
"""Rows that fit on a line."""


class Shown(ABC):
    """A result that is shown by a few rows of figures; its class turns dataclass's own `repr` off."""

    @abstractmethod
    def rows(self) -> Mapping[str, Mapping[str, object]]:
        """Names of rows, and what each says by column."""

    def __repr__(self) -> str:
        rows = [
            f"{name}: {', '.join(f'{key} {_short(each)}' for key, each in row.items())}"
            for name, row in self.rows().items()
        ]
        return f"{type(self).__name__}({'; '.join(rows if len(rows) <= _FEW else [*rows[:_FEW], '...'])})"

    def _repr_html_(self) -> str:
        """What Jupyter shows."""
        rows = self.rows()
        columns = list(dict.fromkeys(key for row in rows.values() for key in row))
        head = "".join(f"<th>{escape(column)}</th>" for column in ("", *columns))
        body = "".join(
            f"<tr><th>{escape(name)}</th>{''.join(f'<td>{escape(_short(row.get(key)))}</td>' for key in columns)}</tr>"
            for name, row in rows.items()
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4f}" if value >= 0.001 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else "" if value is None else str(value)
