"""What so many pictures can tell of a loss, and what to say where that is too little to steer by.

Every measurement has the interval of 90 % of its bootstrap resamples (detect/outcome.py). Where a loss decides how far
a group may go, the interval of the measurements around it says how far that decision is luck.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import median

from yoloprune.prune.sensitivity import Curve, Point, Sensitivity


def interval_width(sensitivity: Sensitivity, loss: float) -> float | None:
    """Median width of the intervals where `loss` decides: of each group's last measurement that holds, and the next.

    Only of measurements on all pictures; None where there are none.
    """
    widths = [
        point.width
        for curve in sensitivity.curves
        for point in _deciding(sensitivity, curve, loss)
        if point.width is not None
    ]
    return median(widths) if widths else None


def cautions(sensitivity: Sensitivity, losses: Sequence[float]) -> tuple[str, ...]:
    """Why what was measured is little to go by, where each group, or all, may lose this much; a line each."""
    if sensitivity.baseline <= 0:
        return (
            "the original's accuracy is 0, so no pruning is seen to lose any: are weights, data and dialect right?",
        )
    widths = {loss: interval_width(sensitivity, loss) for loss in losses}
    return (*_low(sensitivity, max(losses, default=0.0), widths), *_short(sensitivity, widths))


def joint_cautions(joint_loss: float, threshold: float) -> tuple[str, ...]:
    """What to do where all groups together lose more than the threshold that each alone was allowed; a line or none."""
    if joint_loss <= threshold:
        return ()
    return (
        f"many small losses add up to {joint_loss:.4f}, over the threshold of {threshold:.4f}; "
        "prune --force --total-loss holds all of it within a bound, finetune wins back",
    )


def _low(sensitivity: Sensitivity, loss: float, widths: dict[float, float | None]) -> Iterator[str]:
    """Where half of the accuracy may go, or chance is as large as all of it."""
    known, images = sensitivity.baseline, sensitivity.setup.images
    width = max((each for each in widths.values() if each is not None), default=0.0)
    if known <= max(2 * loss, width):
        why = (
            f"a loss of {loss:g} is {loss / known:.0%} of it"
            if known <= 2 * loss
            else f"the 90 % interval of a loss is {width:.4f} wide"
        )
        yield (
            f"the original's accuracy, {known:.4f} on {images} images, is little to steer by, for {why}: "
            "are weights, data and dialect right?"
        )


def _short(sensitivity: Sensitivity, widths: dict[float, float | None]) -> Iterator[str]:
    """Where the valid list is too short for a loss."""
    images = sensitivity.setup.images
    wider = {loss: width for loss, width in widths.items() if width is not None and width > loss > 0}
    if wider:
        loss, width = min(wider.items())
        enough = _rounded_up(images * (width / loss) ** 2)
        yield (
            f"on {images} images the 90 % interval of a loss is {width:.4f} wide, and a loss of {loss:g} is asked for: "
            f"how far groups are prunable is partly luck; about {enough} images would tell"
        )


def _rounded_up(count: float) -> int:
    """To two digits."""
    unit: int = 10 ** max(math.floor(math.log10(count)) - 1, 0)
    return math.ceil(count / unit) * unit


def _deciding(sensitivity: Sensitivity, curve: Curve, loss: float) -> Iterator[Point]:
    whole = [point for point in curve.points if point.share == 1]
    held = sensitivity.prunable_within(curve, loss)
    yield from (point for point in whole if point.dropped == held)
    yield from [point for point in whole if point.dropped > held and sensitivity.loss(point) > loss][:1]
