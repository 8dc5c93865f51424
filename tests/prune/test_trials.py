"""Trials of single groups give what cutting and measuring the whole network gives."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from yoloprune.darknet.data import load_split, read_data
from yoloprune.darknet.dialect import ALEXEYAB
from yoloprune.darknet.model import load
from yoloprune.darknet.network import Network
from yoloprune.detect.boxes import Detections
from yoloprune.detect.front import Front
from yoloprune.detect.match import claims
from yoloprune.detect.measure import DetectionMeasure, load_measure, network_for_measuring
from yoloprune.detect.pictures import Pictures
from yoloprune.prune.channels import trace
from yoloprune.prune.cutter import Cutter
from yoloprune.prune.trials import LOOKED_AT, Trials

ROOT = Path(__file__).resolve().parents[2]


NONE = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, np.float32))
NOTHING = claims([NONE], [np.zeros((0, 5), np.float32)], 1)[0]
"""Found in a picture."""


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> Trials:
    """The built-in net on 16 drawn pictures, refitted on 16 others."""
    from make_shapes import write as draw_set

    folder = tmp_path_factory.mktemp("trials") / "set"
    draw_set(folder, {"train": 16, "valid": 16}, 160, 3, 1, force=False)
    model = load(ROOT / "cfg" / "shapes.cfg", ROOT / "weights" / "shapes.weights", ALEXEYAB)
    data = read_data(folder / "shapes.data")
    measure = load_measure(model.graph, data)
    train = load_split(data, "train", ALEXEYAB, classes=model.graph.classes, labels=False)
    batches = [batch.inputs for batch in Pictures(train.images, model.graph, "stretch")]
    channels = trace(model.graph)
    cutter = Cutter(model, channels, channels.all_kept(), lambda: batches)
    found = [each for batch in measure.run(network_for_measuring(model)) for each in batch]
    return Trials(cutter, measure, lambda: found)


def test_a_point_is_what_the_whole_network_measures(trials: Trials) -> None:
    for curve in trials.cutter.first_curves("l1"):
        dropped = curve.atoms // 2
        point = trials.point(curve, dropped)
        cut = trials.cutter.alone(curve.keep(trials.cutter.channels, trials.cutter.keep, dropped))
        # The first reader's own sums run over other zeros, so rounding may move a probability, not a rank.
        assert point.accuracy == pytest.approx(trials.measure.accuracy(network_for_measuring(cut)), abs=2e-3)
        assert point.share == 1
        assert point.interval is not None
        low, high = point.interval
        assert low <= high
        assert low - 0.05 <= trials.baseline - point.accuracy <= high + 0.05


def test_drift_grows_with_the_cut_from_nothing(trials: Trials) -> None:
    for curve in trials.cutter.first_curves("l1"):
        drifts = [trials.drift(curve, round(share * curve.atoms)) for share in (0, 0.3, 0.9)]
        assert drifts[0] < 1e-8
        assert drifts[0] < drifts[1] < drifts[2]
        assert math.isfinite(drifts[2])


def test_drift_is_of_what_the_heads_rank_by(trials: Trials) -> None:
    """Of whole networks, on all pictures: there are as many as are looked at."""
    curve, cutter = trials.cutter.first_curves("l1")[1], trials.cutter
    cut = cutter.alone(curve.keep(cutter.channels, cutter.keep, 5))
    heads = cutter.model.graph.detection_heads
    before, after = (
        torch.cat(
            [
                torch.cat([head.scores(outputs[head.index]) for head in heads], 1)
                for outputs in (network(batch.inputs) for batch in trials.measure.pictures)
            ]
        ).double()
        for network in (network_for_measuring(model).requires_grad_(False) for model in (cutter.model, cut))
    )
    assert len(before) == LOOKED_AT
    expected = float((after - before).square().sum() / before.square().sum())
    assert trials.drift(curve, 5) == pytest.approx(expected, rel=1e-4)


def test_a_cut_network_that_overflows_says_nothing(trials: Trials, monkeypatch: pytest.MonkeyPatch) -> None:
    curve, cutter = trials.cutter.first_curves("l1")[1], trials.cutter
    heads = {head.sources[0] for head in cutter.model.graph.detection_heads}
    spoilt = [
        {name: np.full_like(array, np.nan) for name, array in arrays.items()} if index in heads else arrays
        for index, arrays in enumerate(cutter.model.weights.layers)
    ]
    model = cutter.model.with_weights(replace(cutter.model.weights, layers=tuple(spoilt)))
    monkeypatch.setattr(Cutter, "alone", lambda *_: model)
    assert trials.drift(curve, curve.atoms - 2) == 1
    assert trials.point(curve, curve.atoms - 2).accuracy == 0


def test_a_hopeless_cut_is_given_up_early_and_said_so(trials: Trials) -> None:
    curve = max(trials.cutter.first_curves("l1"), key=lambda each: trials.drift(each, each.atoms - 1))
    whole = trials.point(curve, curve.atoms - 1)
    assert trials.baseline - whole.accuracy > 0.3
    early = trials.point(curve, curve.atoms - 1, most=0.01)
    assert early.share == 0.25
    assert 0.1 < trials.baseline - early.accuracy < trials.baseline - whole.accuracy
    assert trials.point(curve, curve.atoms - 1, most=2.0) == whole


def test_in_later_rounds_unseen_pictures_count_as_before_this_cut(trials: Trials) -> None:
    """And losses from the original still: here what is cut finds nothing any more."""
    curve = max(trials.cutter.first_curves("l1"), key=lambda each: trials.drift(each, each.atoms - 1))
    found = trials.measure.found(network_for_measuring(trials.cutter.model))
    later = Trials(trials.cutter, trials.measure, lambda: [NOTHING] * len(found), lambda: found)
    assert later.baseline == trials.baseline
    first, other = (each.point(curve, curve.atoms - 1, most=0.01) for each in (trials, later))
    assert other.share == 0.25
    assert other.accuracy < first.accuracy - 0.1


def test_what_was_looked_at_is_not_looked_at_again(trials: Trials, monkeypatch: pytest.MonkeyPatch) -> None:
    curve, dropped = trials.cutter.first_curves("l1")[1], 3
    expected = trials.point(curve, dropped)
    trials.drift(curve, dropped + 1)  # else it is looked at no more
    seen: list[int] = []
    outputs = Front.outputs

    def counted(front: Front, network: Network, behind: int = 0) -> Iterator[Any]:
        for batch, each in outputs(front, network, behind):
            seen.append(len(batch.sizes))
            yield batch, each

    monkeypatch.setattr(Front, "outputs", counted)
    trials.drift(curve, dropped)
    assert trials.point(curve, dropped) == expected
    assert sum(seen) == len(trials.measure.pictures)


def test_the_pictures_with_the_most_at_stake_tell_most_of_a_loss(trials: Trials) -> None:
    """What the original's findings in a picture add to its accuracy goes if they do, about."""
    found = trials.measure.found(network_for_measuring(trials.cutter.model))
    outcome = trials.measure.outcome(found)
    stakes = outcome.stakes
    assert 0.3 * 1 + 0.7 * outcome.accuracy == pytest.approx(stakes.sum())

    def lost(numbers: list[int]) -> float:
        return (
            outcome.accuracy
            - trials.measure.outcome(
                [NOTHING if number in numbers else each for number, each in enumerate(found)]
            ).accuracy
        )

    order = np.argsort(-stakes)
    halves = lost(order[:8].tolist()), lost(order[8:].tolist())
    assert halves[0] > halves[1] > 0
    assert sum(halves) == pytest.approx(outcome.accuracy, rel=0.1)


def test_agreement_needs_no_labels(trials: Trials) -> None:
    measure = trials.measure
    assert isinstance(measure, DetectionMeasure)
    blind = DetectionMeasure(
        measure.graph,
        replace(measure.split, truths=tuple(np.zeros((0, 5), np.float32) for _ in measure.split.images)),
        measure.pictures,
    )
    network = network_for_measuring(trials.cutter.model)
    taught = blind.taught_by(network)
    assert taught.accuracy(network) == pytest.approx(1.0)
    assert taught.steering == "map50_agreement"
    curve = trials.cutter.first_curves("l1")[2]
    cut = trials.cutter.alone(curve.keep(trials.cutter.channels, trials.cutter.keep, curve.atoms - 1))
    assert 0 < taught.accuracy(network_for_measuring(cut)) < 1
