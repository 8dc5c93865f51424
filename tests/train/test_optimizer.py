"""Updates against Darknet's formulas in NumPy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.helpers import random_model
from tests.train.nets import graph
from yoloprune.darknet.dialect import ALEXEYAB, PJREDDIE, Dialect
from yoloprune.darknet.network import Network
from yoloprune.errors import InputError
from yoloprune.train.optimizer import Optimizer
from yoloprune.train.recipe import Recipe

NET = (
    "[net]\nbatch=6\nwidth=8\nheight=8\nchannels=3\nmax_batches=9\ndecay=.02\nmomentum=.8\nburn_in=2\n{net}\n"
    "[convolutional]\nfilters=5\nsize=3\nbatch_normalize=1\n{first}\n"
    "[convolutional]\nfilters=6\n[yolo]\nclasses=1\nnum=1\n"
)


def made(net: str = "", first: str = "", dialect: Dialect = ALEXEYAB) -> tuple[Network, Optimizer]:
    model = random_model(graph(NET.replace("{net}", net).replace("{first}", first), dialect), 1)
    network = Network(model.graph)
    network.set_weights(model.weights)
    return network, Optimizer(network, Recipe.from_graph(model.graph))


def steps(network: Network, optimizer: Optimizer, count: int) -> list[dict[str, np.ndarray]]:
    """Gradients of each update, which are random and those of a mean over the images."""
    rng = np.random.default_rng(2)
    given = []
    for iteration in range(1, count + 1):
        optimizer.zero_grad()
        grads = {}
        for name, parameter in network.named_parameters():
            grads[name] = rng.normal(0, 1, parameter.shape).astype(np.float32)
            parameter.grad = torch.from_numpy(grads[name].copy())
        given.append(grads)
        optimizer.step(iteration, 0.01 * iteration)
    return given


@pytest.mark.parametrize("dialect", [ALEXEYAB, PJREDDIE], ids=lambda dialect: str(dialect.name))
def test_adam_is_darknets(dialect: Dialect) -> None:
    network, optimizer = made("adam=1\nB1=.7\nB2=.95\neps=.001", dialect=dialect)
    before = {name: parameter.detach().double().numpy().copy() for name, parameter in network.named_parameters()}
    batch = 6
    moments = {name: (np.zeros_like(w), np.zeros_like(w)) for name, w in before.items()}
    for t, grads in enumerate(steps(network, optimizer, 4), 1):
        for name, w in before.items():
            m, v = moments[name]
            d = -grads[name] * batch - 0.02 * batch * w  # Darknet's update: a sum, uphill
            m = 0.7 * m + 0.3 * d
            v = 0.95 * v + 0.05 * d * d
            moments[name] = m, v
            w += 0.01 * t * (m / (1 - 0.7**t)) / (np.sqrt(v / (1 - 0.95**t)) + 0.001)
    for name, parameter in network.named_parameters():
        np.testing.assert_allclose(parameter.detach().numpy(), before[name], rtol=2e-5, atol=1e-6)


def test_adams_defaults() -> None:
    defaults = [graph(NET.replace("{net}", "").replace("{first}", ""), each).net for each in (ALEXEYAB, PJREDDIE)]
    assert [(net.adam, net.betas, net.epsilon) for net in defaults] == [
        (False, (0.9, 0.999), 1e-6),
        (False, (0.9, 0.999), 1e-7),
    ]


@pytest.mark.parametrize(
    ("first", "still"),
    [
        ("dont_update=2", [True, True, False]),
        ("burnin_update=2", [True, True, True, False]),  # 2 * burn_in = 4 > iteration
        ("train_only_bn=1", [True, True, True]),
        ("learning_rate=0", [True, True]),
        ("", [False]),
    ],
)
def test_layers_that_wait(first: str, still: list[bool]) -> None:
    for count in range(1, len(still) + 1):
        network, optimizer = made(first=first)
        before = network.layers[0].weight.detach().clone()
        second = network.layers[1].weight.detach().clone()
        steps(network, optimizer, count)
        assert torch.equal(network.layers[0].weight, before) == all(still[:count])
        assert not torch.equal(network.layers[1].weight, second)


def test_a_stop_that_ends() -> None:
    """AlexeyAB: stopbackward=N stops gradients before iteration N; decay goes on."""
    network, optimizer = made(first="stopbackward=3")
    bias, weight = (getattr(network.layers[0], name).detach().clone() for name in ("bias", "weight"))
    steps(network, optimizer, 2)
    assert torch.equal(network.layers[0].bias, bias)
    assert not torch.equal(network.layers[0].weight, weight)
    network, optimizer = made(first="stopbackward=3")
    steps(network, optimizer, 3)
    assert not torch.equal(network.layers[0].bias, bias)


def test_frozen_layers_have_no_update_at_all() -> None:
    network, _ = made()
    recipe = replace(Recipe.from_graph(network.graph), frozen=frozenset({0}))
    optimizer = Optimizer(network, recipe)
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    steps(network, optimizer, 2)
    for name, parameter in network.named_parameters():
        assert torch.equal(parameter, before[name]) == name.startswith("layers.0.")


@pytest.mark.parametrize("adam", ["", "adam=1\nB1=.7\nB2=.95\neps=.001"])
def test_sparsity_training_adds_the_sign_of_scales_to_their_gradient(adam: str) -> None:
    """Liu et al.'s code: `grad += s * sign(scale)` before the step. All else, and a scale of 0, is as without."""
    l1 = 0.25
    results = []
    for penalty in (0.0, l1):
        network, _ = made(adam)
        scale = network.layers[0].scale
        with torch.no_grad():
            scale.copy_(torch.tensor([0.8, -0.5, 0.0, 1.2, -0.1]))
        optimizer = Optimizer(network, replace(Recipe.from_graph(network.graph), bn_l1=penalty))
        start = scale.detach().double().numpy().copy()
        given = [each["layers.0.scale"].astype(np.float64) for each in steps(network, optimizer, 1)]
        results.append({name: each.detach().clone() for name, each in network.named_parameters()})
    if not adam:  # the first step of momentum is the gradient times the rate, which `steps` makes 0.01
        expected = start - 0.01 * (given[0] + l1 * np.sign(start))
        np.testing.assert_allclose(results[1]["layers.0.scale"].numpy(), expected, rtol=1e-6)
    else:  # decays, and has 2 of its own
        gradient = given[0] + 0.02 * start + l1 * np.sign(start)
        expected = start - 0.01 * gradient / (np.abs(gradient) + 0.001 / 6)
        np.testing.assert_allclose(results[1]["layers.0.scale"].numpy(), expected, rtol=1e-5)
    for name, plain in results[0].items():
        same = torch.ones_like(plain, dtype=torch.bool)
        if name == "layers.0.scale":
            same = torch.tensor([False, False, True, False, False])
        assert torch.equal(plain[same], results[1][name][same])
        assert adam or torch.equal(plain == results[1][name], same)


def test_something_must_be_left_to_train() -> None:
    network, _ = made()
    recipe = Recipe.from_graph(network.graph)
    Optimizer(network, replace(recipe, frozen=frozenset({0})))
    with pytest.raises(InputError, match=r"net\.cfg: no layer with weights is left to train"):
        Optimizer(network, replace(recipe, frozen=frozenset({0, 1})))


def test_an_update_is_dealt_out_to_processes() -> None:
    recipe = replace(Recipe.from_graph(made()[0].graph), subdivisions=2)
    assert recipe.batch == 6
    assert recipe.for_processes(1) == recipe.for_processes(2) == recipe
    for batch, subdivisions, count, parts, images in ((6, 2, 3, 3, 6), (48, 16, 6, 24, 48), (17, 3, 5, 5, 15)):
        dealt = replace(recipe, batch=batch, subdivisions=subdivisions).for_processes(count)
        assert (dealt.subdivisions, dealt.images) == (parts, images)
    with pytest.raises(InputError, match=r"batch=16: an update has 16 pictures, of which 3 processes"):
        replace(recipe, batch=16).for_processes(3)
