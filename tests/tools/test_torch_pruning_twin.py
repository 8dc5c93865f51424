"""The twin computes what our network does, and what Torch-Pruning leaves of it are whole units of ours."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch_pruning_twin import Twin, torch_pruning_mask

from tests.helpers import graph_of, random_model, worst
from yoloprune.darknet.network import build
from yoloprune.prune.channels import trace

CONV = "[convolutional]\nbatch_normalize=1\nactivation=leaky\npad=1\nfilters="
TEXT = (
    "[net]\nwidth=17\nheight=13\nchannels=3\n"
    f"{CONV}8\nsize=3\nstride=2\n{CONV}12\n{CONV}12\ngroups=12\nsize=3\n{CONV}8\n[shortcut]\nfrom=0\n"
    f"activation=linear\n[route]\nlayers=-1,-3\n{CONV}6\nsize=3\n[convolutional]\nfilters=14\nactivation=linear\n"
    "[yolo]\nmask=0,1\nnum=2\nanchors=3,4,6,8\nclasses=2\n"
)


def test_the_twin_computes_the_same() -> None:
    model = random_model(graph_of(TEXT), 1)
    x = torch.rand(2, 3, 13, 17, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        (ours,) = build(model)(x, [7]).values()
        (theirs,) = Twin(model)(x)
    assert worst(theirs.numpy(), ours.numpy()) < 1e-5


@pytest.mark.parametrize("importance", ["magnitude", "taylor"])
def test_whole_units_are_left(importance: str) -> None:
    pytest.importorskip("torch_pruning", reason="extra bench is not installed")
    model = random_model(graph_of(TEXT), 2)
    channels = trace(model.graph)
    truths = torch.tensor([[[0, 0.5, 0.5, 0.3, 0.4]], [[1, 0.2, 0.6, 0.5, 0.2]]])
    inputs = torch.rand(2, 3, 13, 17, generator=torch.Generator().manual_seed(2))
    keep = torch_pruning_mask(model, channels, 0.3, importance, [(inputs, truths)])
    prunable = np.concatenate([group.units for group in channels.groups])
    assert 0 < (~keep).sum() < len(prunable)
    assert keep[np.setdiff1d(np.arange(channels.units), prunable)].all()
