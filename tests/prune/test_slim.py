"""The promise: masked = slim, on random graphs and on stock ones, and what is slim still loads in stock Darknet."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers import graph_of, random_model, with_input, worst
from tests.prune.graphs import random_cfg
from yoloprune.darknet import cfg as cfg_file
from yoloprune.darknet import weights as weights_file
from yoloprune.darknet.dialect import ALEXEYAB, PJREDDIE, Dialect
from yoloprune.darknet.layers.base import REGISTRY
from yoloprune.darknet.model import Model
from yoloprune.darknet.network import build
from yoloprune.prune.channels import Channels, KeepMask, trace
from yoloprune.prune.criteria import CRITERIA, CalibrationStatistics
from yoloprune.prune.slim import mask, slim
from yoloprune.readers import libdarknet as darknet

STOCK = ["yolov3-tiny", "yolov4", "yolov4-tiny", "csresnext50-panet-spp", "densenet201", "efficientnet_b0"]


def random_keep(channels: Channels, rng: np.random.Generator) -> KeepMask:
    """Each group loses a random share, but never all; at least one group loses something."""
    keep = channels.all_kept()
    first = next(group for group in channels.groups if len(group.units) > 1)
    for group in channels.groups:
        dropped = rng.integers(1 if group is first else 0, len(group.units))
        keep[rng.choice(group.units, dropped, replace=False)] = False
    return keep


def farthest(masked: Model, slimmed: Model, batch: int, seed: int) -> float:
    """Largest relative difference at the tensors that enter the outputs, in float64."""
    x = torch.from_numpy(np.random.default_rng(seed).random((batch, *masked.graph.net.input)))
    with torch.inference_mode():
        a, b = (build(model).double()(x, model.graph.head_inputs) for model in (masked, slimmed))
    pairs = zip(masked.graph.head_inputs, slimmed.graph.head_inputs, strict=True)
    return max(worst(a[i].numpy(), b[j].numpy()) for i, j in pairs)


@pytest.mark.parametrize("seed", range(60))
def test_random_graph(seed: int) -> None:
    model = random_model(graph_of(random_cfg(seed)), seed)
    channels = trace(model.graph)
    keep = random_keep(channels, np.random.default_rng(seed))
    assert not keep.all()
    slimmed = slim(model, channels, keep)
    assert slimmed.graph.parameters < model.graph.parameters
    assert farthest(mask(model, channels, keep), slimmed, 2, seed) < 1e-9


@pytest.mark.parametrize("seed", range(12))
def test_slim_loads_and_computes_the_same_in_libdarknet(libdarknet: Path, tmp_path: Path, seed: int) -> None:
    model = random_model(graph_of(random_cfg(seed, classic=True), PJREDDIE), seed)
    channels = trace(model.graph)
    keep = random_keep(channels, np.random.default_rng(seed))
    x = np.random.default_rng(seed).random((2, *model.graph.net.input), np.float32)
    outputs = []
    for name, each in (("masked", mask(model, channels, keep)), ("slim", slim(model, channels, keep))):
        cfg, weights = tmp_path / f"{name}.cfg", tmp_path / f"{name}.weights"
        cfg_file.write(cfg, each.graph.cfg)
        weights_file.write(weights, each.weights, each.graph.layers)
        head = each.graph.outputs[0]
        outputs.append(darknet.head_inputs(cfg, weights, x, [head])[head])
    assert worst(*outputs) < 1e-4


@pytest.mark.parametrize("name", STOCK)
def test_stock_cfg(stock_cfg: Callable[[str], Path], tmp_path: Path, name: str) -> None:
    text = stock_cfg(name).read_text()
    small = with_input(text, 64, 64)
    model = random_model(graph_of(small, ALEXEYAB), 7)
    channels = trace(model.graph)
    slimmed = slim(model, channels, random_keep(channels, np.random.default_rng(7)))
    assert slimmed.graph.bflops < model.graph.bflops
    masked = mask(model, channels, random_keep(channels, np.random.default_rng(7)))
    assert farthest(masked, slimmed, 1, 7) < 1e-9


@pytest.mark.parametrize("name", STOCK)
def test_slim_stock_cfg_loads_in_libdarknet_where_the_original_does(
    stock_cfg: Callable[[str], Path], libdarknet: Path, tmp_path: Path, name: str
) -> None:
    model = random_model(graph_of(with_input(stock_cfg(name).read_text(), 64, 64), ALEXEYAB), 7)
    channels = trace(model.graph)
    slimmed = slim(model, channels, random_keep(channels, np.random.default_rng(7)))
    for each in (model, slimmed):
        cfg_file.write(tmp_path / "net.cfg", each.graph.cfg, force=True)
        reason = darknet.loads(tmp_path / "net.cfg", None)
        if each is model and reason is not None:
            pytest.skip(f"the original does not load in stock Darknet: {reason}")
        assert reason is None


NET = "[net]\nwidth=16\nheight=16\nchannels=8\n"
FROZEN = {
    "contrastive": "[contrastive]\n",
    "conv_lstm": "[conv_lstm]\noutput=8\npad=1\n",
    "crnn": "[crnn]\noutput=8\nhidden=8\npad=1\n",
    "deconvolutional": "[deconvolutional]\nfilters=8\n",
    "detection": "[detection]\nside=16\nclasses=3\ncoords=4\n",
    "gru": "[gru]\noutput=8\n",
    "history": "[history]\n",
    "iseg": "[iseg]\nclasses=3\nids=5\n",
    "l2norm": "[l2norm]\n",
    "logistic": "[logistic]\n",
    "lstm": "[lstm]\noutput=8\n",
    "rnn": "[rnn]\noutput=8\nhidden=8\n",
    "local": "[local]\nfilters=6\nsize=3\npad=1\n",
    "normalization": "[normalization]\n",
    "reorg": "[maxpool]\nsize=2\nstride=2\npadding=0\n[reorg]\nstride=2\n",
}
"""Sections that channels can't be followed through, each behind layer 1."""
ELSEWHERE = {"cost", "Gaussian_yolo"}
"""The first passes on, as the last of a network; the second needs channels of its own: see test_frozen_by_key."""


def test_random_graphs_have_every_section_that_channels_flow_through() -> None:
    texts = [random_cfg(seed) for seed in range(60)]
    drawn = {section.name for text in texts for section in cfg_file.parse(text.encode()).sections}
    assert {kind.names[0] for kind in REGISTRY.values()} - set(FROZEN) == drawn - {"net"} | ELSEWHERE
    for key in ("groups=2\ngroup_id=1", "share_index=", "antialiasing=", "maxpool_depth=", "reverse=", "per_channel"):
        assert any(key in text for text in texts), key


def prunable_producers(text: str, dialect: Dialect = ALEXEYAB) -> set[int]:
    """Layers with channels that can go: 0 and 1 are convolutions before the section, the last one is behind it."""
    start = NET + 2 * "[convolutional]\nfilters=8\nsize=3\npad=1\n"
    end = "[convolutional]\nfilters=4\n[convolutional]\nfilters=3\n"
    groups = trace(graph_of(start + text + end, dialect)).groups
    return {producer for group in groups for producer in group.producers}


@pytest.mark.parametrize("name", FROZEN)
def test_frozen_sections_lose_no_channel(name: str) -> None:
    """Neither what they read nor what they make; what stands before and behind can still go."""
    dialect = PJREDDIE if REGISTRY[name].classic else ALEXEYAB
    behind = 4 if name == "reorg" else 3
    left = {0, behind, behind + 1} if REGISTRY[name].is_output else {0, behind}  # behind a head nothing else is output
    assert prunable_producers(FROZEN[name], dialect) == left


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("[convolutional]\nfilters=10\n[Gaussian_yolo]\nclasses=1\n", {0, 1, 4, 5}),
        ("[convolutional]\nfilters=6\nactivation=normalize_channels\n", {0, 1, 3}),
        ("[convolutional]\nfilters=6\nxnor=1\n", {0, 2, 3}),
        ("[maxpool]\nmaxpool_depth=1\nout_channels=3\n", {0, 3}),
        ("[reorg3d]\nstride=2\n", {0, 1, 3}),
    ],
)
def test_frozen_by_key(text: str, left: set[int]) -> None:
    assert prunable_producers(text) == left


def test_criteria_rank_channels_of_shared_and_implicit_layers() -> None:
    shared = "[convolutional]\nfilters=8\nsize=3\npad=1\n"
    text = NET + 3 * shared + "share_index=-1\n[implicit]\nfilters=8\n[scale_channels]\nfrom=2\n" + shared
    model = random_model(graph_of(text), 1)
    channels = trace(model.graph)
    (group,) = channels.groups
    assert group.producers == (0, 1, 2, 3)
    statistics = CalibrationStatistics(model, channels, channels.all_kept())
    assert list(statistics.consumers) == [5]
    arrays = [model.weights.layers[index]["weight"] for index in (0, 1, 1, 3)]
    sums = [np.abs(array).sum(tuple(range(1, array.ndim))) for array in arrays]
    importance = sum(each / each.mean() for each in sums)
    assert CRITERIA["l1"](statistics, group) == tuple(np.argsort(importance))


def test_nothing_dropped_changes_nothing() -> None:
    model = random_model(graph_of(random_cfg(3)), 3)
    channels = trace(model.graph)
    same = slim(model, channels, channels.all_kept())
    assert cfg_file.dump(same.graph.cfg) == cfg_file.dump(model.graph.cfg)
    assert weights_file.dump(same.weights, same.graph.layers) == weights_file.dump(model.weights, model.graph.layers)
