"""Masks that are chosen while a network trains: when, from what, what comes back, and what remembers what is gone."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.helpers import random_model
from tests.train.test_loop import NET, drawn_images, fresh, halves, raise_interrupt, stop_at
from yoloprune.darknet.data import Split
from yoloprune.darknet.mask import Mask
from yoloprune.darknet.model import Model
from yoloprune.darknet.network import Network
from yoloprune.darknet.weights import Weights
from yoloprune.errors import InputError, InputWarning
from yoloprune.train import run_folder
from yoloprune.train.distill import Teacher
from yoloprune.train.loop import Evaluation, Resources, Trained, train
from yoloprune.train.masks import Masks
from yoloprune.train.optimizer import Optimizer
from yoloprune.train.ranks import rank_of
from yoloprune.train.state import State, copied
from yoloprune.train.supervision import Supervision
from yoloprune.train.trainer import Trainer

LAYERS = (0, 1)
WEIGHTS = tuple(f"layers.{layer}.weight" for layer in LAYERS)
SHARES = {0: 0.1, 2: 0.3, 5: 0.6}


@dataclass(frozen=True)
class Growing:
    """The smallest weights of two layers go, of each layer the share that has come."""

    shares: Mapping[int, float]
    regrow: bool = True
    seen: list[tuple[int, dict[str, Tensor]]] = field(default_factory=list, compare=False)
    """What it was asked of, and when."""

    @property
    def final(self) -> int:
        return max(self.shares)

    @property
    def fingerprint(self) -> str:
        return repr(self.shares)

    def due(self, iteration: int) -> bool:
        return iteration in self.shares

    def mask(self, iteration: int, network: Network) -> Mask:
        assert not network.training
        assert rank_of() == 0
        self.seen.append((iteration, copied(network.state_dict())))
        masks: list[dict[str, np.ndarray]] = [{} for _ in network.graph.layers]
        for layer in LAYERS:
            weight = network.state_dict()[f"layers.{layer}.weight"].numpy()
            kept = np.ones(weight.size, np.bool_)
            kept[np.argsort(np.abs(weight).ravel(), kind="stable")[: int(self.shares[iteration] * weight.size)]] = False
            masks[layer]["weight"] = kept.reshape(weight.shape)
        return Mask(tuple(masks))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Split:
    return drawn_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(autouse=True)
def no_charts(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take more time than all else here."""
    monkeypatch.setattr(run_folder, "plot_training", lambda *of: None)


def plain_metric(network: Network) -> float:
    return float(sum(tensor.detach().sum() for tensor in network.parameters()))


def run(
    images: Split,
    folder: Path,
    masks: Masks,
    *,
    evaluate: Callable[[Network], float] = plain_metric,
    start: float | None = None,
    model: Model | None = None,
    text: str = NET,
    options: Mapping[str, Any] | None = None,
    **others: Any,
) -> Trained:
    """Eight updates, all of them saved and measured; options: of the recipe."""
    own, recipe = fresh(text)
    changed: dict[str, Any] = {"iterations": 8, "checkpoint_every": 1, "evaluate_every": 1, **(options or {})}
    return train(
        model or own, images, replace(recipe, **changed), folder=folder, seed=5, masks=masks,
        evaluation=Evaluation(evaluate, start=start), resources=Resources(workers=0), **others,
    )  # fmt: skip


@pytest.fixture
def saved(monkeypatch: pytest.MonkeyPatch) -> dict[int, State]:
    """What is saved, by the updates done; the latest of each."""
    states: dict[int, State] = {}
    original = run_folder.RunFolder.save

    def save(folder: run_folder.RunFolder, state: State) -> None:
        states[state.iteration] = State(**copied(vars(state)))
        original(folder, state)

    monkeypatch.setattr(run_folder.RunFolder, "save", save)
    return states


def gone(weights: Weights) -> list[int]:
    return [int((weights.layers[layer]["weight"] == 0).sum()) for layer in LAYERS]


def digest(found: Trained) -> str:
    """Of all weights and all that was measured."""
    told = hashlib.sha256(repr((found.history, found.best_metric, found.best_iteration)).encode())
    for weights in (found.last, found.best):
        for arrays in weights.layers:
            for name in sorted(arrays):
                told.update(arrays[name].tobytes())
    for tensors in found.mask.layers if found.mask else ():
        for name in sorted(tensors):
            told.update(tensors[name].tobytes())
    return told.hexdigest()


@pytest.mark.parametrize("regrow", [True, False])
@pytest.mark.parametrize("adam", [True, False])
def test_masks_come_when_they_are_due_and_hold_until_the_next(
    images: Split, tmp_path: Path, saved: dict[int, State], adam: bool, regrow: bool
) -> None:
    """Of 216 and 720 weights 10, 30 and 60 %: 21 and 72, 64 and 216, 129 and 432."""
    schedule = Growing(SHARES, regrow)
    found = run(images, tmp_path, Masks(schedule=schedule), options={"adam": adam})
    counts = [(21, 72)] * 2 + [(64, 216)] * 3 + [(129, 432)] * 4
    assert [at for at, _ in schedule.seen] == [0, 2, 5]
    for iteration, expected in enumerate(counts):
        state = saved[iteration]
        assert state.mask is not None
        assert sorted(state.mask) == sorted(WEIGHTS)
        for name, count in zip(WEIGHTS, expected, strict=True):
            kept = state.mask[name]
            assert (~kept).sum() == count
            for values in (state.network[name], (state.average or {})[name]):
                assert (values[~kept] == 0).all()
                assert (values[kept] != 0).all()
            for moment in moments(state, name):
                assert (moment[~kept] == 0).all()
                assert (moment[kept] != 0).all()
            before = saved[max(iteration - 1, 0)].mask
            assert before is not None
            if iteration not in SHARES:
                assert torch.equal(kept, before[name])
            if not regrow:
                assert not (kept & ~before[name]).any()
    for iteration, network in schedule.seen:  # chosen from the weights after that very update, and the smallest
        state = saved[iteration]
        for name in WEIGHTS:
            kept = (state.mask or {})[name]
            assert torch.equal(network[name][kept], state.network[name][kept])
            assert network[name][~kept].abs().max() <= network[name][kept].abs().min()
    assert gone(found.last) == [129, 432]
    assert found.mask is not None
    assert all(
        (found.mask.layers[layer]["weight"] == (found.last.layers[layer]["weight"] != 0)).all() for layer in LAYERS
    )
    for name in WEIGHTS:  # there was something to forget
        going = (saved[1].mask or {})[name] & ~(saved[2].mask or {})[name]
        assert all((moment[going] != 0).any() for moment in moments(saved[1], name))
        assert len(moments(saved[1], name)) == (2 if adam else 1)


def moments(state: State, name: str) -> list[Tensor]:
    """What the optimizer keeps of an array, told by its shape."""
    shape = state.network[name].shape
    kept = [value for each in state.optimizer["state"].values() for value in each.values()]
    return [value for value in kept if isinstance(value, Tensor) and value.shape == shape]


PULL = 1000.0


def pulled(monkeypatch: pytest.MonkeyPatch, places: list[int]) -> None:
    """Each update pulls weights of the first layer up: their gradient is -PULL."""
    original = Trainer._gradients

    def gradients(trainer: Trainer, parts: Any, iteration: int) -> tuple[Tensor, Tensor]:
        told = original(trainer, parts, iteration)
        weight = trainer._network.layers[0].weight
        assert isinstance(weight, Tensor)
        assert weight.grad is not None
        weight.grad[np.unravel_index(places, weight.shape)] = -PULL
        return told

    monkeypatch.setattr(Trainer, "_gradients", gradients)


def smallest(model: Model, count: int) -> list[int]:
    """Places of the first layer's smallest weights."""
    return [int(place) for place in np.argsort(np.abs(model.weights.layers[0]["weight"]).ravel())[:count]]


@pytest.mark.parametrize("adam", [True, False])
@pytest.mark.parametrize("regrow", [True, False])
def test_a_weight_comes_back_by_the_change_of_one_update(
    images: Split, tmp_path: Path, saved: dict[int, State], monkeypatch: pytest.MonkeyPatch, adam: bool, regrow: bool
) -> None:
    """Two weights are pulled up all the time. One may come back at update 3; one was pruned before, and may not.

    Adam's updates are all of a size, so there all weights may stay then.
    """
    model, recipe = fresh()
    free, held = smallest(model, 2)
    kept = np.ones(model.weights.layers[0]["weight"].size, np.bool_)
    kept[held] = False
    always = Mask(({"weight": kept.reshape(8, 3, 3, 3)}, *({} for _ in model.graph.layers[1:])))
    pulled(monkeypatch, [free, held])
    shares = {0: 0.1, 3: 0.0 if adam else 0.1}
    run(images, tmp_path, Masks(always, Growing(shares, regrow)), options={"adam": adam})
    values = [float(saved[t].network["layers.0.weight"].flatten()[free]) for t in range(9)]
    rate = recipe.schedule.rate(3)
    # A first step of momentum is the rate times the gradient. Adam's, at step 3, has (1 - b1) g / (1 - b1^3) over the
    # root of (1 - b2) g^2 / (1 - b2^3).
    first = 0.1 / (1 - 0.9**3) / math.sqrt(0.001 / (1 - 0.999**3)) if adam else PULL
    back = rate * first if regrow else 0.0
    assert values[:4] == pytest.approx([0, 0, 0, back], rel=1e-5)
    assert (min(values[4:]) > back) if regrow else (values[4:] == [0] * 5)  # on from there, with momentum
    for state in saved.values():
        assert state.network["layers.0.weight"].flatten()[held] == 0
        assert not (state.mask or {})["layers.0.weight"].flatten()[held]
        assert all(moment.flatten()[held] == 0 for moment in moments(state, "layers.0.weight"))


def test_channels_go_with_their_statistics(images: Split, tmp_path: Path, saved: dict[int, State]) -> None:
    """Every other channel, as a mask of channels has it: mean 0, variance 1, all else 0, in the average as well."""

    class Halving(Growing):
        def mask(self, iteration: int, network: Network) -> Mask:
            return halves(model)

    model, _ = fresh()
    found = run(images, tmp_path, Masks(schedule=Halving({3: 0.5, 5: 0.5})))
    for iteration in range(1, 9):
        for spec in model.graph.layers[0].tensors():
            name = f"layers.0.{spec.name}"
            for values in (saved[iteration].network[name], (saved[iteration].average or {})[name]):
                assert (values[::2] == spec.masked).all() if iteration >= 3 else (values[::2] != spec.masked).all(), (
                    name
                )
                assert (values[1::2] != spec.masked).all()
    assert found.mask is not None
    assert {name: kept.tolist() for name, kept in found.mask.layers[0].items()} == {
        name: kept.tolist() for name, kept in halves(model).layers[0].items()
    }


def test_only_the_final_mask_counts(images: Split, tmp_path: Path) -> None:
    """What is measured before stands in the history; patience counts from there, too."""
    metrics = iter([0.9, 0.8, 0.7, 0.6, 0.3, 0.2, 0.4, 0.1, 0.3, 0.4, 0.2])
    options = {"iterations": 30, "patience": 3}
    schedule = Growing(SHARES)
    found = run(
        images, tmp_path, Masks(schedule=schedule), evaluate=lambda network: next(metrics), start=0.99, options=options
    )
    measured = [0.9, 0.8, 0.7, 0.6, 0.3, 0.2, 0.4, 0.1, 0.3, 0.4]
    assert [record.metric for record in found.history] == measured
    assert (found.start_metric, found.best_metric, found.best_iteration) == (0.99, 0.4, 10)
    assert gone(found.best) == [129, 432]
    none = run(images, tmp_path / "none", Masks(schedule=Growing({8: 0.5})), start=0.99, options={"evaluate_every": 3})
    assert (none.best_iteration, [bool(record.metric) for record in none.history].count(True)) == (8, 3)
    assert gone(none.best) == [108, 360]


def test_nothing_is_the_best_before_it_is_measured_with_the_final_mask(images: Split, tmp_path: Path) -> None:
    """The start's own figure isn't, either."""
    told: list[float | None] = []
    run(
        images, tmp_path, Masks(schedule=Growing({0: 0.5, 4: 0.5})), start=0.99, options={"evaluate_start": True},
        evaluate=lambda network: 0.25, progress=lambda now: told.append(now.best),
    )  # fmt: skip
    assert told == [None] * 3 + [0.25] * 5


CASES: Mapping[str, tuple[bool, dict[str, Any]]] = {
    "momentum and average": (True, {}),
    "held": (False, {}),
    "adam": (True, {"adam": True, "bfloat16": True}),
    "no average, a frozen layer": (False, {"ema_alpha": 0.0, "frozen": frozenset({0})}),
}
"""Whether weights may come back, and the recipe."""


@pytest.mark.parametrize("case", CASES)
def test_an_interrupted_run_ends_as_an_undisturbed_one(images: Split, tmp_path: Path, case: str) -> None:
    """Stopped between two choices of a mask and right at one; checkpoints come with the stop alone."""
    regrow, recipe = CASES[case]
    options = {"checkpoint_every": 100, **recipe}
    masks = Masks(halves(fresh()[0]), Growing(SHARES, regrow))
    whole = run(images, tmp_path / "whole", masks, options=options)
    for iteration in (1, 2, 4, 5):
        with pytest.raises(KeyboardInterrupt):
            run(images, tmp_path / "parts", masks, options=options, progress=stop_at(iteration, raise_interrupt))
        held = torch.load(tmp_path / "parts" / run_folder.CHECKPOINT, weights_only=True)["mask"]
        assert all(held[name].dtype == torch.bool for name in WEIGHTS)
    assert digest(run(images, tmp_path / "parts", masks, options=options)) == digest(whole)
    assert digest(run(images, tmp_path / "parts", masks, options=options)) == digest(whole)  # it was at its end
    other = run(
        images, tmp_path / "other", Masks(masks.always, Growing({0: 0.1, 2: 0.3, 5: 0.59}, regrow)), options=options
    )
    assert digest(other) != digest(whole)


def test_it_goes_on_with_a_teacher_who_teaches_where_it_is_pruned(images: Split, tmp_path: Path) -> None:
    model = random_model(fresh()[0].graph, 4)
    masks = Masks(schedule=Growing({2: 0.2, 5: 0.5}))
    given = {"model": model, "supervision": Supervision(model)}
    whole = run(images, tmp_path / "whole", masks, **given)
    with pytest.raises(KeyboardInterrupt):
        run(images, tmp_path / "parts", masks, progress=stop_at(3, raise_interrupt), **given)
    assert digest(run(images, tmp_path / "parts", masks, **given)) == digest(whole)
    teacher = Teacher(model, None, torch.device("cpu"))
    assert sorted(teacher.wanted) == [3]
    teacher.follow(whole.mask)
    assert sorted(teacher.wanted) == [0, 1, 3]


def test_another_schedule_is_another_run(images: Split, tmp_path: Path) -> None:
    run(images, tmp_path, Masks(schedule=Growing(SHARES)))
    for masks in (Masks(), Masks(schedule=Growing({0: 0.2, 5: 0.6})), Masks(schedule=Growing(SHARES, regrow=False))):
        with pytest.raises(InputError, match=r"last\.pt: belongs to a run with other"):
            run(images, tmp_path, masks)


def test_the_final_mask_must_come_within_the_run(images: Split, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected the final mask after at most 8 iterations, found it after 9"):
        run(images, tmp_path, Masks(schedule=Growing({9: 0.5})))


def test_several_sizes_train_one_masked_network(images: Split, tmp_path: Path, saved: dict[int, State]) -> None:
    text = NET.replace("jitter=.2", "jitter=.2\nrandom=1.8").replace("burn_in=2", "burn_in=2\nresize_step=8")
    model, recipe = fresh(text)
    options: dict[str, Any] = {"iterations": 40, "sizes": replace(recipe.sizes, iterations=10000), "evaluate_every": 0}
    sizes = [options["sizes"].at(model.graph.net.input, number, 1) for number in range(1, 41)]
    found = run(images, tmp_path, Masks(schedule=Growing({10: 0.3, 30: 0.6})), text=text, options=options)
    assert len(set(sizes)) > 1
    assert [gone(found.last), gone(found.best)] == [[129, 432]] * 2
    moving = [not torch.equal(saved[t].network[WEIGHTS[0]], saved[t - 1].network[WEIGHTS[0]]) for t in range(1, 41)]
    assert all(moving)


def test_a_run_that_goes_back_has_the_mask_of_that_state(
    images: Split, tmp_path: Path, saved: dict[int, State], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No numbers after update 7 lead back to update 4, before the final mask of update 5: the best of then goes."""
    recipe = fresh()[1]
    full, original = recipe.schedule.rate(7), Optimizer.step
    back: list[State] = []

    def step(optimizer: Optimizer, iteration: int, rate: float) -> None:
        original(optimizer, iteration, rate)
        if iteration == 7 and rate == full:
            back.extend([saved[4], saved[6]])
            with torch.no_grad():
                optimizer._parameters[3][0].fill_(math.inf)

    monkeypatch.setattr(Optimizer, "step", step)
    metrics = iter([0.1, 0.1, 0.1, 0.1, 0.9, 0.8, 0.3, 0.2, 0.3, 0.1])
    options = {"checkpoint_every": 2, "ema_alpha": 0.0, "evaluate_every": 1}
    schedule = Growing(SHARES)
    with pytest.warns(InputWarning, match="iteration 7: .* on from iteration 4"):
        found = run(images, tmp_path, Masks(schedule=schedule), evaluate=lambda network: next(metrics), options=options)
    assert [at for at, _ in schedule.seen] == [0, 2, 5, 5]
    assert [record.metric for record in found.history] == [0.1, 0.1, 0.1, 0.1, 0.3, 0.2, 0.3, 0.1]
    assert (found.best_metric, found.best_iteration) == (0.3, 7)
    assert gone(found.best) == gone(found.last) == [129, 432]
    for name in WEIGHTS:
        after, four, six = ((state.mask or {})[name] for state in (saved[4], *back))
        assert torch.equal(after, four)
        assert not torch.equal(after, six)
        assert (found.best.layers[int(name[7])]["weight"][~(saved[8].mask or {})[name].numpy()] == 0).all()


def test_a_run_that_goes_back_to_its_start_has_the_first_mask(
    images: Split, tmp_path: Path, saved: dict[int, State], monkeypatch: pytest.MonkeyPatch
) -> None:
    original, failed = Optimizer.step, []

    def step(optimizer: Optimizer, iteration: int, rate: float) -> None:
        original(optimizer, iteration, rate)
        if not failed:
            failed.append(iteration)
            with torch.no_grad():
                optimizer._parameters[3][0].fill_(math.inf)

    monkeypatch.setattr(Optimizer, "step", step)
    with pytest.warns(InputWarning, match="iteration 1: .* on from iteration 0"):
        run(images, tmp_path, Masks(schedule=Growing({0: 0.5, 5: 0.6})))
    for iteration in (0, 1):
        for name, count in zip(WEIGHTS, (108, 360), strict=True):
            assert (saved[iteration].network[name] == 0).sum() == count == (~(saved[iteration].mask or {})[name]).sum()
