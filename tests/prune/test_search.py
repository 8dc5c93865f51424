"""Adaptive measuring on made curves, whose answers are known."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from yoloprune.options import AnalysisOptions
from yoloprune.prune.limits import prunable_count
from yoloprune.prune.search import Expectation, analyse, output_error_at
from yoloprune.prune.sensitivity import RESOLUTION, TOLERANCES, Curve, Point, Sensitivity, Setup, monotone

SETUP = Setup("c", "w", "d", "alexeyab", False, "map50", 128)
BASELINE = 0.8
Loss = Callable[[float], float]


class Made:
    """Groups whose loss and output error are functions of sparsity."""

    def __init__(self, *losses: Loss, drift_of_loss: float = 2.0, noise: float = 0.0) -> None:
        self.losses, self.factor, self.noise = losses, drift_of_loss, noise
        self.measured = 0

    def curves(self, units: int = 100) -> tuple[Curve, ...]:
        return tuple(Curve((number,), units, tuple(range(units)), 0) for number in range(len(self.losses)))

    def start(self, units: int = 100) -> Sensitivity:
        options = AnalysisOptions("l1", tolerances=TOLERANCES)
        return Sensitivity(SETUP, options, BASELINE, BASELINE, self.curves(units))

    def output_error(self, curve: Curve, dropped: int) -> float:
        loss = self.losses[curve.producers[0]]
        return self.factor * max(loss(dropped / curve.size) - loss(curve.gone / curve.size), 1e-6)

    def point(self, curve: Curve, dropped: int, most: float = math.inf) -> Point:
        self.measured += 1
        wobble = np.random.default_rng(1000 * curve.producers[0] + dropped).normal(0, self.noise) if self.noise else 0
        return Point(dropped, BASELINE - self.losses[curve.producers[0]](dropped / curve.size) - wobble)


SHAPES: dict[str, Loss] = {
    "line": lambda s: 0.1 * s,
    "bend": lambda s: 0.3 * s**3,
    "steep": lambda s: 0.3 * math.sqrt(s),
    "flat": lambda s: 0.0001 * s,
    "cliff": lambda s: 0.0 if s < 0.62 else 0.5,
    "gain": lambda s: -0.02 * s if s < 0.5 else 0.2 * (s - 0.5) - 0.01,
}


def crossing(loss: Loss, most: float, units: int = 100) -> int:
    """The largest count up to which nothing exceeds `most`."""
    over = [count for count in range(1, units) if loss(count / units) > most + 1e-9]
    return min(over, default=units) - 1


@pytest.mark.parametrize("shape", SHAPES)
def test_what_prunable_at_is_found_within_the_resolution(shape: str) -> None:
    made = Made(*[SHAPES[shape]] * 3)
    found = analyse(made.start(), made, lambda *_: None)
    for loss in TOLERANCES:
        expected = min(crossing(SHAPES[shape], loss), 98)
        for curve in found.curves:
            held = found.prunable_within(curve, loss)
            assert held <= expected
            assert expected - held <= 3 * RESOLUTION * 100  # a step of 5 points, and what is not worth another
    assert made.measured <= 3 * 7


def test_it_takes_fewer_measurements_than_the_grid() -> None:
    made = Made(*[loss for loss in SHAPES.values() for _ in range(5)])
    analyse(made.start(), made, lambda *_: None)
    assert made.measured < len(made.losses) * 9 / 1.7


def test_a_group_that_bears_all_is_measured_once() -> None:
    made = Made(SHAPES["flat"])
    found = analyse(made.start(), made, lambda *_: None)
    assert made.measured == 1
    assert found.prunable_within(found.curves[0], 0.005) == 98


def test_a_hopeless_group_is_measured_little() -> None:
    made = Made(lambda s: 0.3 if s else 0.0)
    found = analyse(made.start(), made, lambda *_: None)
    assert made.measured <= 1
    assert found.prunable_within(found.curves[0], 0.05) == 0


@pytest.mark.parametrize("factor", [0.3, 1.0, 5.0, 40.0])
def test_what_is_said_to_hold_was_measured_to_hold_on_noisy_curves(factor: float) -> None:
    made = Made(*[loss for loss in SHAPES.values() for _ in range(3)], drift_of_loss=factor, noise=0.005)
    found = analyse(made.start(), made, lambda *_: None)
    for curve in found.curves:
        measured = {point.dropped: found.loss(point) for point in curve.points}
        for loss in TOLERANCES:
            held = found.prunable_within(curve, loss)
            assert held == 0 or measured[held] <= loss
    assert made.measured < len(made.losses) * 9


@pytest.mark.parametrize("units", [2, 3, 5])
def test_small_groups(units: int) -> None:
    made = Made(SHAPES["line"], SHAPES["flat"])
    found = analyse(made.start(units), made, lambda *_: None)
    assert found.prunable_within(found.curves[1], 0.005) == units - 1


def test_a_later_round_leaves_what_is_gone() -> None:
    made = Made(SHAPES["line"])
    later = replace(made.start(), curves=(replace(made.curves()[0], gone=15),), start=BASELINE - 0.015)
    found = analyse(later, made, lambda *_: None)
    assert found.prunable_within(found.curves[0], 0.01) == 15
    assert found.prunable_within(found.curves[0], 0.05) in range(40, 51)
    assert all(point.dropped > 15 for point in found.curves[0].points)


def test_a_wrong_guess_rules_nothing_out() -> None:
    """Drifts of 40 times the loss: by what is guessed before any measurement no group could lose a channel."""
    made = Made(*[SHAPES["line"]] * 4, drift_of_loss=40)
    found = analyse(made.start(), made, lambda *_: None)
    assert [found.prunable_within(curve, 0.05) for curve in found.curves[1:]] == pytest.approx([45] * 3, abs=10)


def test_what_was_not_measured_whole_never_holds() -> None:
    curve = Curve((0,), 100, tuple(range(100)), 0, (Point(30, 0.795), Point(60, 0.795, share=0.5)))
    found = replace(Made(SHAPES["line"]).start(), curves=(curve,))
    assert found.prunable_within(curve, 0.01) == 30
    assert prunable_count(found, curve, 0.01, "prefix") == 30


def test_what_was_given_up_for_a_small_loss_is_measured_for_a_larger_one() -> None:
    made = Made(SHAPES["line"])
    given_up = replace(made.curves()[0], points=(Point(45, BASELINE - 0.02, share=0.25),), proxy=((45, 0.09),))
    first = replace(made.start(), options=AnalysisOptions(tolerances=(0.01,)), curves=(given_up,))
    found = analyse(first.asked_for(AnalysisOptions(tolerances=(0.05,))), made, lambda *_: None)
    assert found.prunable_within(found.curves[0], 0.05) in range(40, 51)
    counts = [point.dropped for point in found.curves[0].points]
    assert counts == sorted(set(counts))


def test_it_resumes_anywhere_and_ends_the_same(tmp_path: Path) -> None:
    made = Made(*SHAPES.values(), noise=0.003)
    file = tmp_path / "sensitivity.json"
    saved: list[bytes] = []

    def save(so_far: Sensitivity, curve: Curve) -> None:
        so_far.save(file)
        saved.append(file.read_bytes())

    whole = analyse(made.start(), made, save)
    assert Sensitivity.load(file) == whole
    last = saved[-1]
    for content in saved[::3]:
        file.write_bytes(content)
        again = analyse(Sensitivity.load(file), made, lambda so_far, _: so_far.save(file))
        assert again == whole
        assert file.read_bytes() == last


def test_a_grid_is_measured_whole() -> None:
    made = Made(SHAPES["line"], SHAPES["cliff"])
    start = replace(made.start(), options=AnalysisOptions(sparsities=(0.25, 0.5, 0.75)))
    found = analyse(start, made, lambda *_: None)
    assert [[point.dropped for point in curve.points] for curve in found.curves] == [[25, 50, 75]] * 2


def test_more_losses_only_add_to_what_is_there() -> None:
    made = Made(*SHAPES.values())
    first = analyse(made.start(), made, lambda *_: None)
    before = made.measured
    more = analyse(first.asked_for(AnalysisOptions(tolerances=(0.08,))), made, lambda *_: None)
    assert more.tolerances == (0.005, 0.01, 0.02, 0.05, 0.08)
    assert before < made.measured < before + 3 * len(SHAPES)
    assert analyse(more, made, lambda *_: None) == more


def test_the_expectation_follows_what_was_measured() -> None:
    made = Made(*[SHAPES["line"]] * 6, drift_of_loss=0.5)
    found = analyse(made.start(), made, lambda *_: None)
    expected = Expectation.of(found)
    for loss in (0.01, 0.03, 0.06):
        assert expected.at(0.5 * loss) == pytest.approx(loss, rel=0.3)


def test_drift_is_interpolated_between_what_was_looked_at() -> None:
    curve = Curve((0,), 100, tuple(range(100)), 10, (), ((20, 0.01), (40, 0.04), (80, 0.64)))
    assert output_error_at(curve, 10) == 0
    assert output_error_at(curve, 15) == pytest.approx(0.005)
    assert [output_error_at(curve, count) for count in (20, 40, 80)] == pytest.approx([0.01, 0.04, 0.64])
    assert output_error_at(curve, 60) == pytest.approx(0.16)
    assert output_error_at(curve, 99) == pytest.approx(0.64)


@pytest.mark.parametrize("seed", range(5))
def test_the_rising_fit_is_the_least_squares_one(seed: int) -> None:
    """Against its dual characterisation: the slopes of the greatest convex minorant of the cumulated sums."""
    rng = np.random.default_rng(seed)
    values, weights = rng.normal(size=12).cumsum(), rng.uniform(0.2, 2, 12)
    fit = monotone(values, weights)
    assert (np.diff(fit) >= 0).all()
    sums, ends = np.append(0, np.cumsum(values * weights)), np.append(0, np.cumsum(weights))
    for place in range(12):  # max-min formula
        means = [
            min((sums[high + 1] - sums[low]) / (ends[high + 1] - ends[low]) for high in range(place, 12))
            for low in range(place + 1)
        ]
        assert fit[place] == pytest.approx(max(means))
