"""Running statistics of batch norm, by dialect and kind of layer."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.helpers import random_model, worst
from tests.train.nets import graph
from yoloprune.darknet.dialect import ALEXEYAB, PJREDDIE, Dialect
from yoloprune.darknet.network import Network

NET = (
    "[net]\nwidth=7\nheight=5\nchannels=3\n[convolutional]\nfilters=4\nsize=3\nbatch_normalize=1\nactivation=linear\n"
    "[connected]\noutput=6\nbatch_normalize=1\nactivation=linear\n"
)


@pytest.mark.parametrize(
    ("dialect", "shares"), [(ALEXEYAB, (0.1, 0.05)), (PJREDDIE, (0.01, 0.01))], ids=["alexeyab", "pjreddie"]
)
@pytest.mark.parametrize("half", [False, True])
def test_running_statistics_move_by_their_share(dialect: Dialect, shares: tuple[float, float], half: bool) -> None:
    model = random_model(graph(NET, dialect), 1)
    network = Network(model.graph)
    network.set_weights(model.weights)
    raw: list[torch.Tensor] = []
    for module in network.layers:
        module.linear = lambda *given, own=module.linear: raw.append(own(*given)) or raw[-1]  # type: ignore[assignment]
    x = torch.rand(5, 3, 5, 7, generator=torch.Generator().manual_seed(2))
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        outputs = network.train()(x, {0, 1})
    for index, (share, values) in enumerate(zip(shares, raw, strict=True)):
        assert values.dtype == outputs[index].dtype == (torch.bfloat16 if half else torch.float32)
        flat = values.detach().double().permute(1, 0, 2, 3).flatten(1).numpy()
        old, module = model.weights.layers[index], network.layers[index]
        mean, variance = flat.mean(1), flat.var(1, ddof=1)
        assert worst(module.mean.numpy(), old["mean"] * (1 - share) + share * mean) < 1e-5
        assert worst(module.variance.numpy(), old["variance"] * (1 - share) + share * variance) < 1e-5
        assert module.mean.dtype == torch.float32
        inverse = 1 / np.sqrt(variance + 1e-5) if dialect is ALEXEYAB else 1 / (np.sqrt(variance) + 1e-6)
        expected = (flat - mean[:, None]) * (inverse * old["scale"])[:, None] + old["bias"][:, None]
        found = outputs[index].detach().double().permute(1, 0, 2, 3).flatten(1).numpy()
        assert worst(found, expected) < (0.01 if half else 1e-5)
