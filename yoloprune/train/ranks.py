"""Which of torchrun's processes this is; asked before PyTorch is loaded, too."""

from __future__ import annotations

import os
from collections.abc import Mapping


def world_size(environment: Mapping[str, str] = os.environ) -> int:
    """How many processes torchrun started; 1 without it."""
    return int(environment.get("WORLD_SIZE", "1"))


def rank_of(environment: Mapping[str, str] = os.environ) -> int:
    """Number of this process among those of torchrun, 0 where it runs alone."""
    return int(environment.get("RANK", "0")) if world_size(environment) > 1 else 0
