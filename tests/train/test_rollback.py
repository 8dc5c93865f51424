"""No run ends below its start unnoticed, and where numbers end it goes on from before, as if nothing had happened."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from tests.train.test_loop import drawn_images, fresh, raise_interrupt, same, stop_at
from yoloprune.darknet.data import Split
from yoloprune.darknet.network import Network
from yoloprune.errors import InputError, InputWarning
from yoloprune.train import run_folder
from yoloprune.train.chart import plot_training
from yoloprune.train.loop import Evaluation, Resources, Trained, train
from yoloprune.train.optimizer import Optimizer
from yoloprune.train.progress import TrainingProgress
from yoloprune.train.recipe import Recipe
from yoloprune.train.schedule import Schedule
from yoloprune.train.trainer import Trainer

RATE = 0.002


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Split:
    return drawn_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(autouse=True)
def no_charts(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take more time than all else here."""
    monkeypatch.setattr(run_folder, "plot_training", lambda *of: None)


def plain_metric(network: Network) -> float:
    return float(sum(tensor.detach().sum() for tensor in network.parameters()))


def plain_recipe(*steps: int, scales: tuple[float, ...] = ()) -> Recipe:
    """Eight updates, a checkpoint every other and a measurement every third; at each of `steps` the rate is scaled."""
    recipe = fresh()[1]
    schedule = Schedule(RATE, policy="steps", steps=steps, scales=scales)
    return replace(recipe, iterations=8, schedule=schedule, checkpoint_every=2, evaluate_every=3)


def run(
    images: Split,
    folder: Path,
    recipe: Recipe,
    *,
    evaluate: Callable[[Network], float] = plain_metric,
    start: float | None = None,
    workers: int = 0,
    progress: Callable[[TrainingProgress], None] = lambda progress: None,
) -> Trained:
    evaluation, resources = Evaluation(evaluate, start=start), Resources(workers=workers)
    options: dict[str, Any] = {"evaluation": evaluation, "resources": resources, "progress": progress}
    return train(fresh()[0], images, recipe, folder=folder, seed=5, **options)


def spoil(monkeypatch: pytest.MonkeyPatch, value: float, updates: dict[int, float]) -> None:
    """Updates after which a bias in front of the head is `value`, each while the rate is at least so much of RATE."""
    original = Optimizer.step

    def step(optimizer: Optimizer, iteration: int, rate: float) -> None:
        original(optimizer, iteration, rate)
        if rate >= RATE * updates.get(iteration, math.inf):
            with torch.no_grad():
                optimizer._parameters[3][0].flatten()[2] = value

    monkeypatch.setattr(Optimizer, "step", step)


def warning_run(images: Split, folder: Path, recipe: Recipe, **options: Any) -> tuple[Trained, list[str]]:
    """A run, and what it warned of."""
    with pytest.warns(InputWarning) as told:
        found = run(images, folder, recipe, **options)
    return found, [str(each.message) for each in told]


@pytest.mark.parametrize(("value", "ends_at"), [(math.inf, 4), (math.nan, 4), (3e30, 5)])
@pytest.mark.parametrize("workers", [0, 2])
def test_it_goes_on_from_the_last_good_state_at_half_the_rate(
    images: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float, ends_at: int, workers: int
) -> None:
    """3e30 is a number, but the next loss is none: what is behind update 4 is no good state, though it is marked."""
    with monkeypatch.context() as patch:
        spoil(patch, value, {4: 1.0})
        found, told = warning_run(images, tmp_path / "spoilt", plain_recipe(), workers=workers)
    expected = run(images, tmp_path / "plain", plain_recipe(3, scales=(0.5,)))
    assert found.history == expected.history  # loss, average, rate and metric of every update, bit for bit
    assert same(found.last, expected.last)
    assert same(found.best, expected.best)
    assert (tmp_path / "spoilt" / run_folder.LOG).read_text() == (tmp_path / "plain" / run_folder.LOG).read_text()
    where = "layer 3 [convolutional], " if ends_at == 4 else "the loss of layer 4 [yolo]"
    assert len(told) == 1
    assert f"iteration {ends_at}: " in told[0]
    assert f"first in {where}" in told[0]
    assert "on from iteration 2 with 1/2 of the learning rate (1 of 3 times)" in told[0]


@pytest.mark.parametrize(("ema", "adam"), [(0.9, False), (0.0, True)])
def test_interrupted_anywhere_it_ends_as_undisturbed(
    images: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ema: float, adam: bool
) -> None:
    """Update 4 ends in no numbers at the full rate, update 7 at half of it, and ever so often the run is stopped."""
    recipe = replace(plain_recipe(), ema_alpha=ema, adam=adam)
    spoil(monkeypatch, math.inf, {4: 1.0, 7: 0.5})
    expected, _ = warning_run(images, tmp_path / "whole", recipe)
    assert [record.rate for record in expected.history] == [RATE, RATE, RATE / 2, RATE / 2, *[RATE / 4] * 4]
    folder, ends = tmp_path / "parts", []
    for iteration in (1, 3, 5, 6, 7, 8):
        try:
            run(images, folder, recipe, progress=stop_at(iteration, raise_interrupt))
        except InputWarning:  # which tests take for an error: the end of a run that has just gone back
            ends.append("back")
            saved = torch.load(folder / run_folder.CHECKPOINT, weights_only=True)
            assert saved["rollbacks"] == [[4, 2], [7, 4]][: len(ends)]  # known from that moment on
        except KeyboardInterrupt:
            pass
    assert len(ends) == 2
    found = run(images, folder, recipe)
    assert found.history == expected.history
    assert same(found.last, expected.last)
    assert same(found.best, expected.best)
    assert (folder / run_folder.LOG).read_text() == (tmp_path / "whole" / run_folder.LOG).read_text()


def test_after_three_times_it_is_an_error(images: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, math.inf, {4: 0.0})
    for times in (3, 0):  # taken up again, it does not begin to count anew
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            with pytest.raises(
                InputError, match=r"iteration 4: .*layer 3 \[convolutional\].* 1/8 .*lower learning rate"
            ):
                run(images, tmp_path, plain_recipe())
        shares = [f"1/{share}" in str(each.message) for share, each in zip((2, 4, 8), told, strict=False)]
        assert shares == [True] * times == [True] * len(told)
    saved = torch.load(tmp_path / run_folder.CHECKPOINT, weights_only=True)
    assert all(tensor.isfinite().all() for tensor in saved["network"].values())


def test_a_state_whose_loss_has_blown_up_is_none_to_go_back_to(
    images: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Trainer.update

    def update(trainer: Trainer, parts: Any, iteration: int, rate: float) -> tuple[float, str]:
        loss, _ = original(trainer, parts, iteration, rate)
        if rate < RATE:
            return loss, ""
        return (loss * 1000 if iteration == 4 else loss), ("made up" if iteration == 7 else "")

    monkeypatch.setattr(Trainer, "update", update)
    _, told = warning_run(images, tmp_path, plain_recipe())
    assert "on from iteration 2" in told[0]


def test_a_best_from_before_stays_and_what_was_undone_is_measured_anew(
    images: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, math.inf, {5: 1.0})
    seen: list[dict[str, torch.Tensor]] = []
    metrics = iter([0.9, 0.1, 0.3])

    def evaluate(network: Network) -> float:
        seen.append({name: tensor.clone() for name, tensor in network.state_dict().items()})
        return next(metrics)

    recipe = replace(plain_recipe(), evaluate_every=4, checkpoint_every=3, ema_alpha=0.0, patience=2)
    found, _ = warning_run(images, tmp_path, recipe, evaluate=evaluate)
    assert [record.metric for record in found.history] == [None, None, None, 0.1, None, None, None, 0.3]
    assert (found.best_metric, found.best_iteration, found.best.header.seen) == (0.9, 4, 24)
    np.testing.assert_array_equal(found.best.layers[0]["weight"], seen[0]["layers.0.weight"])


def counted(values: list[float]) -> Callable[[Network], float]:
    """Metrics in turn; StopIteration if one more is asked for."""
    turn: Iterator[float] = iter(values)
    return lambda network: next(turn)


@pytest.mark.parametrize("known", [True, False])
def test_the_weights_to_begin_with_stay_if_nothing_is_better(images: Split, tmp_path: Path, known: bool) -> None:
    model = fresh()[0]
    recipe = replace(plain_recipe(), evaluate_start=True)
    options = {"start": 0.7} if known else {}
    first = [] if known else [0.7]
    stopping = stop_at(1, raise_interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(images, tmp_path, recipe, evaluate=counted(first), progress=stopping, **options)
    found = run(images, tmp_path, recipe, evaluate=counted([0.1, 0.6, 0.69]), **options)  # known, or measured once
    assert (found.start_metric, found.best_metric, found.best_iteration) == (0.7, 0.7, 0)
    assert same(found.best, model.weights)
    assert not same(found.last, model.weights)
    better = run(images, tmp_path / "better", recipe, evaluate=counted([*first, 0.1, 0.7, 0.69]), **options)
    assert (better.best_metric, better.best_iteration) == (0.7, 6)  # of equals the later


def test_patience_counts_from_the_start(images: Split, tmp_path: Path) -> None:
    recipe = replace(plain_recipe(), evaluate_every=1, patience=3)
    found = run(images, tmp_path / "known", recipe, start=0.5, evaluate=counted([0.4, 0.5, 0.3]))
    assert (len(found.history), found.best_iteration) == (3, 2)
    found = run(images, tmp_path / "unknown", recipe, evaluate=counted([0.4, 0.5, 0.3, 0.2, 0.1]))
    assert (found.start_metric, len(found.history)) == (None, 5)


def test_the_chart_shows_the_start(tmp_path: Path) -> None:
    reds = []
    for start in (None, 0.5):
        plot_training((), 10, tmp_path / "chart.png", start)
        blue, green, red = cv2.imread(str(tmp_path / "chart.png")).astype(int).transpose(2, 0, 1)
        reds.append(int(((red > 180) & (green < 80) & (blue < 80)).sum()))
    assert reds[0] == 0 < reds[1]
