"""Channels by one scale of batch norm for all layers, against a sort of all of them."""

from __future__ import annotations

import numpy as np
import pytest

from tests.helpers import graph_of, random_model
from tests.prune.test_layer_by_layer import TEXT
from yoloprune.prune.channel_units import ChannelUnits
from yoloprune.prune.limits import Limits
from yoloprune.prune.prescribed import globally_by_scale
from yoloprune.prune.pruner import Pruner


@pytest.mark.parametrize("share", [0.2, 0.5, 0.7])
def test_the_least_scales_go_wherever_they_are(share: float) -> None:
    """Groups 0 and 6 of one filter a channel; 1+4 and 2+3 of two, whose mean counts."""
    model = random_model(graph_of(TEXT.replace("batch_normalize=1\n", "", 1)), 3)
    units = ChannelUnits.of(model.graph)
    units = units.without({"6": [3, 7]})
    scale = {index: np.abs(model.weights.layers[index]["scale"]) for index in (1, 2, 3, 4, 6)}
    means = {"1+4": (scale[1] + scale[4]) / 2, "2+3": (scale[2] + scale[3]) / 2, "6": scale[6].copy()}
    means["6"][[3, 7]] = -1
    ranked = sorted((value, label) for label, each in means.items() for value in each)
    gone = ranked[: int(share * (12 + 12 + 9 + 10))]  # of all; group 0 has no batch norm and stays
    expected = {label: sum(name == label for _, name in gone) for label in means} | {"0": 0}
    curves = Pruner(model, units).first_curves("bn-scale")
    found = globally_by_scale(units, model, curves, Limits(), share)
    sizes = {"1+4": 12, "2+3": 9, "6": 10, "0": 12}
    assert found == {
        label: min(max(count, 2 if label == "6" else 0), sizes[label] - 1) for label, count in expected.items()
    }
