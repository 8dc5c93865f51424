"""Choosing by trade, on made curves with known answers."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from tests.helpers import graph_of
from tests.prune.test_plan import curve, of
from yoloprune.errors import InputError
from yoloprune.prune import allocate
from yoloprune.prune.allocate import (
    ThresholdAllocator,
    added_loss,
    drop_useless_pruning,
    loss_for_total,
    noise,
    removed_share,
)
from yoloprune.prune.channel_units import ChannelUnits
from yoloprune.prune.cost import flops
from yoloprune.prune.lagrangian import LagrangianAllocator
from yoloprune.prune.limits import Limits
from yoloprune.prune.search import output_error_at
from yoloprune.prune.sensitivity import Sensitivity, monotone

CONV = "[convolutional]\nactivation=leaky\nsize=1\nfilters="
CFG = f"[net]\nwidth=8\nheight=8\nchannels=3\n{CONV}16\n[maxpool]\nsize=2\nstride=2\n{CONV}16\n{CONV}16\n{CONV}5\n"
"""Groups 0, 2 and 3 of 16 channels each; what 0 makes is four times as large."""
GRAPH = graph_of(CFG)
ORDERS = {label: range(16) for label in ("0", "2", "3")}
UNITS = ChannelUnits.of(GRAPH)
COSTS = UNITS.costs(flops(GRAPH), ORDERS)


def curves(*losses: dict[int, float]) -> Sensitivity:
    """One set of losses for each of the groups."""
    return of(*(curve(each, units=16, producers=(index,)) for index, each in zip((0, 2, 3), losses, strict=True)))


@pytest.fixture
def no_doubt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the answers can be worked out by hand."""
    monkeypatch.setattr(allocate, "_DEVIATIONS", 0.0)


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([0.0, 0.01, 0.05], [0.0, 0.01, 0.05]),  # monotone
        ([0.0, 0.02, 0.0], [0.0, 0.01, 0.01]),  # noisy
        ([0.0, -0.02, -0.01, 0.03], [-0.01, -0.01, -0.01, 0.03]),  # gains
        ([0.0, 0.0, 0.0], [0.0, 0.0, 0.0]),  # flat
        ([0.0, 0.0, 0.8, 0.7], [0.0, 0.0, 0.75, 0.75]),  # a cliff
        ([], []),
    ],
)
def test_monotone(losses: list[float], expected: list[float]) -> None:
    np.testing.assert_allclose(monotone(np.array(losses), np.ones(len(losses))), expected, atol=1e-12)


def test_monotone_is_the_least_squares_one() -> None:
    rng = np.random.default_rng(1)
    for _ in range(5):
        losses = rng.choice(np.linspace(-1, 1, 9), 3)
        best = min(
            sum((np.array(trial) - losses) ** 2) for trial in product(np.linspace(-1, 1, 25), repeat=3)
            if all(np.diff(trial) >= 0)
        )  # fmt: skip
        found = monotone(losses, np.ones(3))
        assert all(np.diff(found) >= 0)
        assert sum((found - losses) ** 2) <= best + 1e-12


def test_added_loss_counts_from_the_start_and_is_never_a_gain() -> None:
    behind = of(curve({4: -0.05, 8: 0.03, 12: 0.07}, units=16, gone=2), start=0.79)
    np.testing.assert_allclose(
        added_loss(behind, behind.curves[0], [2, 4, 6, 8, 12]), [0, 0, 0, 0.02, 0.06], atol=1e-12
    )


def test_noise() -> None:
    assert noise(curves({8: 0.01, 15: 0.02}, {8: 0.0, 15: 0.0}, {})) == 0
    assert noise(curves({8: 0.03, 15: 0.01}, {8: -0.01, 15: 0.0}, {})) == pytest.approx(0.01 * np.sqrt(3 / 4))


def best_of_all(sensitivity: Sensitivity, ratio: float) -> float:
    """The least sum of losses over all choices that remove the ratio, by trying each."""
    by_group = [added_loss(sensitivity, each, range(16)) for each in sensitivity.curves]
    best = np.inf
    for counts in product(range(16), repeat=3):
        allocation = {each.label: count for each, count in zip(sensitivity.curves, counts, strict=True)}
        loss = sum(float(losses[count]) for losses, count in zip(by_group, counts, strict=True))
        if loss < best and removed_share(COSTS, allocation) >= ratio:
            best = loss
    return float(best)


@pytest.mark.parametrize("ratio", [0.2, 0.5, 0.7])
@pytest.mark.parametrize(
    "losses",
    [
        ({5: 0.01, 10: 0.03, 15: 0.09}, {5: 0.01, 10: 0.03, 15: 0.09}, {5: 0.01, 10: 0.03, 15: 0.09}),  # alike
        ({5: 0.0, 10: 0.0, 15: 0.0}, {5: 0.01, 10: 0.02, 15: 0.05}, {5: 0.05, 10: 0.1, 15: 0.2}),  # one is flat
        ({5: 0.0, 10: 0.5, 15: 0.5}, {5: 0.0, 10: 0.0, 15: 0.6}, {5: 0.01, 10: 0.02, 15: 0.03}),  # cliffs
        ({5: 0.02, 10: 0.01, 15: 0.08}, {5: -0.02, 10: 0.03, 15: 0.02}, {5: 0.0, 10: 0.03, 15: 0.02}),  # noisy, gains
    ],
)
def test_ratio_is_met_at_about_the_least_loss(
    no_doubt: None, losses: tuple[dict[int, float], ...], ratio: float
) -> None:
    sensitivity = curves(*losses)
    allocation = LagrangianAllocator(sensitivity, Limits(), COSTS).for_ratio(ratio)
    found = sum(float(added_loss(sensitivity, each, [allocation[each.label]])[0]) for each in sensitivity.curves)
    assert removed_share(COSTS, allocation) >= ratio
    assert (
        found <= best_of_all(sensitivity, ratio) * 1.2 + 0.003
    )  # prices only reach corners; the rest is a straight way
    threshold = ThresholdAllocator(sensitivity, Limits(), COSTS, "interpolated").for_ratio(ratio)
    assert found <= sum(float(added_loss(sensitivity, each, [threshold[each.label]])[0]) for each in sensitivity.curves)


def test_with_doubt_no_group_is_emptied_for_nothing() -> None:
    flat = curves(*[{5: 0.0, 10: 0.0, 15: 0.0}] * 3)
    allocation = LagrangianAllocator(flat, Limits(), COSTS).for_ratio(0.5)
    assert max(allocation.values()) < 12
    assert min(allocation.values()) > 0


def test_thresholds_take_the_smallest_that_reaches_the_ratio() -> None:
    sensitivity = curves({8: 0.05, 15: 0.2}, {8: 0.1, 15: 0.3}, {8: 0.1, 15: 0.3})
    way = ThresholdAllocator(sensitivity, Limits(), COSTS, "interpolated")
    allocation = way.for_ratio(0.5)
    assert removed_share(COSTS, allocation) >= 0.5
    largest = max(float(added_loss(sensitivity, each, [allocation[each.label]])[0]) for each in sensitivity.curves)
    assert removed_share(COSTS, way.at(largest - 1e-3)) < 0.5


@pytest.mark.parametrize("rule", ["trade", "thresholds"])
def test_a_ratio_that_cannot_be(rule: str) -> None:
    sensitivity = curves({8: 0.0}, {8: 0.0}, {8: 0.0})
    way = (
        LagrangianAllocator(sensitivity, Limits(), COSTS)
        if rule == "trade"
        else ThresholdAllocator(sensitivity, Limits(), COSTS, "interpolated")
    )
    assert 0.6 < removed_share(COSTS, way.for_ratio(0.6)) + 1e-9 < 0.7
    with pytest.raises(InputError, match=r"at most 0\.6"):
        way.for_ratio(0.9)


def test_limits_hold_in_a_trade() -> None:
    sensitivity = curves(*[{5: 0.001, 10: 0.002, 15: 0.003}] * 3)
    limits = Limits(exclude=frozenset({2}), multiple=4, min_keep=8)
    allocation = LagrangianAllocator(sensitivity, limits, COSTS).for_ratio(0.3)
    assert allocation["2"] == 0
    assert all(allocation[label] in (0, 4, 8) for label in ("0", "3"))


@pytest.mark.parametrize("seed", range(5))
def test_total_loss_with_noisy_joint_losses(seed: int) -> None:
    """What is taken was measured to hold, and is near the most that holds without noise."""
    rng = np.random.default_rng(seed)
    sensitivity = curves({8: 0.01, 15: 0.03}, {8: 0.02, 15: 0.05}, {8: 0.01, 15: 0.1})
    market = LagrangianAllocator(sensitivity, Limits(), COSTS)
    measured: dict[float, float] = {}

    def true_loss(loss: float) -> float:
        return 1.5 * market.loss(market.at(loss))  # together they lose more than alone

    def joint_loss(loss: float) -> float:
        measured[loss] = true_loss(loss) + rng.normal(0, 0.002)
        return measured[loss]

    found = loss_for_total(joint_loss, 0.05, market.most())
    assert found is not None
    assert measured[found] <= 0.05 + 1e-9
    assert true_loss(found) == pytest.approx(0.05, abs=0.02)


def test_choices_grow_with_the_loss() -> None:
    sensitivity = curves({8: 0.01, 15: 0.03}, {8: 0.02, 15: 0.05}, {8: 0.01, 15: 0.1})
    market = LagrangianAllocator(sensitivity, Limits(), COSTS)
    shares = [removed_share(COSTS, market.at(loss)) for loss in (0, 0.01, 0.03, 0.1, 1)]
    assert shares[0] == 0
    assert shares == sorted(shares)
    assert set(market.at(market.most()).values()) == {15}


def test_what_saves_nothing_stays() -> None:
    def steps(index: int, inputs: tuple[int, ...], output: int) -> float:
        """Time by fours of what is given, whatever is read."""
        return -(-output // 4) * 4.0

    costs = UNITS.costs(steps, ORDERS)
    sensitivity = curves({15: 0.0}, {15: 0.0}, {15: 0.0})
    allocation = drop_useless_pruning(sensitivity, Limits(), costs, {"0": 7, "2": 3, "3": 8})
    assert allocation == {"0": 4, "2": 0, "3": 8}
    assert costs.total(allocation) == costs.total({"0": 7, "2": 3, "3": 8})
    plain = {"0": 7, "2": 3, "3": 8}
    assert drop_useless_pruning(sensitivity, Limits(), COSTS, plain) == plain


def test_a_bump_hides_no_units_that_may_stay() -> None:
    """Measured times: a filter more takes longer, and two more take no longer again."""

    def bumpy(index: int, inputs: tuple[int, ...], output: int) -> float:
        return {9: 10.4, 10: 10.0, 11: 10.0}.get(output, float(output) if output > 11 else 10.0) if index == 2 else 1.0

    sensitivity = curves({15: 0.0}, {15: 0.0}, {15: 0.0})
    allocation = {"0": 0, "2": 8, "3": 0}
    assert drop_useless_pruning(sensitivity, Limits(), UNITS.costs(bumpy, ORDERS), allocation) == {
        "0": 0,
        "2": 5,
        "3": 0,
    }


@pytest.mark.parametrize("ratio", [0.2, 0.5])
def test_drift_decides_where_it_was_looked_at(ratio: float) -> None:
    """Measurements that say nothing, and output errors that differ: their least sum, by trying all choices."""
    screens = ([0.001, 0.1, 0.4], [0.01, 0.05, 0.5], [0.002, 0.02, 0.03])
    flat = curves(*[{5: 0.0, 10: 0.0, 15: 0.0}] * 3)
    seen = [
        replace(each, proxy=tuple(zip((5, 10, 15), output_errors, strict=True)))
        for each, output_errors in zip(flat.curves, screens, strict=True)
    ]
    sensitivity = replace(flat, curves=tuple(seen))
    allocation = LagrangianAllocator(sensitivity, Limits(), COSTS).for_ratio(ratio)
    assert removed_share(COSTS, allocation) >= ratio
    tables = [[output_error_at(each, count) for count in range(16)] for each in seen]
    least = min(
        sum(table[count] for table, count in zip(tables, counts, strict=True))
        for counts in product(range(16), repeat=3)
        if removed_share(COSTS, {"0": counts[0], "2": counts[1], "3": counts[2]}) >= ratio
    )
    found = sum(table[allocation[each.label]] for each, table in zip(seen, tables, strict=True))
    assert found <= 1.2 * least
