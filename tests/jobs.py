"""The steps of a job as tests call them: the public functions."""

from __future__ import annotations

from typing import Any

from yoloprune import api
from yoloprune.api import export, finetune, prune, run
from yoloprune.prune.sensitivity import Sensitivity

__all__ = ["ana", "export", "finetune", "prune", "run"]


def ana(*files: Any, **options: Any) -> Sensitivity:
    """The curves alone."""
    return api.ana(*files, **options).sensitivity
