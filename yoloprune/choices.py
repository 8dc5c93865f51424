"""What options can be, and are when left out, in one place that loads no PyTorch: the command line starts with it."""

from __future__ import annotations

from typing import Final

CHANNEL_CRITERIA: Final = ("elimination", "l1", "bn-scale", "apoz", "taylor", "thinet", "random")
"""What ranks channels (prune/criteria.py)."""
WEIGHT_CRITERIA: Final = ("alps", "sparsegpt", "wanda", "magnitude")
"""What chooses weights (prune/sparse_fit.py)."""
GRIDS: Final = ("uniform", "kmeans")
"""What values quantized weights take (prune/grids.py)."""
CRITERIA_NAMES: Final = (*CHANNEL_CRITERIA, *WEIGHT_CRITERIA, *GRIDS)
WITHOUT_IMAGES: Final = ("l1", "bn-scale", "random", "magnitude", *GRIDS)
"""Criteria that look at weights alone."""
CHANNEL: Final = "channel"
BITS: Final = "bits"
GRANULARITIES: Final = (CHANNEL, "weight", "block", "n:m", BITS)
"""What a unit can be (prune/granularities.py)."""
UNIT_NAMES: Final = {CHANNEL: "channels", "weight": "weights", "block": "blocks", "n:m": "places", BITS: BITS}
"""What units are called where they are counted."""
POOLINGS: Final = ("average", "max")
"""What a block is scored by, of its weights' scores."""
DIVISIONS: Final = ("uniform", "global", "lamp", "erk")
"""How a share of all weights is divided among layers (prune/weight_allocations.py)."""
REFIT: Final = "least squares"
RECALIBRATE: Final = "batch norm"
SCALE: Final = "scale"
NOTHING: Final = "none"
COMPENSATIONS: Final = (REFIT, RECALIBRATE, SCALE, NOTHING)
"""Consumers refitted (compensate.py), batch norm's statistics measured anew (recalibrate.py), consumers scaled by
channel (scale.py), or only masked."""
CALIBRATE: Final = 64
"""Pictures of the train list that consumers are refitted on."""
GRID: Final = tuple(n / 10 for n in range(1, 10))
"""The classic nine sparsities."""
RULES: Final = ("interpolated", "prefix")
"""How a curve is read between measurements (prune/plan.py)."""
LATENCY: Final = "latency"
NONZERO: Final = "nonzero"
OBJECTIVES: Final = ("bflops", "parameters", LATENCY, NONZERO, BITS)
"""What pruning can save: channels the first three, weights the fourth, bits the last."""
MULTIPLE: Final = 8
"""Of kept channels. Readers compute four or eight at once: many take as long for the counts below."""
REFERENCE_LOSS: Final = 0.01
"""Loss of accuracy, one mAP point, at which groups are compared."""
EPOCHS: Final = 30
"""Of each round of `run`."""
TOLERANCE: Final = 1e-4
"""Largest difference over the largest value, at the tensors that enter a head: what float32 sums in another order
differ by, with room."""


def saved(granularity: str) -> str:
    """What pruning in these units saves in the first place."""
    return {CHANNEL: "BFLOPs", BITS: BITS}.get(granularity, "weights")
