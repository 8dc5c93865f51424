"""Each criterion on a network for which the channel that matters least by it is known, or summed up by NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.helpers import graph_of, random_model
from tests.prune.graphs import random_cfg
from tests.prune.test_compensate import net, pictures
from yoloprune.choices import WITHOUT_IMAGES
from yoloprune.darknet.model import Model
from yoloprune.darknet.network import build
from yoloprune.darknet.weights import Arrays
from yoloprune.errors import InputError
from yoloprune.prune.channel_units import ChannelUnits
from yoloprune.prune.channels import trace
from yoloprune.prune.criteria import CRITERIA
from yoloprune.prune.pruner import Pruner

NEXT = "[convolutional]\nfilters=6\nsize=1\nactivation=linear\n"
PADDED = "[convolutional]\nbatch_normalize=1\nfilters=6\nsize=3\npad=1\nactivation=leaky\n"


def with_arrays(model: Model, layer: int, **arrays: np.ndarray) -> Model:
    layers: list[Arrays] = list(model.weights.layers)
    layers[layer] = layers[layer] | {name: array.astype(np.float32) for name, array in arrays.items()}
    return model.with_weights(type(model.weights)(model.weights.header, tuple(layers)))


def pruner(model: Model, batches: list[torch.Tensor]) -> Pruner:
    return Pruner(model, ChannelUnits.of(model.graph), lambda: batches)


def order(model: Model, criterion: str, batches: list[torch.Tensor]) -> list[int]:
    made = pruner(model, batches)
    return list(made.order(criterion, made.units.groups[0]))


def test_l1_and_bn_scale_take_the_least_first() -> None:
    model = random_model(graph_of(net(NEXT)), 1)
    sizes = np.array([3, 1, 8, 5, 2, 7, 4, 6.0])
    signs = np.where(np.arange(40).reshape(8, 5, 1, 1) % 3, 1, -1)
    model = with_arrays(model, 0, weight=signs * sizes[:, None, None, None], scale=-sizes[::-1])
    assert order(model, "l1", []) == list(np.argsort(sizes))
    assert order(model, "bn-scale", []) == list(np.argsort(sizes[::-1]))


def test_random_repeats_and_prefers_nothing() -> None:
    sizes = np.arange(1.0, 9)[:, None, None, None]
    graph = graph_of(net(NEXT))
    models = [
        with_arrays(random_model(graph, seed), 0, weight=sizes + np.full((8, 5, 1, 1), seed)) for seed in range(60)
    ]
    orders = [order(model, "random", []) for model in models]
    assert orders == [order(model, "random", []) for model in models]
    places = np.argsort(orders, axis=1)
    assert (np.sort(orders) == np.arange(8)).all()
    np.testing.assert_allclose(places.mean(0), 3.5, atol=1.2)  # one deviation is 0.3


def test_apoz_counts_what_is_not_above_zero() -> None:
    """Filter k gives relu(x0 - t_k): silent where the first channel of the picture is at most t_k."""
    model = random_model(graph_of(net(NEXT).replace("linear", "relu", 1).replace("batch_normalize=1\n", "", 1)), 2)
    thresholds = np.array([0.3, 0.9, 0.1, 0.5, 0.7, 0.2, 0.8, 0.6])
    weight = np.zeros((8, 5, 1, 1))
    weight[:, 0] = 1
    model = with_arrays(model, 0, weight=weight, bias=-thresholds)
    batches = pictures(model, 8, 3)
    seen = torch.cat(batches)[:, 0].numpy()
    silent = np.array([(seen <= np.float32(threshold)).mean() for threshold in thresholds])
    np.testing.assert_allclose(pruner(model, batches).statistics.silence[0], silent, atol=1e-3)
    assert order(model, "apoz", batches) == list(np.argsort(-thresholds))


def test_taylor_is_the_change_of_the_heads() -> None:
    """In a linear network the first order is all there is: without channel c, h changes by w_c z_c."""
    model = random_model(graph_of(net(NEXT)), 4)
    weight = model.weights.layers[1]["weight"] * 2.0 ** np.array([3, -1, 0, 4, 2, -2, 1, 5])[None, :, None, None]
    model = with_arrays(model, 1, weight=weight)
    batches = pictures(model, 400, 5)
    with torch.inference_mode():
        outputs = [build(model)(batch, [0, 2]) for batch in batches]
    z, h = (torch.cat([each[index] for each in outputs]).double().numpy() for index in (0, 2))
    last = model.weights.layers[2]["weight"][:, :, 0, 0].astype(np.float64) @ weight[:, :, 0, 0]  # [7, 8]
    squares = (last**2).sum(0) * np.array([((z[:, c] / h.std((1, 2, 3))[:, None, None]) ** 2).sum() for c in range(8)])
    made = pruner(model, batches)
    found = made.statistics.head_changes[made.units.groups[0].units]
    np.testing.assert_allclose(found, squares / len(z), rtol=0.4)  # 800 random directions: 5 % is one deviation
    assert order(model, "taylor", batches) == list(np.argsort(squares))


@pytest.mark.parametrize(
    ("middle", "changes"),
    [(f"{NEXT}{NEXT}[route]\nlayers=0\n", [True, False, False]), (f"[lrn]\n{NEXT}[route]\nlayers=1\n", [False])],
)
def test_what_no_head_depends_on_changes_none(middle: str, changes: list[bool]) -> None:
    model = random_model(graph_of(net(middle)), 3)
    made = pruner(model, pictures(model, 8, 2))
    found = made.statistics.head_changes
    assert [bool(found[group.units].all()) for group in made.units.groups] == changes
    assert [bool(found[group.units].any()) for group in made.units.groups] == changes


def columns_of(model: Model, batches: list[torch.Tensor]) -> np.ndarray:
    """What layer 1 multiplies [8 channels, 9 places, M]."""
    network = build(model)
    with torch.inference_mode():
        parts = [network.layers[1].columns(network(batch, [0])[0])[0] for batch in batches]
    return torch.cat(parts, 1).double().numpy().reshape(8, 9, -1)


def test_thinet_adds_up_what_goes() -> None:
    """Greedily, over all outputs and places, by loops over explicit sums."""
    model = random_model(graph_of(net(PADDED).replace("linear", "leaky", 1)), 6)
    batches = pictures(model, 8, 7)
    arrays = model.weights.layers[1]
    factor = arrays["scale"] / np.sqrt(arrays["variance"].astype(np.float64) + 1e-5)
    weight = arrays["weight"].reshape(6, 8, 9).astype(np.float64) * factor[:, None, None]
    adds = np.einsum("ocp,cpm->com", weight, columns_of(model, batches))  # what each channel adds to each output
    gone = np.zeros(adds.shape[1:])
    left, expected = list(range(8)), []
    while left:
        best = min(left, key=lambda c: float(((gone + adds[c]) ** 2).sum()))
        gone += adds[best]
        left.remove(best)
        expected.append(best)
    assert order(model, "thinet", batches) == expected


def test_thinet_sees_two_channels_cancel() -> None:
    """Channel 3 repeats channel 1 and is read with the opposite sign: once one went, the other goes for nothing."""
    model = random_model(graph_of(net(NEXT).replace("linear", "leaky", 1)), 8)
    first = {name: array.copy() for name, array in model.weights.layers[0].items()}
    for array in first.values():
        array[3] = array[1]
    weight = model.weights.layers[1]["weight"].copy()
    weight[:, 1] *= 0.01
    weight[:, 3] = -weight[:, 1]
    model = with_arrays(with_arrays(model, 0, **first), 1, weight=weight)
    assert set(order(model, "thinet", pictures(model, 8, 9))[:2]) == {1, 3}


@pytest.mark.parametrize("criterion", CRITERIA)
def test_every_criterion_orders_all_units_with_those_gone_first(criterion: str) -> None:
    model = random_model(graph_of(random_cfg(11)), 11)
    channels = trace(model.graph)
    keep = channels.all_kept()
    for group in channels.groups:
        keep[group.units[-1]] = False
    made = Pruner(model, ChannelUnits(model.graph, channels, keep), lambda: pictures(model, 8, 1))
    for group in channels.groups:
        found = made.order(criterion, group)
        assert sorted(found) == list(range(len(group.units)))
        assert found[0] == len(group.units) - 1


@pytest.mark.parametrize("criterion", sorted(set(CRITERIA) - set(WITHOUT_IMAGES)))
def test_what_looks_at_pictures_says_that_it_needs_them(criterion: str) -> None:
    with pytest.raises(InputError, match=rf"--criterion {criterion}: expected calibration images"):
        order(random_model(graph_of(net(NEXT)), 1), criterion, [])
