"""Pruning to a keep mask of channels, as tests draw them."""

from __future__ import annotations

from dataclasses import replace

from yoloprune.darknet.model import Model
from yoloprune.prune.channel_units import ChannelUnits
from yoloprune.prune.channels import KeepMask
from yoloprune.prune.cost import Price
from yoloprune.prune.granularity import AllocationCosts
from yoloprune.prune.pruner import Pruner
from yoloprune.prune.sensitivity import Sensitivity


def together(pruner: Pruner, keep: KeepMask) -> Model:
    """Several groups at once."""
    return units(pruner, keep).compensated(pruner.model, pruner.compensation, pruner.batches, pruner.device)


def alone(pruner: Pruner, keep: KeepMask) -> Model:
    """Of one group, from statistics."""
    return units(pruner, keep).compensated_alone(pruner.model, pruner.compensation, pruner.statistics, pruner.device)


def units(pruner: Pruner, keep: KeepMask) -> ChannelUnits:
    """What is left."""
    assert isinstance(pruner.units, ChannelUnits)
    return replace(pruner.units, keep=keep)


def costs(known: ChannelUnits, price: Price, sensitivity: Sensitivity) -> AllocationCosts:
    """By the orders of curves."""
    return known.costs(price, sensitivity.orders)
