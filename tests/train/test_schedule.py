"""Policies that stock Darknet does not have or draws itself; the others are in test_darknet_agrees."""

from __future__ import annotations

import math

import pytest

from yoloprune.train.schedule import Schedule


def test_sgdr_falls_along_cosines_in_growing_cycles() -> None:
    schedule = Schedule(0.1, "sgdr", learning_rate_min=0.01, sgdr_cycle=10, sgdr_mult=3, max_batches=100)
    assert schedule.rate(10) == pytest.approx(0.01)
    assert schedule.rate(5) == pytest.approx(0.055)
    assert schedule.rate(11) == pytest.approx(0.01 + 0.045 * (1 + math.cos(math.pi / 30)))
    assert schedule.rate(25) == pytest.approx(0.055)
    assert schedule.rate(40) == pytest.approx(0.01)
    one = Schedule(0.1, "sgdr", learning_rate_min=0.0, max_batches=8)
    assert one.rate(8) == pytest.approx(0)


def test_sigmoid_is_a_step_down_that_never_overflows() -> None:
    schedule = Schedule(2.0, "sigmoid", gamma=5.0, step=1000)
    assert schedule.rate(1) == pytest.approx(2)
    assert schedule.rate(1000) == pytest.approx(1)
    assert schedule.rate(100000) == pytest.approx(0)
    assert schedule.rate(1001) == pytest.approx(2 / (1 + math.exp(5)))


def test_random_depends_on_seed_and_iteration_alone() -> None:
    a, b = Schedule(1.0, "random", power=2, seed=1), Schedule(1.0, "random", power=2, seed=2)
    rates = [a.rate(iteration) for iteration in range(1, 400)]
    assert rates == [a.rate(iteration) for iteration in range(1, 400)]
    assert rates != [b.rate(iteration) for iteration in range(1, 400)]
    assert sum(rates) / len(rates) == pytest.approx(1 / 3, abs=0.05)  # mean of u^2


def test_steps_are_read_up_to_the_first_that_is_still_ahead() -> None:
    schedule = Schedule(1.0, "steps", steps=(10, 5), scales=(0.5, 0.1))
    assert [schedule.rate(iteration) for iteration in (7, 10)] == [1.0, pytest.approx(0.05)]
