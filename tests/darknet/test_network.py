"""Every layer of real networks against Debian's libdarknet, the heads' inputs against OpenCV."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.helpers import graph_of, random_model, worst
from yoloprune.darknet.dialect import ALEXEYAB, PJREDDIE, Dialect
from yoloprune.darknet.model import Model, load
from yoloprune.darknet.network import Network, build
from yoloprune.darknet.weights import Header
from yoloprune.readers import libdarknet as stock
from yoloprune.readers import opencv

MODELS = ["yolo-fastest-1.1", "yolo-fastest-1.0", "mbv2-nano-coco", "yoloface-500k", "lite-voc-t3"]


def files(shared: Path, name: str) -> tuple[Path, Path]:
    folder = shared / "models" / name
    return folder / f"{name}.cfg", folder / f"{name}.weights"


@pytest.mark.parametrize("name", MODELS)
def test_every_layer_is_libdarknets(shared: Path, libdarknet: Path, name: str) -> None:
    cfg, weights = files(shared, name)
    model = load(cfg, weights, PJREDDIE)
    x = np.random.default_rng(1).random((3, *model.graph.net.input), np.float32)
    theirs = stock.outputs(cfg, weights, x)
    with torch.inference_mode():
        ours = build(model)(torch.from_numpy(x), want=range(len(model.graph.layers)))
    assert set(theirs) == set(ours)
    off = {index: worst(ours[index].numpy(), theirs[index]) for index in theirs}
    assert {index: value for index, value in off.items() if value > 1e-4} == {}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("dialect", "within"), [(PJREDDIE, 3e-3), (ALEXEYAB, 1e-2)], ids=["pjreddie", "alexeyab"])
def test_head_inputs_are_opencvs(shared: Path, name: str, dialect: Dialect, within: float) -> None:
    """OpenCV's epsilon is near pjreddie's; AlexeyAB's shows where running variances are small (reference, 10)."""
    cfg, weights = files(shared, name)
    model = load(cfg, weights, dialect)
    heads = model.graph.outputs
    x = np.random.default_rng(2).random((3, *model.graph.net.input), np.float32)
    theirs = opencv.head_inputs(cfg, weights, x, heads)
    entering = {head: model.graph.layers[head].sources[0] for head in heads}
    with torch.inference_mode():
        ours = build(model)(torch.from_numpy(x), want=entering.values())
    for head, source in entering.items():
        assert worst(ours[source].numpy(), theirs[head]) < within


CHANGES: dict[str, Callable[[Network, Model], object]] = {
    "nothing": lambda network, other: None,
    "new weights": lambda network, other: network.set_weights(other.weights),
    "one array, in place": lambda network, other: network.layers[0].variance.mul_(2),
    "one array, replaced": lambda network, other: setattr(
        network.layers[0], "scale", nn.Parameter(network.layers[0].scale * 2)
    ),
    "another type": lambda network, other: network.double(),
    "an update": lambda network, other: update(network),
    "a mini-batch": lambda network, other: network.train()(torch.rand(2, 3, 8, 8)),
    "the layer that shares": lambda network, other: network.layers[2].owners[0].weight.add_(1),
}


def update(network: Network) -> None:
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    torch.optim.SGD(network.parameters(), 0.1).step()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode], ids=["no_grad", "inference"])
@pytest.mark.parametrize("change", CHANGES)
def test_inference_follows_every_change_of_the_arrays(
    change: str, mode: Callable[[], AbstractContextManager[None]]
) -> None:
    """Batch norm is kept folded into the weights between two calls."""
    convolution = "[convolutional]\nfilters=3\nsize=3\npad=1\nbatch_normalize=1\n"
    text = "[net]\nwidth=8\nheight=8\nchannels=3\n" + convolution * 2 + convolution + "share_index=0\n"
    graph = graph_of(text)
    network, other = build(random_model(graph, 1)), random_model(graph, 2)
    x = torch.rand(2, 3, 8, 8)
    with mode():
        before = network(x)[2]
        CHANGES[change](network, other)
        network.eval()
        x = x.to(network.layers[0].weight.dtype)
        after = network(x)[2]
    fresh = build(Model(graph, network.get_weights(Header())))(x.float())[2]
    torch.testing.assert_close(after.float(), fresh.detach(), rtol=1e-5, atol=1e-6)
    assert torch.equal(before, after) == (change == "nothing")


def test_where_gradients_are_wanted_they_reach_every_array() -> None:
    text = "[net]\nwidth=8\nheight=8\nchannels=3\n[convolutional]\nfilters=3\nbatch_normalize=1\n"
    network, x = build(random_model(graph_of(text), 1)), torch.rand(2, 3, 8, 8)
    with torch.inference_mode():
        network(x)
    network(x)[0].sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in network.parameters())
