"""Loss curves and what may be lost -> how much of each group goes: `plan.json`."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np

from yoloprune.artefacts import load_json, save_json
from yoloprune.darknet.model import Graph
from yoloprune.errors import InputError
from yoloprune.prune.branches import branches_named
from yoloprune.prune.channels import Channels, KeepMask, trace
from yoloprune.prune.sensitivity import RESOLUTION, ROUNDING, Curve, Sensitivity

_SMALL: Final = 16
"""Units from which on a group goes by multiples as they are said."""
_FIRST_TRIAL: Final = 1e-3
"""Tolerable loss that is tried first at the least: from nothing, doubling leads nowhere."""


@dataclass(frozen=True)
class Limits:
    """What a plan must respect."""

    exclude: frozenset[int] = frozenset()
    """Layers whose groups stay as they are."""
    multiple: int = 1
    """Kept units of a group are a multiple of this, where it has as many; small groups go finer."""
    min_keep: int = 1
    """Units of a group that stay at the least."""

    def as_dict(self) -> dict[str, Any]:
        """As plans and rounds say it."""
        return {"multiple": self.multiple, "min_keep": self.min_keep, "exclude": sorted(self.exclude)}

    @property
    def advice(self) -> str:
        """Where too little can go, an error ends with this."""
        return "; with --multiple 1 more may" if self.multiple > 1 else ""

    def step(self, curve: Curve) -> int:
        """What the kept units of a group are a multiple of.

        In a group of fewer than `_SMALL` at most the largest power of two that is no more than half of them: 4 from 8
        units on, 2 from 4 on. By eights such a group would go hardly or not at all.
        """
        half = curve.units // 2
        return self.multiple if curve.units >= _SMALL else min(self.multiple, 1 << max(half.bit_length() - 1, 0))

    def most_dropped(self, curve: Curve) -> int:
        """How many units may be gone at the most."""
        if self.exclude.intersection(curve.producers):
            return curve.gone
        return max(curve.units - max(self.min_keep, 1), curve.gone)

    def allowed(self, curve: Curve, dropped: int) -> int:
        """The largest allowed count of dropped units that is at most `dropped`."""
        kept = curve.units - min(dropped, self.most_dropped(curve))
        step = self.step(curve)
        rounded = min(math.ceil(kept / step) * step, curve.units)
        return max(curve.units - rounded, curve.gone)


def prunable_count(sensitivity: Sensitivity, curve: Curve, threshold: float, rule: str = "interpolated") -> int:
    """How many units a group may lose at a tolerable loss.

    "interpolated": the largest count that was measured to hold by the rising fit (`Sensitivity.holds`). Where the
    measurements were not made for this threshold and leave a gap wider than RESOLUTION up to the next that loses more,
    to where the line between the two crosses the threshold. "prefix": the last measurement before the first that loses
    more, as Vitis AI does.
    """
    if rule == "prefix":
        held = [curve.gone]
        for point in curve.points:
            if sensitivity.loss(point) > threshold + ROUNDING or point.share < 1:
                break
            held.append(point.dropped)
        return held[-1] if sensitivity.baseline - sensitivity.start <= threshold + ROUNDING else curve.gone
    low = sensitivity.prunable_within(curve, threshold)
    beyond = [point for point in curve.points if point.dropped > low and sensitivity.loss(point) > threshold]
    made_for = any(abs(threshold - loss) <= ROUNDING for loss in sensitivity.losses)
    if not beyond or made_for or beyond[0].dropped - low <= RESOLUTION * curve.units:
        return low
    at_low = {point.dropped: sensitivity.loss(point) for point in curve.points}
    held_loss = at_low.get(low, sensitivity.baseline - sensitivity.start)
    if held_loss > threshold:
        return low
    share = (threshold - held_loss) / (sensitivity.loss(beyond[0]) - held_loss)
    return low + math.floor(share * (beyond[0].dropped - low) + ROUNDING)


def choose(sensitivity: Sensitivity, threshold: float, limits: Limits, rule: str = "interpolated") -> dict[str, int]:
    """For each group by label, how many units are gone at this tolerable loss (each group alone)."""
    return {
        curve.label: limits.allowed(curve, prunable_count(sensitivity, curve, threshold, rule))
        for curve in sensitivity.curves
    }


def keep_mask(sensitivity: Sensitivity, channels: Channels, dropped: Mapping[str, int]) -> KeepMask:
    """Keep-set in which each group has lost the first units of its order."""
    keep = channels.all_kept()
    for curve in sensitivity.curves:
        keep = curve.keep(channels, keep, dropped[curve.label])
    return keep


def loss_for_total(joint_loss: Callable[[float], float], total: float, most: float, steps: int = 8) -> float | None:
    """The largest tolerable loss found whose `joint_loss(loss)`, as measured, is at most `total`; None without one.

    Doubled from `total` (or `_FIRST_TRIAL`) on while it holds, up to `most`, where nothing more can go; then bisected
    in `steps`. Joint losses are noisy: what comes back was itself measured to hold.
    """
    good: float | None = None
    bad: float | None = None
    trial = min(max(total, _FIRST_TRIAL), most)
    while bad is None:
        if joint_loss(trial) > total + ROUNDING:
            bad = trial
        elif trial >= most:
            return trial
        else:
            good, trial = trial, min(2 * trial, most)
    low = 0.0 if good is None else good
    for _ in range(steps):
        middle = (low + bad) / 2
        if joint_loss(middle) > total + ROUNDING:
            bad = middle
        else:
            low = good = middle
    return good


@dataclass(frozen=True)
class Plan:
    """What is pruned, from the first round on, in the original network's channel numbers."""

    cfg: str
    """SHA-256 of the original .cfg."""
    removed: Mapping[str, tuple[int, ...]]
    """For each group by label, positions of the dropped units."""
    filters: Mapping[int, tuple[int, ...]]
    """For each layer that makes channels, the filters that are dropped."""
    chosen_by: Mapping[str, Any]
    """Threshold or ratio, rule and limits, for the reader."""
    accuracy: Mapping[str, float]
    """Measured: `original`, `before` this cut and `after` it."""
    branches: tuple[int, ...] = ()
    """Residual branches that are gone, each by the layer that adds it."""

    @classmethod
    def of(
        cls, cfg: str, channels: Channels, keep: KeepMask, chosen_by: Mapping[str, Any], accuracy: Mapping[str, float]
    ) -> Self:
        """From a keep-set."""
        makers = sorted({producer for group in channels.groups for producer in group.producers})
        return cls(
            cfg=cfg,
            removed={group.label: _positions(~keep[group.units]) for group in channels.groups},
            filters={layer: _positions(~channels.kept_outputs(layer, keep)) for layer in makers},
            chosen_by=dict(chosen_by),
            accuracy=dict(accuracy),
            branches=tuple(branch.sum for branch in channels.branches),
        )

    def channels(self, graph: Graph) -> Channels:
        """The channels that the plan counts: those of the graph without its branches."""
        return trace(graph, branches_named(graph, self.branches))

    def keep(self, channels: Channels) -> KeepMask:
        """The keep-set. InputError if the plan is not for these channels."""
        keep = channels.all_kept()
        sizes = {group.label: group for group in channels.groups}
        for label, positions in self.removed.items():
            group = sizes.get(label)
            if group is None or any(not 0 <= position < len(group.units) for position in positions):
                raise InputError(f"plan.json: group {label} does not fit this cfg")
            keep[group.units[list(positions)]] = False
            if not keep[group.units].any():
                raise InputError(f"plan.json: nothing is left of group {label}")
        return keep

    def save(self, path: Path) -> None:
        """Write `plan.json`."""
        payload: dict[str, Any] = {"cfg": self.cfg, "chosen_by": self.chosen_by, "accuracy": self.accuracy}
        payload |= {"branches": self.branches, "removed": self.removed, "filters": self.filters}
        save_json(path, "plan", payload)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read `plan.json`. InputError if it is not what `save` writes."""
        payload = load_json(path, "plan")
        try:
            return cls(
                cfg=str(payload["cfg"]),
                removed={str(label): _numbers(value) for label, value in payload["removed"].items()},
                filters={int(layer): _numbers(value) for layer, value in payload["filters"].items()},
                chosen_by=dict(payload["chosen_by"]),
                accuracy={str(key): float(value) for key, value in payload["accuracy"].items()},
                branches=_numbers(payload["branches"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise InputError(
                f"expected what prune writes, found a file that lacks or garbles {error}", file=path
            ) from error


def _positions(dropped: np.typing.NDArray[np.bool_]) -> tuple[int, ...]:
    return tuple(map(int, np.flatnonzero(dropped)))


def _numbers(values: Collection[Any]) -> tuple[int, ...]:
    return tuple(map(int, values))
