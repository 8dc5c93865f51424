"""Whole branches: which may go, masked = slim without them, here and in stock Darknet, and what their going costs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.helpers import graph_of, random_model, with_input, worst
from tests.prune.graphs import random_cfg
from tests.prune.test_slim import farthest, random_keep
from yoloprune.darknet import cfg as cfg_file
from yoloprune.darknet import weights as weights_file
from yoloprune.darknet.dialect import PJREDDIE
from yoloprune.darknet.model import Graph
from yoloprune.darknet.network import build
from yoloprune.errors import InputError
from yoloprune.prune.branches import Branch, branches, branches_named
from yoloprune.prune.channels import trace
from yoloprune.prune.compensate import compensate
from yoloprune.prune.cost import Costs, flops, parameters
from yoloprune.prune.slim import channel_mask, mask, slim, slim_graph
from yoloprune.readers import libdarknet

CONV = "[convolutional]\nactivation=leaky\nfilters="
HEAD = f"{CONV}14\n[yolo]\nmask=0,1\nnum=2\nanchors=3,4,6,8\nclasses=2\n"
START = f"[net]\nwidth=17\nheight=13\nchannels=3\n{CONV}8\nsize=3\npad=1\n"
PARTS = {
    "leaky": f"{CONV}8\n",
    "logistic": f"{CONV}8\n".replace("leaky", "logistic"),
    "shared": f"{CONV}8\n{CONV}8\nshare_index=-1\n{CONV}8\nshare_index=1\n",
    "connected": "[connected]\noutput=8\nactivation=relu\n",
    "local": "[local]\nfilters=8\nactivation=leaky\n",
    "rnn": "[rnn]\noutput=8\nhidden=3\nactivation=relu\n",
    "gru": "[gru]\noutput=8\n",
    "lstm": "[lstm]\noutput=8\n",
    "norm": "[batchnorm]\n",
    "lrn": "[lrn]\n",
    "maxpool": "[maxpool]\nsize=1\n",
    "activation": "[activation]\nactivation=tanh\n",
    "softmax": "[softmax]\n",
    "crop": "[crop]\n",
    "reorg": "[reorg]\n",
    "implicit": "[implicit]\nfilters=8\n",
    "sam": "[sam]\nfrom=-1\n",
    **{
        f"{kind} {how}": f"[shortcut]\nfrom=-1\nactivation=linear\nweights_type={kind}\nweights_normalization={how}\n"
        for kind in ("per_feature", "per_channel")
        for how in ("relu", "softmax")
    },
}
"""Sections that make 8x1x1 of 8x1x1."""
BLOCK = f"# narrow\n{CONV}4\n\n# wide again\n{CONV}8\nsize=3\npad=1\n"


def with_branches(seed: int, *, classic: bool = False) -> tuple[Graph, tuple[Branch, ...]]:
    """The seed's graph, or the next one that has branches, and some of these."""
    rng = np.random.default_rng(seed)
    while True:
        text = random_cfg(seed, classic=classic)
        graph = graph_of(text, PJREDDIE) if classic else graph_of(text)
        found = branches(graph)
        if found:
            some = rng.choice(len(found), rng.integers(1, len(found) + 1), replace=False)
            return graph, tuple(found[index] for index in sorted(some))
        seed += 1000


@pytest.mark.parametrize("seed", range(40))
def test_masked_is_slim(seed: int) -> None:
    graph, dropped = with_branches(seed)
    model = random_model(graph, seed)
    channels = trace(graph, dropped)
    for keep in (channels.all_kept(), random_keep(channels, np.random.default_rng(seed))):
        slimmed = slim(model, channels, keep)
        assert len(slimmed.graph.layers) == len(graph.layers) - len(channels.removed)
        assert farthest(mask(model, channels, keep), slimmed, 2, seed) < 1e-9
        assert Costs(graph, channels, flops(graph)).total(keep) == sum(layer.flops for layer in slimmed.graph.layers)
        assert Costs(graph, channels, parameters(graph)).total(keep) == slimmed.graph.parameters


@settings(deadline=None)
@given(st.lists(st.sampled_from(sorted(PARTS)), min_size=1, max_size=4))
@example(["logistic", "per_channel softmax"])
def test_whatever_a_branch_is_made_of_masked_is_slim(parts: list[str]) -> None:
    front = START.replace("17", "1").replace("13", "1") + PARTS["leaky"]
    inside = "".join(PARTS[part] for part in parts)
    graph = graph_of(f"{front}{inside}[shortcut]\nfrom=1\nactivation=linear\n{HEAD}")
    model = random_model(graph, 1)
    for branch in branches(graph):
        channels = trace(graph, [branch])
        keep = channels.all_kept()
        assert farthest(mask(model, channels, keep), slim(model, channels, keep), 2, 1) < 1e-9


@pytest.mark.parametrize("seed", range(8))
def test_slim_computes_the_same_in_libdarknet(libdarknet: Path, tmp_path: Path, seed: int) -> None:
    graph, dropped = with_branches(seed, classic=True)
    model = random_model(graph, seed)
    channels = trace(graph, dropped)
    keep = random_keep(channels, np.random.default_rng(seed))
    x = np.random.default_rng(seed).random((2, *graph.net.input), np.float32)
    outputs = []
    for name, each in (("masked", mask(model, channels, keep)), ("slim", slim(model, channels, keep))):
        cfg, weights = tmp_path / f"{name}.cfg", tmp_path / f"{name}.weights"
        cfg_file.write(cfg, each.graph.cfg)
        weights_file.write(weights, each.weights, each.graph.layers)
        outputs.append(darknet_output(cfg, weights, x, each.graph))
    assert worst(*outputs) < 1e-4


def darknet_output(cfg: Path, weights: Path, x: np.ndarray, graph: Graph) -> np.ndarray:
    head = graph.outputs[0]
    return libdarknet.head_inputs(cfg, weights, x, [head])[head]


def test_which_prunable_at() -> None:
    def found(text: str) -> list[Branch]:
        return list(branches(graph_of(START + text + HEAD)))

    plain = f"{BLOCK}[shortcut]\nfrom=-3\nactivation=linear\n"
    assert found(plain) == [Branch(0, 3)]
    assert found(plain + plain.replace("from=-3", "from=3")) == [Branch(0, 3), Branch(3, 6)]
    dropout = f"{BLOCK}[dropout]\nprobability=0.2\n[shortcut]\nfrom=-4\nactivation=linear\n"
    assert found(dropout) == [Branch(0, 4)]
    nested = f"{CONV}8\n{plain}{CONV}8\n[shortcut]\nfrom=0\nactivation=linear\n"
    assert found(nested) == [Branch(1, 4), Branch(0, 6)]
    assert found(plain.replace("linear", "leaky")) == []  # would go through the activation twice
    assert found(plain.replace("leaky", "logistic")) == []  # its end is 0.5 when silenced
    assert found(f"{plain}[route]\nlayers=-1,1\n") == []  # read from outside
    assert found(f"{BLOCK}[shortcut]\nfrom=-2,-3\nactivation=linear\n") == []  # adds more than one
    weighted = "[shortcut]\nfrom=-2\nactivation=linear\nweights_type=per_channel\nweights_normalization="
    for ending, goes in [
        ("[batchnorm]\n", True),  # masked, it gives 0 of any map
        (f"{weighted}relu\n", True),
        (f"{weighted}softmax\n", False),  # masked, its weights are equal
        ("[local]\nfilters=8\nactivation=leaky\n", False),  # none of its arrays is masked
        (f"{CONV}8\nshare_index=1\n", False),  # nor is another's
    ]:
        end = f"{CONV}8\n{CONV}8\n".replace("leaky", "logistic") + ending
        assert found(f"{end}[shortcut]\nfrom=0\nactivation=linear\n") == ([Branch(0, 4)] if goes else [])
    assert found(f"{CONV}8\n{CONV}6\n[shortcut]\nfrom=-2\nactivation=linear\n") == []  # only some channels are added
    with pytest.raises(InputError, match=r"layer 2 adds no branch that can go \(expected some of 3\)"):
        branches_named(graph_of(START + plain + HEAD), [2])


def test_the_cfg_keeps_its_comments_and_ways_of_counting() -> None:
    text = (
        f"{START}# first block\n{BLOCK}[shortcut]\nfrom=-3\nactivation=linear\n\n# second block\n{BLOCK}[shortcut]\n"
        f"from=3\nactivation=linear\n\n# join\n[route]\nlayers = -1, 3, 0 # all\n{HEAD}"
    )
    graph = graph_of(text)
    first, second = branches(graph)
    channels = trace(graph, [first])
    slimmed = cfg_file.dump(slim_graph(graph, channels, channels.all_kept()).cfg).decode()
    expected = (
        f"{START}# first block\n# narrow\n\n# wide again\n\n# second block\n{BLOCK}[shortcut]\n"
        f"from=0\nactivation=linear\n\n# join\n[route]\n# all\nlayers=-1,0,0\n{HEAD}"
    )
    assert slimmed == expected
    channels = trace(graph, [second])
    last = cfg_file.dump(slim_graph(graph, channels, channels.all_kept()).cfg).decode()
    assert "layers = -1, 3, 0 # all" in last


@pytest.mark.parametrize("name", ["yolov4", "yolov3"])
def test_stock_cfgs(stock_cfg: Callable[[str], Path], name: str) -> None:
    graph = graph_of(with_input(stock_cfg(name).read_text(), 64, 64))
    found = branches(graph)
    assert len(found) == 23  # 1, 2, 8, 8 and 4 blocks
    channels = trace(graph, found[::2])
    keep = channels.all_kept()
    model = random_model(graph, 3)
    assert farthest(mask(model, channels, keep), slim(model, channels, keep), 1, 3) < 1e-9


def test_what_is_gone_is_held_and_in_no_group() -> None:
    graph = graph_of(f"{START}{BLOCK}[shortcut]\nfrom=-3\nactivation=linear\n{CONV}6\n{HEAD}")
    before, after = trace(graph), trace(graph, branches(graph))
    assert [group.label for group in before.groups] == ["0+2", "1", "4"]
    assert [group.label for group in after.groups] == ["0", "4"]
    held = channel_mask(graph, after, after.all_kept()).layers
    assert not any(array.any() for index in (1, 2) for array in held[index].values())
    assert all(array.all() for index in (0, 4, 5) for array in held[index].values())
    keep = before.all_kept()
    keep[before.groups[0].units[[1, 3]]] = False
    keep[before.groups[1].units[0]] = False
    carried = before.carried(keep, after)
    assert [int(carried[group.units].sum()) for group in after.groups] == [6, 6]
    assert [index for index, kept in enumerate(after.kept_outputs(3, carried)) if not kept] == [1, 3]


def test_consumers_take_over_what_the_branch_gave_on_average() -> None:
    """A branch that gives a constant costs little: its consumer is refitted on its columns and 1."""
    graph = graph_of(f"{START}{CONV}4\n{CONV}8\n[shortcut]\nfrom=-3\nactivation=linear\n{CONV}6\n{HEAD}")
    model = random_model(graph, 4)
    model.weights.layers[2]["weight"][:] = 0
    channels = trace(graph, branches(graph))
    x = torch.from_numpy(np.random.default_rng(4).random((6, *graph.net.input), np.float32))
    cut = compensate(model, channels, channels.all_kept(), [x])
    with torch.inference_mode():
        original, plain, refitted = (
            build(each)(x, [5])[5].numpy() for each in (model, mask(model, channels, channels.all_kept()), cut)
        )
    assert worst(refitted, original) < 0.2 * worst(
        plain, original
    )  # the ridge holds the constant back by up to a tenth
    assert farthest(cut, slim(cut, channels, channels.all_kept()), 2, 4) < 1e-9
