"""GroupEvaluator of single groups give what cutting and measuring the whole network gives."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
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
from yoloprune.darknet.predictions import Predictions
from yoloprune.detect.activation_cache import ActivationCache
from yoloprune.detect.detection_measure import DetectionMeasure
from yoloprune.detect.load import load_measure
from yoloprune.detect.measure import network_for_measuring
from yoloprune.detect.pictures import Pictures
from yoloprune.prune.channel_units import ChannelUnits
from yoloprune.prune.group_evaluator import PROXY_IMAGES, GroupEvaluator
from yoloprune.prune.pruner import Pruner

ROOT = Path(__file__).resolve().parents[2]


def without(found: Predictions, images: Sequence[int]) -> Predictions:
    """What is left if nothing is found in some images."""
    return found.replaced(images, found.rows(torch.zeros(0, dtype=torch.int64)))


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> GroupEvaluator:
    """The built-in net on 16 drawn pictures, refitted on 16 others."""
    from make_shapes import write as draw_set

    folder = tmp_path_factory.mktemp("trials") / "set"
    draw_set(folder, {"train": 16, "valid": 16}, 160, 3, 1, force=False)
    model = load(ROOT / "cfg" / "shapes.cfg", ROOT / "weights" / "shapes.weights", ALEXEYAB)
    data = read_data(folder / "shapes.data")
    measure = load_measure(model.graph, data)
    train = load_split(data, "train", ALEXEYAB, classes=model.graph.classes, labels=False)
    batches = [batch.inputs for batch in Pictures(train.images, model.graph, "stretch")]
    pruner = Pruner(model, ChannelUnits.of(model.graph), lambda: batches)
    found = measure.predictions(network_for_measuring(model))
    return GroupEvaluator(pruner, measure, lambda: found)


def test_a_point_is_what_the_whole_network_measures(trials: GroupEvaluator) -> None:
    for curve in trials.pruner.first_curves("l1"):
        dropped = curve.size // 2
        point = trials.point(curve, dropped)
        cut = trials.pruner.alone(curve, dropped)
        # The first reader's own sums run over other zeros, so rounding may move a probability, not a rank.
        assert point.accuracy == pytest.approx(trials.measure.accuracy(network_for_measuring(cut)), abs=2e-3)
        assert point.share == 1
        assert point.interval is not None
        low, high = point.interval
        assert low <= high
        assert low - 0.05 <= trials.baseline - point.accuracy <= high + 0.05


def test_drift_grows_with_the_cut_from_nothing(trials: GroupEvaluator) -> None:
    for curve in trials.pruner.first_curves("l1"):
        output_errors = [trials.output_error(curve, round(share * curve.size)) for share in (0, 0.3, 0.9)]
        assert output_errors[0] < 1e-8
        assert output_errors[0] < output_errors[1] < output_errors[2]
        assert math.isfinite(output_errors[2])


def test_drift_is_of_what_the_heads_rank_by(trials: GroupEvaluator) -> None:
    """Of whole networks, on all pictures: there are as many as are looked at."""
    curve, pruner = trials.pruner.first_curves("l1")[1], trials.pruner
    cut = pruner.alone(curve, 5)
    heads = pruner.model.graph.detection_heads
    before, after = (
        torch.cat(
            [
                torch.cat([head.scores(outputs[head.index]) for head in heads], 1)
                for outputs in (network(batch.inputs) for batch in trials.measure.pictures)
            ]
        ).double()
        for network in (network_for_measuring(model).requires_grad_(False) for model in (pruner.model, cut))
    )
    assert len(before) == PROXY_IMAGES
    expected = float((after - before).square().sum() / before.square().sum())
    assert trials.output_error(curve, 5) == pytest.approx(expected, rel=1e-4)


def test_a_cut_network_that_overflows_says_nothing(trials: GroupEvaluator, monkeypatch: pytest.MonkeyPatch) -> None:
    curve, pruner = trials.pruner.first_curves("l1")[1], trials.pruner
    heads = {head.sources[0] for head in pruner.model.graph.detection_heads}
    spoilt = [
        {name: np.full_like(array, np.nan) for name, array in arrays.items()} if index in heads else arrays
        for index, arrays in enumerate(pruner.model.weights.layers)
    ]
    model = pruner.model.with_weights(replace(pruner.model.weights, layers=tuple(spoilt)))
    monkeypatch.setattr(Pruner, "alone", lambda *_: model)
    assert trials.output_error(curve, curve.size - 2) == 1
    assert trials.point(curve, curve.size - 2).accuracy == 0


def test_a_hopeless_cut_is_given_up_early_and_said_so(trials: GroupEvaluator) -> None:
    curve = max(trials.pruner.first_curves("l1"), key=lambda each: trials.output_error(each, each.size - 1))
    whole = trials.point(curve, curve.size - 1)
    assert trials.baseline - whole.accuracy > 0.3
    early = trials.point(curve, curve.size - 1, most=0.01)
    assert early.share == 0.25
    assert 0.1 < trials.baseline - early.accuracy < trials.baseline - whole.accuracy
    assert trials.point(curve, curve.size - 1, most=2.0) == whole


def test_in_later_rounds_unseen_pictures_count_as_before_this_cut(trials: GroupEvaluator) -> None:
    """And losses from the original still: here what is cut finds nothing any more."""
    curve = max(trials.pruner.first_curves("l1"), key=lambda each: trials.output_error(each, each.size - 1))
    found = trials.measure.predictions(network_for_measuring(trials.pruner.model))
    later = GroupEvaluator(trials.pruner, trials.measure, lambda: without(found, range(16)), lambda: found)
    assert later.baseline == trials.baseline
    first, other = (each.point(curve, curve.size - 1, most=0.01) for each in (trials, later))
    assert other.share == 0.25
    assert other.accuracy < first.accuracy - 0.1


def test_what_was_looked_at_is_not_looked_at_again(trials: GroupEvaluator, monkeypatch: pytest.MonkeyPatch) -> None:
    curve, dropped = trials.pruner.first_curves("l1")[1], 3
    expected = trials.point(curve, dropped)
    trials.output_error(curve, dropped + 1)  # else it is looked at no more
    seen: list[int] = []
    outputs = ActivationCache.outputs

    def counted(cache: ActivationCache, network: Network, skip: int = 0) -> Iterator[Any]:
        for batch, each in outputs(cache, network, skip):
            seen.append(len(batch.sizes))
            yield batch, each

    monkeypatch.setattr(ActivationCache, "outputs", counted)
    trials.output_error(curve, dropped)
    assert trials.point(curve, dropped) == expected
    assert sum(seen) == len(trials.measure.pictures)


def test_the_pictures_with_the_most_at_stake_tell_most_of_a_loss(trials: GroupEvaluator) -> None:
    """What the original's findings in a picture add to its accuracy goes if they do, about."""
    found = trials.measure.predictions(network_for_measuring(trials.pruner.model))
    outcome = trials.measure.outcome(found)
    contributions = outcome.contributions
    assert 0.3 * 1 + 0.7 * outcome.accuracy == pytest.approx(contributions.sum())

    def lost(numbers: list[int]) -> float:
        return outcome.accuracy - trials.measure.outcome(without(found, numbers)).accuracy

    order = np.argsort(-contributions)
    halves = lost(order[:8].tolist()), lost(order[8:].tolist())
    assert halves[0] > halves[1] > 0
    assert sum(halves) == pytest.approx(outcome.accuracy, rel=0.1)


def test_agreement_needs_no_labels(trials: GroupEvaluator) -> None:
    measure = trials.measure
    assert isinstance(measure, DetectionMeasure)
    blind = DetectionMeasure(
        measure.graph,
        replace(measure.split, truths=tuple(np.zeros((0, 5), np.float32) for _ in measure.split.images)),
        measure.pictures,
    )
    network = network_for_measuring(trials.pruner.model)
    taught = blind.supervised_by(network)
    assert taught.accuracy(network) == pytest.approx(1.0)
    assert taught.steering == "map50_agreement"
    curve = trials.pruner.first_curves("l1")[2]
    cut = trials.pruner.alone(curve, curve.size - 1)
    assert 0 < taught.accuracy(network_for_measuring(cut)) < 1
