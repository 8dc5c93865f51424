"""Convolutions with their activations in one pass: the same numbers as one after the other, but for rounding."""

from __future__ import annotations

import copy

import pytest
import torch

from tests.helpers import graph_of, random_model
from yoloprune.darknet.layers import fused
from yoloprune.darknet.layers.activations import ACTIVATIONS
from yoloprune.darknet.model import Model
from yoloprune.darknet.network import Network, build
from yoloprune.detect.measure import network_for_measuring

TOLERANCE = 1e-5
"""Of values around 1, in float32."""


def model(activation: str = "leaky") -> Model:
    """Plain, strided, grouped, depthwise, dilated, 1x1, not normalized, shared, blurred."""
    text = "[net]\nwidth=19\nheight=13\nchannels=3\n"
    for keys in (
        "batch_normalize=1 filters=8 size=3 pad=1",
        "batch_normalize=1 filters=8 size=3 pad=1 stride_x=2 stride_y=1",
        "filters=12 size=1 groups=4",
        "batch_normalize=1 filters=12 size=3 pad=1 groups=12",
        "batch_normalize=1 filters=12 size=3 pad=1 groups=12 share_index=-1",
        "filters=6 size=3 padding=1 dilation=2",
        "batch_normalize=1 filters=8 size=3 pad=1 stride=2 antialiasing=1",
    ):
        text += "[convolutional]\n" + keys.replace(" ", "\n") + f"\nactivation={activation}\n"
    return random_model(graph_of(text), 0)


def images(count: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(count, 3, 13, 19, generator=generator).to(memory_format=torch.channels_last)


def outputs(network: Network, x: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        (found,) = network(x).values()
    return found


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_they_agree(activation: str) -> None:
    made = model(activation)
    plain, one_pass = build(made), network_for_measuring(made)
    for count in (3, 1, 5):  # packed for the first
        expected, found = outputs(plain, images(count)), outputs(one_pass, images(count))
        assert found.shape == expected.shape
        assert (found - expected).abs().max() <= TOLERANCE * max(1, float(expected.abs().max()))


@pytest.fixture
def here() -> None:
    if not fused.fusible("leaky"):
        pytest.skip("this PyTorch has no oneDNN, or another operator")


@pytest.fixture
def calls(here: None, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Activations computed in one pass."""
    seen: list[str] = []
    known = fused.convolution

    def counted(*arguments: object) -> torch.Tensor:
        seen.append(str(arguments[-1]))
        return known(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(fused, "convolution", counted)
    return seen


def test_it_is_used_where_it_can(calls: list[str]) -> None:
    made = model()
    network = network_for_measuring(made)
    outputs(network, images())
    assert calls == ["leaky"] * 7
    calls.clear()
    network(images())  # with gradients
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        network(images())
    outputs(network_for_measuring(model("mish")), images())
    outputs(network_for_measuring(made, in_one_pass=False), images())
    outputs(network.double(), images().double())
    assert calls == []


@pytest.mark.parametrize("normalized", [0, 2], ids=["with batch norm", "without"])
def test_changed_arrays_count(here: None, normalized: int) -> None:
    made = model()
    network, plain = network_for_measuring(made), build(made)
    before = outputs(network, images())
    with torch.no_grad():
        for each in (network, plain):
            each.layers[normalized].weight.mul_(-0.5)  # type: ignore[operator, union-attr]
    found, expected = outputs(network, images()), outputs(plain, images())
    assert not torch.allclose(before, found)
    assert torch.allclose(found, expected, atol=TOLERANCE)
    other = copy.deepcopy(network)
    with torch.no_grad():
        other.layers[normalized].weight.mul_(-2)  # type: ignore[operator, union-attr]
    assert torch.allclose(outputs(other, images()), before, atol=TOLERANCE)
    assert torch.equal(outputs(network, images()), found)


@pytest.mark.parametrize("broken", ["missing", "refuses", "off"])
def test_where_it_does_not_agree_it_is_not_used(
    here: None, calls: list[str], monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    counted = fused.convolution

    def wrong(*arguments: object) -> torch.Tensor:
        if broken == "missing":
            raise AttributeError("no such operator")
        if broken == "refuses":
            raise RuntimeError("Fusion behavior undefined.")
        return counted(*arguments) + 1e-3  # type: ignore[arg-type]

    fused.fusible.cache_clear()
    monkeypatch.setattr(fused, "convolution", wrong)
    try:
        outputs(network_for_measuring(model()), images())
        assert len(calls) == (broken == "off")  # the trial
    finally:
        fused.fusible.cache_clear()
