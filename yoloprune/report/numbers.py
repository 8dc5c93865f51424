"""How numbers are written, in tables and charts alike."""

from __future__ import annotations

NONE = "-"


def accuracy(value: float | None) -> str:
    """Four decimals, or a dash."""
    return NONE if value is None else f"{value:.4f}"


def short(value: float) -> str:
    """Three decimals, or as many digits where that says more."""
    return f"{value:.3f}" if value >= 0.1 else f"{value:.3g}"


def change(value: float, first: float) -> str:
    """In percent of the first; nothing where there is none."""
    return "" if value == first or not first else f"{value / first - 1:+.1%}"


def percent(value: float) -> str:
    """A share on an axis."""
    return f"{100 * value:g}%"
