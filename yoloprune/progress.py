"""How far work is: what long functions tell whoever follows them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """How far a stage of some work is."""

    stage: str
    done: int
    total: int
    text: str = ""


OnProgress = Callable[[Progress], None]


def silent(progress: Progress) -> None:
    """Nobody follows."""
