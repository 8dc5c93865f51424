"""Counts that a user prescribes: how sparse groups are to be, or below which magnitude weights go. Nothing is measured.

The classics: the same sparsity everywhere (Li et al. 2017; PaddleSlim's `ratio`), one magnitude for all layers or one
for each (Han et al. 2015), ERK and LAMP; of channels one scale of batch norm for all (Liu et al. 2017).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from yoloprune.darknet.model import Model
from yoloprune.errors import InputError
from yoloprune.prune.channel_units import ChannelUnits
from yoloprune.prune.granularity import Allocation
from yoloprune.prune.limits import Limits
from yoloprune.prune.sensitivity import ROUNDING, Curve
from yoloprune.prune.weight_allocations import WEIGHT_ALLOCATIONS
from yoloprune.prune.weight_units import WeightUnits


def same_sparsity(curves: Sequence[Curve], limits: Limits, sparsity: float) -> Allocation:
    """floor(sparsity * size) units of each group."""
    return {
        curve.label: limits.allowed(curve, max(math.floor(sparsity * curve.size + ROUNDING), curve.gone))
        for curve in curves
    }


def divided_sparsity(
    units: WeightUnits, model: Model, curves: Sequence[Curve], limits: Limits, sparsity: float, division: str
) -> Allocation:
    """Of all weights of the groups a share, divided among layers by one of WEIGHT_ALLOCATIONS."""
    layers = {int(curve.label): curve for curve in curves}
    weights = {index: model.weights.layers[index]["weight"] * units.weights[index] for index in layers}
    stay = WEIGHT_ALLOCATIONS[division](weights, 1 - sparsity)
    return {
        curve.label: limits.allowed(curve, max(curve.size - round(stay[index] * curve.size), curve.gone))
        for index, curve in layers.items()
    }


def globally_by_scale(
    units: ChannelUnits, model: Model, curves: Sequence[Curve], limits: Limits, sparsity: float
) -> Allocation:
    """Of all channels of the groups a share, those of the least |scale| in batch norm, wherever they are.

    Liu et al. 2017, "Network Slimming", section 3: one threshold over all layers. A unit of several filters counts with
    the mean of their scales. Groups that a layer without batch norm makes stay. Channels that are gone count as the
    least.
    """
    values: dict[str, NDArray[np.float64]] = {}
    for curve in curves:
        group = units.channels.group(curve.label)
        sums, filters = np.zeros(units.channels.units), np.zeros(units.channels.units)
        for producer in curve.producers:
            scale = model.weights.layers[producer].get("scale")
            made = units.channels.outputs[producer]
            np.add.at(sums, made, np.nan if scale is None else np.abs(scale))
            np.add.at(filters, made, 1)
        mean = sums[group.units] / filters[group.units]
        if not np.isnan(mean).any():
            values[curve.label] = np.sort(np.where(units.keep[group.units], mean, -1.0))
    listed = np.concatenate(list(values.values())) if values else np.empty(0)
    least = np.sort(listed)[: math.floor(sparsity * sum(curve.size for curve in curves) + ROUNDING)]
    threshold = least[-1] if len(least) else -1.0
    return {
        curve.label: limits.allowed(
            curve, max(int((values.get(curve.label, np.empty(0)) <= threshold).sum()), curve.gone)
        )
        for curve in curves
    }


@dataclass(frozen=True)
class Magnitudes:
    """Below which magnitude weights go."""

    usual: tuple[float, bool] | None
    """Of layers that aren't named: the magnitude, and whether it is in standard deviations of the layer's weights that
    are left. None: they stay as they are."""
    layers: Mapping[int, tuple[float, bool]]

    @classmethod
    def parse(cls, text: str) -> Magnitudes:
        """Of `0.01`, `0.7std`, or `3:0.01,7:0.7std`. InputError for anything else."""
        usual, layers = None, {}
        for part in text.split(","):
            found = re.fullmatch(r"(?:([0-9]{1,4}):)?([0-9]*\.?[0-9]+(?:e-?[0-9]+)?)(std)?", part.strip())
            if found is None or (found[1] is None and "," in text):
                expected = "expected a magnitude like 0.01 or 0.7std, or layers like 3:0.01,7:0.02"
                raise InputError(f"--magnitude: {expected}, found {text!r}")
            value = float(found[2]), found[3] is not None
            if found[1] is None:
                usual = value
            else:
                layers[int(found[1])] = value
        return cls(usual, layers)

    def counts(self, units: WeightUnits, model: Model, curves: Sequence[Curve], limits: Limits) -> Allocation:
        """How many weights of each layer go, those that are gone included. InputError for layers that have none."""
        known = {int(curve.label) for curve in curves}
        for index in self.layers.keys() - known:
            listed = ", ".join(map(str, sorted(known)))
            raise InputError(f"--magnitude: layer {index} has no weights that can go (expected some of {listed})")
        counts = {}
        for curve in curves:
            value, in_deviations = self.layers.get(int(curve.label)) or self.usual or (0.0, False)
            kept = units.weights[int(curve.label)]
            left = model.weights.layers[int(curve.label)]["weight"][kept]
            least = value * float(left.std(dtype=np.float64)) if in_deviations else value
            counts[curve.label] = limits.allowed(curve, curve.gone + int((np.abs(left) < least).sum()))
        return counts
