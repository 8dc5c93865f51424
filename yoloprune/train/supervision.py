"""Who teaches."""

from __future__ import annotations

from dataclasses import dataclass

from yoloprune.darknet.model import Model
from yoloprune.errors import InputError


@dataclass(frozen=True)
class Supervision:
    """The labels, a teacher, or both."""

    teacher: Model | None = None
    """A network with the same layers; see distill.py."""
    labels: bool = True

    def __post_init__(self) -> None:
        if not self.labels and self.teacher is None:
            raise InputError("without labels there must be a teacher (--distill)")


LABELS = Supervision()
