"""What so many pictures can tell, on made curves with known answers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.prune.test_plan import of
from yoloprune.detect.outcome import interval
from yoloprune.prune.certainty import cautions, interval_width, joint_cautions
from yoloprune.prune.sensitivity import Curve, Point, Sensitivity


def curve(number: int, *points: tuple[int, float, float, float]) -> Curve:
    """Dropped, loss, and lower and upper end of its interval."""
    made = tuple(Point(dropped, 0.8 - loss, (low, high)) for dropped, loss, low, high in points)
    return Curve((number,), 100, tuple(range(100)), 0, made)


FEW = of(
    curve(0, (10, 0.002, 0.0, 0.01), (20, 0.008, 0.0, 0.03), (30, 0.04, 0.02, 0.06), (40, 0.2, 0.1, 0.3)),
    curve(1, (10, 0.03, 0.01, 0.06), (20, 0.05, 0.03, 0.09)),
)
"""At 0.01, group 0 goes to 20 and group 1 not at all."""


def test_the_width_is_that_of_the_measurements_that_decide() -> None:
    assert interval_width(FEW, 0.01) == pytest.approx(0.04)  # of 0.03, 0.04 and 0.05
    assert interval_width(FEW, 0.005) == pytest.approx(0.03)  # of 0.01, 0.03 and 0.05
    assert interval_width(FEW, 0.5) == pytest.approx(0.13)  # of 0.2 and 0.06
    assert interval_width(of(), 0.01) is None
    given_up = replace(FEW, curves=(FEW.curves[1].with_point(Point(10, 0.77, (0.0, 1.0), share=0.25)),))
    assert interval_width(given_up, 0.04) == pytest.approx(0.06)  # what was not measured on all pictures says nothing


def test_the_margin_is_that_of_what_prunable_at() -> None:
    first, second = FEW.curves
    assert FEW.margin(first, 0.01) == pytest.approx(0.015)
    assert FEW.margin(second, 0.01) is None
    assert FEW.margin(replace(first, points=(Point(5, 0.8),)), 0.01) is None


def test_too_few_images_for_the_loss() -> None:
    (text,) = cautions(FEW, [0.01])
    assert text.startswith("on 10 images the 90 % interval of a loss is 0.0400 wide, and a loss of 0.01 is asked for")
    assert text.endswith("about 160 images would tell")  # four times the width: sixteen times the images
    (text,) = cautions(FEW, [0.2, 0.005, 0.01])
    assert "a loss of 0.005 is asked for" in text
    assert text.endswith("about 360 images would tell")
    assert cautions(FEW, [0.06, 0.2]) == ()
    assert cautions(FEW, []) == ()


def test_the_images_that_would_tell() -> None:
    """Widths of bootstrap intervals fall with the root of the number of images."""
    rng = np.random.default_rng(0)
    changed = rng.random(4000) < 0.3

    def width(images: int) -> float:
        draws = rng.integers(0, images, (1000, images))
        low, high = interval(changed[:images][draws].mean(1))
        return high - low

    assert width(250) / width(4000) == pytest.approx(4, rel=0.2)


@pytest.mark.parametrize(
    ("baseline", "losses", "expected"),
    [
        (0.0, [], "accuracy is 0, so no pruning is seen to lose any"),
        (0.015, [0.01], "0.0150 on 10 images, is little to steer by, for a loss of 0.01 is 67% of it"),
        (0.03, [0.01], "0.0300 on 10 images, is little to steer by, for the 90 % interval of a loss is 0.0400 wide"),
        (0.05, [0.01], None),
        (0.015, [], None),
    ],
)
def test_a_baseline_too_low_to_steer_by(baseline: float, losses: list[float], expected: str | None) -> None:
    def shifted(point: Point) -> Point:
        return replace(point, accuracy=point.accuracy - 0.8 + baseline)

    curves = tuple(replace(each, points=tuple(map(shifted, each.points))) for each in FEW.curves)
    low: Sensitivity = replace(FEW, baseline=baseline, start=baseline, curves=curves)
    found = [text for text in cautions(low, losses) if "the original's accuracy" in text]
    assert (expected is None) == (not found)
    if expected is not None:
        assert expected in found[0]
        assert found[0].endswith("are weights, data and dialect right?")


def test_losses_that_add_up_over_the_threshold() -> None:
    (line,) = joint_cautions(0.2501, 0.25)
    assert "0.2501, over the threshold of 0.2500" in line
    assert "--total-loss" in line
    assert joint_cautions(0.25, 0.25) == ()
    assert joint_cautions(-0.1, 0.0) == ()
