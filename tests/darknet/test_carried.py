"""Sections that are counted and carried but not run, and the orders of arrays that dialects differ in."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from tests.darknet.test_layers import NET, NOT_RUN, START
from tests.helpers import graph_of
from tests.oracles import libdarknet_many
from yoloprune.darknet import cfg as cfg_file
from yoloprune.darknet import weights as weights_file
from yoloprune.darknet.dialect import ALEXEYAB, PJREDDIE, Dialect
from yoloprune.darknet.model import Model
from yoloprune.darknet.network import build
from yoloprune.errors import InputError
from yoloprune.prune.channels import trace

CONV = START.replace("=8", "=52")
SECTIONS = {
    "crnn": (PJREDDIE, "[crnn]\noutput_filters=4\nhidden_filters=5\nbatch_normalize=1\n", (4, 17, 13)),
    "crnn wide": (ALEXEYAB, "[crnn]\noutput=4\nhidden=6\nsize=5\npad=1\ngroups=2\n", (4, 17, 13)),
    "conv_lstm": (ALEXEYAB, "[conv_lstm]\noutput=4\nsize=3\npad=1\npeephole=1\nbatch_normalize=1\n", (4, 17, 13)),
    "conv_lstm bottleneck": (ALEXEYAB, "[conv_lstm]\noutput=4\nsize=1\nbottleneck=1\n", (4, 17, 13)),
    "history": (ALEXEYAB, "[history]\nhistory_size=3\n", (156, 17, 13)),
    "deconvolutional": (PJREDDIE, "[deconv]\nfilters=4\nsize=3\nstride=2\npad=1\nbatch_normalize=1\n", (4, 33, 25)),
    "iseg": (PJREDDIE, "[iseg]\nclasses=20\nids=32\n", (52, 17, 13)),
}
COUNTS = {
    "crnn": (52 * 5 + 5 * 5 + 5 * 4) * 9 + 4 * (5 + 5 + 4),
    "crnn wide": (52 * 6 + 6 * 6 + 6 * 4) * 25 // 2 + 6 + 6 + 4,
    "conv_lstm": (7 * 4 * 4 + 4 * 52 * 4) * 9 + 11 * 4 * 4,
    "conv_lstm bottleneck": 8 * 4 + 4 * 52 * 4 + 5 * 4,
    "history": 0,
    "deconvolutional": 52 * 4 * 9 + 4 * 4,
    "iseg": 0,
}
"""Weights by the sources' shapes: 7 parts on the state and 4 on the input for a conv_lstm with peepholes."""


def test_all_sections_that_are_not_run_are_here() -> None:
    assert {name.split()[0] for name in SECTIONS} == NOT_RUN


@pytest.mark.parametrize("name", SECTIONS)
def test_counted_carried_and_not_run(name: str) -> None:
    dialect, text, out = SECTIONS[name]
    graph = graph_of(NET + CONV + text, dialect)
    layer = graph.layers[1]
    assert layer.out == out
    assert weights_file.count([layer]) == COUNTS[name]
    rng = np.random.default_rng(1)
    payload = rng.uniform(0, 1, graph.parameters).astype("<f4").tobytes()
    data = struct.pack("<iiiQ", 0, 2, 5, 9) + payload
    assert weights_file.dump(weights_file.parse(data, graph.layers), graph.layers) == data
    with pytest.raises(InputError, match=rf"layer 1 \[{layer.name}\]: networks with this section are read and written"):
        build(Model(graph, weights_file.parse(data, graph.layers)))
    assert {producer for group in trace(graph).groups for producer in group.producers} == set()


def test_counts_are_libdarknets(libdarknet: Path, tmp_path: Path) -> None:
    """It can't load what it saves of [deconvolutional]; its [crnn] needs a square."""
    square = NET.replace("13", "16").replace("17", "16") + CONV
    graphs = [
        graph_of(square + SECTIONS["crnn"][1], PJREDDIE),
        graph_of(square + SECTIONS["deconvolutional"][1], PJREDDIE),
    ]
    files = [tmp_path / f"{number}.cfg" for number in range(len(graphs))]
    for file, graph in zip(files, graphs, strict=True):
        cfg_file.write(file, graph.cfg)
    assert libdarknet_many.sizes(files) == [20 + 4 * graph.parameters for graph in graphs]


@pytest.mark.parametrize(
    ("dialect", "section", "order"),
    [
        (PJREDDIE, "lstm", "wi wf wo wg ui uf uo ug"),
        (ALEXEYAB, "lstm", "wf wi wg wo uf ui ug uo"),
        (PJREDDIE, "gru", "wz wr wh uz ur uh"),
        (ALEXEYAB, "gru", "uz ur uh wz wr wh"),
        (ALEXEYAB, "rnn", "u w output"),
    ],
)
def test_orders_of_recurrent_parts(dialect: Dialect, section: str, order: str) -> None:
    """Each part as a [connected] section stores its arrays: bias, weight, then batch norm."""
    (layer,) = graph_of(NET + f"[{section}]\noutput=3\nhidden=5\nbatch_normalize=1\n", dialect).layers
    kinds = ("bias", "weight", "scale", "mean", "variance")
    assert [spec.name for spec in layer.tensors()] == [f"{part}_{kind}" for part in order.split() for kind in kinds]
    if section == "rnn":
        shapes = {spec.name: spec.shape for spec in layer.tensors()}
        assert shapes["u_weight"] == (5, 6 * 17 * 13)
        assert (shapes["w_weight"], shapes["output_weight"]) == ((5, 5), (3, 5))
