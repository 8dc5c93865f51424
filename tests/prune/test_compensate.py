"""Refitting: exact where it can be, never worse than the plain cut, joint cuts, and masked = slim still."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.helpers import graph_of, random_model, worst
from tests.prune.graphs import random_cfg
from yoloprune.darknet.model import Model
from yoloprune.darknet.network import build
from yoloprune.prune import compensate as compensate_file
from yoloprune.prune.channels import trace
from yoloprune.prune.compensate import RIDGES, Fit, compensate, compensate_alone, refit
from yoloprune.prune.criteria import CRITERIA, CalibrationStatistics
from yoloprune.prune.moments import Consumer, HeldOut, Moments, collect, consumers
from yoloprune.prune.slim import mask, slim

HEAD = "[convolutional]\nfilters=7\nsize=1\nactivation=linear\n[yolo]\nclasses=2\nnum=1\n"


def net(consumer: str) -> str:
    first = "[convolutional]\nbatch_normalize=1\nfilters=8\nsize=1\nactivation=linear\n"
    return f"[net]\nwidth=17\nheight=13\nchannels=5\n{first}{consumer}{HEAD}"


CONSUMERS = {
    "1x1": "[convolutional]\nbatch_normalize=1\nfilters=6\nsize=1\nactivation=leaky\n",
    "3x3 padded": "[convolutional]\nbatch_normalize=1\nfilters=6\nsize=3\npad=1\nactivation=leaky\n",
    "3x3 stride 2": "[convolutional]\nfilters=6\nsize=3\nstride=2\npad=1\nactivation=leaky\n",
    "grouped": "[convolutional]\nfilters=6\nsize=3\npad=1\ngroups=2\nactivation=leaky\n",
    "connected": "[connected]\noutput=9\nbatch_normalize=1\nactivation=leaky\n",
}


def pictures(model: Model, count: int, seed: int) -> list[torch.Tensor]:
    rng = np.random.default_rng(seed)
    return [torch.from_numpy(rng.random((4, *model.graph.net.input), np.float32)) for _ in range(count // 4)]


def entering_heads(model: Model, x: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return build(model).double()(x.double(), want=[1])[1]


@pytest.fixture
def noiseless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Least squares alone, whose results are exact where nothing is lost."""
    monkeypatch.setattr(compensate_file, "NOISE", 0.0)


@pytest.mark.usefixtures("noiseless")
@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("name", CONSUMERS)
def test_a_low_rank_input_loses_nothing(name: str, normalized: bool) -> None:
    """8 channels of rank 5 (a linear map of 5 channels): 3 can go, and all they gave comes back, borders included.

    Grouped: 4 channels of rank 3 in each group, one can go.
    """
    text = net(CONSUMERS[name]).replace("batch_normalize=1\n", "") if not normalized else net(CONSUMERS[name])
    if name == "connected":
        text = small_connected(text)
    model = random_model(graph_of(text), 1)
    # An affine map of rank 5 needs the constant too: through zero padding that is exact only if channels are linear.
    first = dict(model.weights.layers[0])
    linear_map = np.random.default_rng(1).normal(size=(8, 5, 1, 1)).astype(np.float32)
    if name == "grouped":
        linear_map[:4, :2] = linear_map[4:, 3:] = 0
    first |= {"weight": linear_map} | {each: np.zeros_like(first[each]) for each in ("bias", "mean") if each in first}
    model = model.with_weights(type(model.weights)(model.weights.header, (first, *model.weights.layers[1:])))
    channels = trace(model.graph)
    keep = channels.all_kept()
    keep[channels.groups[0].units[[1] if name == "grouped" else [1, 4, 6]]] = False
    batches = pictures(model, 200 if name == "connected" else 8, 2)
    fresh = pictures(model, 4, 3)[0]
    target = entering_heads(model, fresh).numpy()
    plain = worst(entering_heads(mask(model, channels, keep), fresh).numpy(), target)
    for cut in (compensate(model, channels, keep, batches), alone(model, batches, keep)):
        assert worst(entering_heads(cut, fresh).numpy(), target) < 1e-6 < 0.01 < plain


def small_connected(text: str) -> str:
    """Ends with the connected layer, on a map small enough for few pictures to tell all of its columns apart."""
    text = text.replace("width=17\nheight=13", "width=3\nheight=2")
    return text[: text.index("[convolutional]\nfilters=7")] + "[softmax]\n"


def alone(model: Model, batches: list[torch.Tensor], keep: np.ndarray) -> Model:
    channels = trace(model.graph)
    wanted = consumers(model.graph, channels)
    moments = collect(build(model), batches, wanted.values(), sum(map(len, batches)))
    return compensate_alone(model, channels, keep, wanted, moments)


@pytest.mark.parametrize("name", CONSUMERS)
def test_never_above_the_plain_cut_on_the_pictures_it_saw(name: str) -> None:
    text = net(CONSUMERS[name])
    if name == "connected":
        text = small_connected(text)
    model = random_model(graph_of(text.replace("linear", "relu", 1)), 4)
    channels = trace(model.graph)
    keep = channels.all_kept()
    group = next(group for group in channels.groups if 0 in group.producers)
    keep[group.units[: len(group.units) // 2]] = False
    batches = pictures(model, 200 if name == "connected" else 8, 5)

    def error(cut: Model) -> float:
        total = 0.0
        with torch.inference_mode():
            for x in batches:
                want = [1]
                a, b = (build(each).double()(x.double(), want)[1] for each in (linear(cut), linear(model)))
                total += float(((a - b) ** 2).sum())
        return total

    plain = error(mask(model, channels, keep))
    for cut in (compensate(model, channels, keep, batches), alone(model, batches, keep)):
        assert error(cut) <= plain * (1 + 1e-6)
        assert error(cut) < 0.95 * plain


def linear(model: Model) -> Model:
    """The same with the consumer's weighted sum bare: its batch norm and activation taken off."""
    arrays = dict(model.weights.layers[1])
    if "scale" in arrays:
        arrays |= {"scale": np.ones_like(arrays["scale"]), "variance": np.ones_like(arrays["variance"])}
        arrays["bias"] = np.zeros_like(arrays["bias"])
    text = "".join(model.graph.cfg.lines)
    text = text.replace("activation=leaky\n", "activation=linear\n", 1)
    weights = type(model.weights)(model.weights.header, (model.weights.layers[0], arrays, *model.weights.layers[2:]))
    return Model(graph_of(text), weights)


@pytest.mark.parametrize("seed", range(40))
def test_a_refit_is_never_above_the_plain_cut(seed: int) -> None:
    """Sums of squares over all samples, on inputs of every kind: few or many, of low rank, dead, constant, repeated."""
    rng = np.random.default_rng(seed)
    groups, columns, outputs = int(rng.integers(1, 4)), int(rng.integers(2, 20)), int(rng.integers(1, 6))
    samples = int(rng.integers(1, 4 * columns))
    z = rng.normal(size=(groups, columns, samples)) * 10.0 ** rng.uniform(-3, 3, (1, columns, 1))
    z += rng.normal(size=(groups, columns, 1)) * float(rng.choice([0, 1, 100]))
    if seed % 2:
        z = rng.normal(size=(groups, columns, 2)) @ z[:, :2]
    z[:, rng.integers(columns)] = 0
    z[:, rng.integers(columns)] = 3
    z[:, rng.integers(columns)] = z[:, rng.integers(columns)]
    weight = rng.normal(size=(groups, outputs, columns))
    unpruned = z if seed % 3 else z + 0.1 * rng.normal(size=z.shape)  # a joint cut asks for what other inputs gave
    wanted = weight @ unpruned
    keep = rng.random(columns) < 0.6
    keep[0] = True
    consumer = Consumer(0, groups, np.zeros((groups, columns), np.int64), 1)
    moments = Moments.zero(consumer, outputs, torch.device("cpu"))
    for picture, part in enumerate(np.array_split(np.arange(samples), 2)):
        moments.add(picture, torch.from_numpy(z[:, :, part]), torch.from_numpy(wanted[:, :, part]))
    fit = refit(torch.from_numpy(weight), moments, keep)
    assert not fit.weight[:, :, ~keep].any()
    after = fit.weight.numpy() @ z + fit.constant.numpy()[:, :, None]
    errors = [float(((each - wanted) ** 2).sum()) for each in (after, weight[:, :, keep] @ z[:, keep])]
    assert errors[0] <= errors[1] * (1 + 1e-9) + 1e-12 * float((wanted**2).sum())


def fit_to(z: np.ndarray, weight: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """Refitted weights [n, D] for inputs z [D, M], each half of them a fold."""
    moments = Moments.zero(Consumer(0, 1, np.zeros((1, len(z)), np.int64), 1), len(weight), torch.device("cpu"))
    for picture in range(2):
        some = z[None, :, picture::2]
        moments.add(picture, torch.from_numpy(some), torch.from_numpy(weight @ some))
    return refit(torch.from_numpy(weight[None]), moments, keep).weight[0].numpy()


def test_noise_is_a_ridge_on_inputs_less_their_means(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same as least squares over many copies of the inputs, each with noise of its own added (Bishop 1995)."""
    rng = np.random.default_rng(3)
    z = rng.normal(size=(5, 400)) * np.array([[1.0], [0.3], [2.0], [0.1], [1.0]]) + rng.normal(size=(5, 1)) * 10
    z[4] = z[:4].sum(0)
    weight = rng.normal(size=(3, 5))
    keep = np.arange(5) < 4
    monkeypatch.setattr(compensate_file, "NOISE", 0.3)
    monkeypatch.setattr(compensate_file, "RIDGES", (1e-9, 1e-9))
    fitted = fit_to(z, weight, keep)[:, :4]
    spread = np.mean([z[:4, picture::2].var(1) for picture in range(2)], 0)  # as the folds have it
    energy = 0.3 * (spread + spread.mean())
    assert np.abs(fitted - noisy_fit(z, weight, energy)).max() < 1e-6
    # and what the closed form says is what sampling says
    copies = np.tile(z[:4], 2000) + rng.normal(size=(4, 400 * 2000)) * np.sqrt(energy)[:, None]
    wanted = np.tile(weight @ z - weight[:, :4] @ z[:4], 2000)
    design = np.concatenate([copies, np.ones((1, copies.shape[1]))])
    # The noise is on what the change multiplies: what the kept weights gave stays as it was.
    change = np.linalg.solve(design @ design.T, design @ wanted.T).T[:, :4]
    assert worst(fitted - weight[:, :4], change) < 0.01


def noisy_fit(z: np.ndarray, weight: np.ndarray, energy: np.ndarray) -> np.ndarray:
    """Weights of the first four inputs that give what the fifth did, by the normal equations of centred inputs."""
    x = z[:4] - z[:4].mean(1, keepdims=True)
    gone = z[4:] - z[4:].mean(1, keepdims=True)
    change = np.linalg.solve(x @ x.T + np.diag(energy) * z.shape[1], x @ (weight[:, 4:] @ gone).T).T
    return np.asarray(weight[:, :4] + change)


@pytest.mark.parametrize("seed", range(4))
def test_inputs_that_hardly_vary_or_are_alike_get_no_huge_weights(seed: int) -> None:
    """What went depends on the difference of two inputs that are alike, and on one that is nearly constant."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(8, 2000))
    z[1] = z[0] + 0.01 * rng.normal(size=2000)
    z[2] = 5 + 1e-3 * rng.normal(size=2000)
    z[6] = 100 * (z[1] - z[0]) + z[3]
    z[7] = 1000 * (z[2] - 5) + z[3]
    weight = rng.normal(size=(4, 8))
    keep = np.arange(8) < 6
    largest = np.abs(fit_to(z, weight, keep)).max()
    assert largest < 3 * np.abs(weight).max()


def test_without_noise_they_get_them(noiseless: None) -> None:
    """The same inputs: the guard above is no accident."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(8, 2000))
    z[1] = z[0] + 0.01 * rng.normal(size=2000)
    z[6] = 100 * (z[1] - z[0]) + z[3]
    weight = rng.normal(size=(4, 8))
    assert np.abs(fit_to(z, weight, np.arange(8) != 6)).max() > 30 * np.abs(weight).max()


@pytest.mark.parametrize("seed", range(5))
def test_the_mean_of_what_went_comes_back_however_little_the_pictures_tell(seed: int) -> None:
    """Independent channels, few samples: only the constant can help, and the ridge does not hold it."""
    rng = np.random.default_rng(seed)
    z = rng.normal(5, 1, (1, 12, 30))
    weight = rng.normal(size=(1, 4, 12))
    keep = np.arange(12) >= 4
    moments = Moments.zero(Consumer(0, 1, np.zeros((1, 12), np.int64), 1), 4, torch.device("cpu"))
    for picture in range(2):
        some = z[:, :, picture::2]
        moments.add(picture, torch.from_numpy(some), torch.from_numpy(weight @ some))
    fit = refit(torch.from_numpy(weight), moments, keep)
    left = fit.weight.numpy() @ z + fit.constant.numpy()[:, :, None] - weight @ z
    assert np.abs(left.mean(2)).max() < 1e-6 * np.abs((weight @ z).mean(2)).max()


def test_a_few_pictures_of_many_places_are_not_believed_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes says nothing about what stays, but on 16 pictures, each of two patterns, it seems to."""
    chosen, trusting = [], []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        weight = torch.from_numpy(rng.normal(size=(1, 5, 24)))
        keep = np.arange(24) >= 4
        seen = [torch.from_numpy((rng.normal(size=(24, 2)) @ rng.normal(size=(2, 400)))[None]) for _ in range(216)]
        moments = Moments.zero(Consumer(0, 1, np.zeros((1, 24), np.int64), 1), 5, torch.device("cpu"))
        for number, z in enumerate(seen[:16]):
            moments.add(number, z, weight @ z)
        fits = [Fit(weight * torch.from_numpy(keep), torch.zeros(1, 5).double()), refit(weight, moments, keep)]
        with monkeypatch.context() as patch:
            patch.setattr(compensate_file, "_ridge", lambda *_: RIDGES[-1])
            fits.append(refit(weight, moments, keep))
        fresh = torch.cat(seen[16:], 2)
        plain, *errors = (
            float(sum((left**2).sum() for left in each.residuals(HeldOut([fresh], [weight @ fresh])))) for each in fits
        )
        chosen.append(errors[0] / plain)
        trusting.append(errors[1] / plain)
    assert np.mean(chosen) < 1.05
    assert max(chosen) < 1.25
    assert min(trusting) > 1.5


def test_one_picture_confirms_nothing() -> None:
    rng = np.random.default_rng(1)
    weight = torch.from_numpy(rng.normal(size=(1, 3, 6)))
    keep = np.arange(6) >= 2
    moments = Moments.zero(Consumer(0, 1, np.zeros((1, 6), np.int64), 1), 3, torch.device("cpu"))
    z = torch.from_numpy(rng.normal(size=(1, 6, 500)))
    moments.add(0, z, weight @ z)
    fit = refit(weight, moments, keep)
    assert torch.equal(fit.weight, weight * torch.from_numpy(keep))
    assert not fit.constant.any()
    moments.add(1, z, weight @ z)
    assert refit(weight, moments, keep).constant.any()


@pytest.mark.parametrize("seed", range(3))
def test_activations_that_do_not_fit_are_computed_anew(seed: int) -> None:
    model = random_model(graph_of(random_cfg(seed)), seed)
    channels = trace(model.graph)
    keep = channels.all_kept()
    for group in channels.groups:
        keep[group.units[: len(group.units) // 3]] = False
    batches = pictures(model, 8, seed)
    kept, some, anew = (
        compensate(model, channels, keep, batches, memory=memory).weights for memory in (1 << 30, 100_000, 0)
    )
    for layers in zip(kept.layers, some.layers, anew.layers, strict=True):
        for name, array in layers[0].items():
            assert all(np.array_equal(array, each[name]) for each in layers[1:])


@pytest.mark.parametrize("seed", range(8))
def test_masked_is_slim_after_compensation(seed: int) -> None:
    model = random_model(graph_of(random_cfg(seed)), seed)
    channels = trace(model.graph)
    keep = channels.all_kept()
    rng = np.random.default_rng(seed)
    for group in channels.groups:
        keep[rng.choice(group.units, len(group.units) // 2, replace=False)] = False
    batches = pictures(model, 8, seed)
    cut = compensate(model, channels, keep, batches)
    again = mask(cut, channels, keep)
    for before, after in zip(cut.weights.layers, again.weights.layers, strict=True):
        assert all(np.array_equal(before[name], after[name]) for name in before)
    x = batches[0].double()
    want = model.graph.head_inputs
    with torch.inference_mode():
        a, b = (build(each).double()(x, want) for each in (cut, slim(cut, channels, keep)))
    assert max(worst(a[index].numpy(), b[index].numpy()) for index in want) < 1e-9


@pytest.mark.usefixtures("noiseless")
def test_dead_and_repeated_channels_go_first_and_cost_nothing() -> None:
    model = random_model(graph_of(net(CONSUMERS["1x1"])), 6)
    first = dict(model.weights.layers[0])
    for name, array in first.items():
        first[name] = array.copy()
        first[name][5] = array[2]  # channel 5 repeats channel 2
    first["scale"][7] = 0  # channel 7 is constant
    model = model.with_weights(type(model.weights)(model.weights.header, (first, *model.weights.layers[1:])))
    channels = trace(model.graph)
    batches = pictures(model, 8, 7)
    statistics = CalibrationStatistics(model, channels, channels.all_kept(), batches)
    group = channels.groups[0]
    order = CRITERIA["elimination"](statistics, group)
    assert sorted(order) == list(range(8))
    assert set(order[:2]) in ({7, 5}, {7, 2})
    keep = channels.all_kept()
    keep[group.units[list(order[:2])]] = False
    cut = compensate(model, channels, keep, batches)
    x = pictures(model, 4, 8)[0]
    assert worst(entering_heads(cut, x).numpy(), entering_heads(model, x).numpy()) < 1e-4


def test_elimination_beats_any_other_single_choice() -> None:
    """The first unit to go is the one whose loss, once all others are refitted, is least: checked one by one."""
    text = net(CONSUMERS["3x3 padded"]).replace(
        "linear", "leaky", 1
    )  # linear, any of 8 channels of rank 5 costs nothing
    model = random_model(graph_of(text), 9)
    channels = trace(model.graph)
    batches = pictures(model, 24, 10)
    group = channels.groups[0]
    statistics = CalibrationStatistics(model, channels, channels.all_kept(), batches)
    order = CRITERIA["elimination"](statistics, group)
    arrays = model.weights.layers[1]
    factor = arrays["scale"] / np.sqrt(arrays["variance"] + 1e-5)
    with torch.inference_mode():
        network = build(model)
        inputs = [network(x, [0])[0] for x in batches]
        columns = torch.cat([network.layers[1].columns(x)[0].T for x in inputs]).double().numpy()  # [M, 8 * 9]
    target = columns @ arrays["weight"].reshape(6, -1).T.astype(np.float64) * factor
    losses = []
    for position in range(8):
        left = np.delete(columns, np.s_[position * 9 : position * 9 + 9], 1)
        left = np.concatenate([left, np.ones((len(left), 1))], 1)
        fitted = np.linalg.lstsq(left, target, rcond=None)[0]
        losses.append(float(((left @ fitted - target) ** 2).sum()))
    assert min(losses) < 0.9 * sorted(losses)[1]
    assert order[0] == int(np.argmin(losses))
