"""How far one group goes: what a tolerance lets go by its curve, and what bounds that."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from yoloprune.prune.sensitivity import RESOLUTION, ROUNDING, Curve, Sensitivity

_SMALL: Final = 16
"""Units from which on a group goes by multiples as they are said."""


@dataclass(frozen=True)
class Limits:
    """What a plan must respect."""

    exclude: frozenset[int] = frozenset()
    """Layers whose groups stay as they are."""
    multiple: int = 1
    """Kept units of a group are a multiple of this, where it has as many; small groups go finer."""
    min_keep: int = 1
    """Units of a group that stay at the least."""

    @property
    def advice(self) -> str:
        """Where too little can go, an error ends with this."""
        return "; with --multiple 1 more may" if self.multiple > 1 else ""

    def step(self, curve: Curve) -> int:
        """What the kept units of a group are a multiple of.

        In a group of fewer than `_SMALL` at most the largest power of two that is no more than half of them: 4 from 8
        units on, 2 from 4 on. By eights such a group would go hardly or not at all.
        """
        half = curve.size // 2
        return self.multiple if curve.size >= _SMALL else min(self.multiple, 1 << max(half.bit_length() - 1, 0))

    def most_dropped(self, curve: Curve) -> int:
        """How many units may be gone at the most."""
        if self.exclude.intersection(curve.producers):
            return curve.gone
        return max(curve.size - max(self.min_keep, 1), curve.gone)

    def allowed(self, curve: Curve, dropped: int) -> int:
        """The largest allowed count of dropped units that is at most `dropped`."""
        most = min(dropped, self.most_dropped(curve))
        if curve.counts:
            return max((count for count in curve.counts if count <= most), default=curve.gone)
        kept = curve.size - most
        step = self.step(curve)
        rounded = min(math.ceil(kept / step) * step, curve.size)
        return max(curve.size - rounded, curve.gone)


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
    made_for = any(abs(threshold - loss) <= ROUNDING for loss in sensitivity.tolerances)
    if not beyond or made_for or beyond[0].dropped - low <= RESOLUTION * curve.size:
        return low
    at_low = {point.dropped: sensitivity.loss(point) for point in curve.points}
    held_loss = at_low.get(low, sensitivity.baseline - sensitivity.start)
    if held_loss > threshold:
        return low
    share = (threshold - held_loss) / (sensitivity.loss(beyond[0]) - held_loss)
    return low + math.floor(share * (beyond[0].dropped - low) + ROUNDING)
