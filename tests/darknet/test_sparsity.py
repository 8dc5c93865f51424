"""Zeros are counted in the arrays that are there; the file's own bytes are the oracle."""

from __future__ import annotations

import numpy as np
import pytest

from tests.helpers import graph_of, random_model
from yoloprune.darknet import weights as weights_file
from yoloprune.darknet.dialect import PJREDDIE
from yoloprune.darknet.model import Model
from yoloprune.darknet.sparsity import effective_bflops, nonzero, sparsity, total_nonzero

NET = "[net]\nwidth=13\nheight=17\nchannels=3\n"
CONV = "[convolutional]\nfilters=6\nsize=3\npad=1\nbatch_normalize=1\n"


def with_zeros(model: Model, seed: int, share: float) -> Model:
    """About that share of every array is 0."""
    rng = np.random.default_rng(seed)
    layers = enumerate(model.weights.layers)
    return model.with_arrays(
        {at: {name: each * (rng.random(each.shape) >= share) for name, each in arrays.items()} for at, arrays in layers}
    )


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_what_is_not_0_in_the_file(share: float) -> None:
    text = NET + CONV + "[dropout]\n[connected]\noutput=5\n[rnn]\nhidden=3\noutput=2\n"
    model = with_zeros(random_model(graph_of(text), 1), 2, share)
    data = weights_file.dump(model.weights, model.graph.layers)
    assert total_nonzero(model) == np.count_nonzero(np.frombuffer(data, "<f4", offset=20))


def test_filters_that_no_file_holds_do_not_count() -> None:
    """numload=4: four of six filters; 3 x 9 weights, bias, scale, mean and variance each."""
    graph = graph_of(NET + CONV + "numload=4\n", PJREDDIE)
    model = Model(graph, weights_file.initial(graph.layers, 3))
    (arrays,) = model.weights.layers
    full = {name: np.ones_like(array) for name, array in arrays.items()}
    assert nonzero(graph.layers[0], full) == weights_file.count(graph.layers) == 4 * (27 + 4)


def test_sparsity_is_of_weights_alone() -> None:
    model = random_model(graph_of(NET + CONV + "[dropout]\n"), 4)
    conv, dropout = model.graph.layers
    arrays = {name: np.zeros_like(array) for name, array in model.weights.layers[0].items()}
    arrays["weight"][:, 1] = 0.5
    assert sparsity(conv, arrays) == 2 / 3
    assert sparsity(dropout, {}) is None


def test_operations_go_with_the_weights_also_of_a_layer_that_shares_them() -> None:
    """Layers of 2 k^2 C N H W operations each: 3 of 4 weights of the second go, and the third computes with them."""
    text = NET + CONV + CONV + CONV + "share_index=-1\n[maxpool]\nsize=2\nstride=2\n"
    model = random_model(graph_of(text), 5)
    assert effective_bflops(model) == model.graph.bflops
    arrays = {name: array.copy() for name, array in model.weights.layers[1].items()}
    arrays["weight"].ravel()[np.random.default_rng(6).permutation(6 * 6 * 9)[: 6 * 6 * 9 * 3 // 4]] = 0
    inner = 2 * 9 * 6 * 6 * 13 * 17
    assert effective_bflops(model.with_arrays({1: arrays})) == pytest.approx(
        (inner / 2 + 2 * inner / 4) / 1e9, rel=1e-12
    )
