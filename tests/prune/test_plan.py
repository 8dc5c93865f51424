"""Choosing sparsities on made curves with known answers."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers import graph_of
from yoloprune.errors import InputError
from yoloprune.options import AnalysisOptions, PruneOptions
from yoloprune.prune.allocate import ThresholdAllocator, loss_for_total
from yoloprune.prune.channel_units import ChannelUnits
from yoloprune.prune.granularity import Allocation
from yoloprune.prune.limits import Limits, prunable_count
from yoloprune.prune.plan import Plan
from yoloprune.prune.sensitivity import Curve, Point, Sensitivity, Setup, grid_counts

SETUP = Setup("c", "w", "d", "alexeyab", False, "map50", 10)


def curve(losses: dict[int, float], *, units: int = 100, gone: int = 0, producers: tuple[int, ...] = (0,)) -> Curve:
    points = tuple(Point(dropped, 0.8 - loss) for dropped, loss in losses.items())
    return Curve(producers, units, tuple(range(units)), gone, points)


def threshold_allocation(sensitivity: Sensitivity, threshold: float, limits: Limits) -> Allocation:
    """What one threshold lets go; it asks for no costs."""
    nothing: Any = None
    return ThresholdAllocator(sensitivity, limits, nothing, "interpolated").at(threshold)


def of(*curves: Curve, start: float = 0.8) -> Sensitivity:
    return Sensitivity(SETUP, AnalysisOptions("l1", sparsities=(0.3, 0.6, 0.9)), 0.8, start, curves)


@pytest.mark.parametrize(
    ("losses", "interpolated", "prefix"),
    [
        ({10: 0.005, 20: 0.01, 30: 0.03}, 20, 20),  # monotone, met exactly
        ({10: 0.005, 20: 0.015, 30: 0.03}, 15, 10),  # monotone, half way
        ({10: 0.005, 15: 0.015, 30: 0.03}, 10, 10),  # a gap of 5 points is not filled
        ({10: 0.02, 20: 0.04}, 5, 0),  # crossed before the first measurement
        ({10: 0.02, 20: 0.0, 30: 0.0}, 30, 0),  # one bad among good ones is noise
        ({10: 0.03, 20: 0.04, 30: 0.0, 40: 0.05}, 3, 0),  # one good among bad ones too
        ({10: -0.02, 20: -0.01, 30: 0.03}, 25, 20),  # gains
        ({10: 0.0, 20: 0.0, 90: 0.0}, 90, 90),  # flat: as far as was measured
        ({10: 0.0, 20: 0.8, 30: 0.8}, 10, 10),  # a cliff
        ({}, 0, 0),
    ],
)
def test_bearable(losses: dict[int, float], interpolated: int, prefix: int) -> None:
    sensitivity = of(curve(losses))
    assert prunable_count(sensitivity, sensitivity.curves[0], 0.01) == interpolated
    assert prunable_count(sensitivity, sensitivity.curves[0], 0.01, "prefix") == prefix


def test_a_later_round_counts_from_the_original_and_keeps_what_is_gone() -> None:
    behind = of(curve({40: 0.03, 50: 0.05}, gone=30), start=0.78)
    assert prunable_count(behind, behind.curves[0], 0.01) == 30  # already behind the original by more
    assert prunable_count(behind, behind.curves[0], 0.04) == 45


def test_nothing_is_filled_in_where_measurements_were_made_for_the_threshold() -> None:
    made = of(curve({10: 0.005, 60: 0.015})).asked_for(AnalysisOptions(tolerances=(0.01,)))
    assert prunable_count(made, made.curves[0], 0.01) == 10
    assert prunable_count(made, made.curves[0], 0.012) == 45


@pytest.mark.parametrize(
    ("limits", "dropped"),
    [
        (Limits(), 47),
        (Limits(multiple=8), 44),  # 53 kept -> 56
        (Limits(min_keep=60), 40),
        (Limits(exclude=frozenset({3})), 0),
        (Limits(multiple=64), 36),
        (Limits(multiple=1000), 0),
    ],
)
def test_limits(limits: Limits, dropped: int) -> None:
    sensitivity = of(curve({47: 0.01, 60: 0.5}, producers=(2, 3)))
    assert threshold_allocation(sensitivity, 0.01, limits) == {"2+3": dropped}


@pytest.mark.parametrize(
    ("units", "multiple", "kept"),
    [
        (16, 8, {8, 16}),
        (18, 8, {8, 16, 18}),
        (17, 1, set(range(1, 18))),
        (15, 8, {4, 8, 12, 15}),
        (8, 8, {4, 8}),
        (12, 3, {3, 6, 9, 12}),
        (7, 8, {2, 4, 6, 7}),
        (4, 8, {2, 4}),
        (3, 8, {1, 2, 3}),
        (2, 64, {1, 2}),
        (16, 64, {16}),
    ],
)
def test_small_groups_go_finer(units: int, multiple: int, kept: set[int]) -> None:
    limits, made = Limits(multiple=multiple), curve({}, units=units)
    left = {dropped: units - limits.allowed(made, dropped) for dropped in range(units)}
    assert set(left.values()) == kept
    assert all(units - dropped <= each for dropped, each in left.items())


def test_at_least_one_stays() -> None:
    sensitivity = of(curve({1: 0.0}, units=2))
    assert threshold_allocation(sensitivity, 1.0, Limits()) == {"0": 1}
    assert Limits().allowed(sensitivity.curves[0], 2) == 1


@pytest.mark.parametrize(
    ("joint", "total", "expected"),
    [
        (lambda t: 3 * t, 0.03, 0.01),  # many losses add up
        (lambda t: t / 3, 0.03, 0.09),  # they hide each other
        (lambda t: 0.0, 0.03, 0.5),  # all can go
        (lambda t: 0.0 if t < 0.004 else 0.2, 0.03, 0.004),  # a cliff
    ],
)
def test_loss_for_total(joint: Callable[[float], float], total: float, expected: float) -> None:
    found = loss_for_total(joint, total, 0.5, steps=12)
    assert found == pytest.approx(expected, rel=1e-2)
    assert joint(found) <= total + 1e-9


def test_a_total_of_nothing_is_bisected_too() -> None:
    found = loss_for_total(lambda t: max(t - 0.0004, 0.0), 0.0, 0.5)
    assert found == pytest.approx(0.0004, abs=1e-5)


def test_no_loss_for_a_total() -> None:
    assert loss_for_total(lambda t: 0.1, 0.03, 0.5) is None


def test_grid_counts_are_new_and_leave_one() -> None:
    assert grid_counts(curve({}, units=4), [0.1, 0.25, 0.5, 0.9, 1.0]) == (1, 2)
    assert grid_counts(curve({}, units=4, gone=1), [0.1, 0.25, 0.5, 0.75]) == (2, 3)


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"yoloprune": "plan", "version": 3}', '{"yoloprune": "sensitivity", "version": 3, "curves": 3}'],
)
def test_broken_files_are_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "sensitivity.json"
    file.write_text(text)
    with pytest.raises(InputError, match=r"sensitivity\.json: "):
        Sensitivity.load(file)
    file.write_text('{"yoloprune": "plan", "version": 3, "cfg": "x", "pruned": [], "mask": "", "options": {}}')
    with pytest.raises(InputError):
        Plan.load(file)


@pytest.mark.parametrize("kind", ["plan", "sensitivity"])
def test_files_of_another_version_are_refused_with_what_to_do(tmp_path: Path, kind: str) -> None:
    file = tmp_path / f"{kind}.json"
    file.write_text(f'{{"yoloprune": "{kind}", "version": 2}}')
    with pytest.raises(InputError, match=r"of version 3, found .* of version 2; yoloprune ana --force starts anew"):
        (Plan if kind == "plan" else Sensitivity).load(file)


GRAPH = graph_of("[net]\nwidth=8\nheight=8\nchannels=3\n" + "[convolutional]\nfilters=8\n" * 3)


def saved(folder: Path) -> Path:
    """A plan without three channels."""
    units = ChannelUnits.of(GRAPH).without({"0": [1, 4, 6]})
    Plan.save(folder / "plan.json", "sha", units, PruneOptions(threshold=0.01), {"after": 0.5})
    return folder / "plan.json"


def test_a_plan_says_counts_and_its_mask_which(tmp_path: Path) -> None:
    file = saved(tmp_path)
    plan = Plan.load(file)
    assert plan.pruned == {"0": 3, "1": 0}
    assert plan.options == PruneOptions(threshold=0.01)
    units = plan.units(GRAPH, file)
    assert [int(position) for position in np.flatnonzero(~units.kept(units.groups[0]))] == [1, 4, 6]


def test_a_plan_of_absurd_numbers_is_refused(tmp_path: Path) -> None:
    file = saved(tmp_path)
    file.write_text(re.sub(r"(?<!version\"): 3\b", ": 1e999", file.read_text()))
    assert "1e999" in file.read_text()
    with pytest.raises(InputError, match="expected a whole number"):
        Plan.load(file)


@pytest.mark.parametrize("spoil", ["bits", "counts", "length", "gone"])
def test_a_plan_whose_mask_does_not_fit_is_refused(tmp_path: Path, spoil: str) -> None:
    file = saved(tmp_path)
    mask = tmp_path / "mask.bits"
    if spoil == "counts":
        file.write_text(file.read_text().replace('"0": 3', '"0": 2'))
    elif spoil == "gone":
        mask.unlink()
    else:
        data = bytearray(mask.read_bytes())
        data[0] ^= 255
        mask.write_bytes(data if spoil == "bits" else data[:-1])
    plan = Plan.load(file)
    with pytest.raises(InputError, match=r"expected the (mask|counts)|cannot be read"):
        plan.units(GRAPH, file)
