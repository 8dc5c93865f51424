"""Weights to start from, out of whole files and partial ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.helpers import random_model
from tests.train.nets import graph
from yoloprune.darknet import weights as weights_file
from yoloprune.errors import InputError
from yoloprune.train.pretrained import start_weights

NET = (
    "[net]\nwidth=16\nheight=16\nchannels=3\n"
    "[convolutional]\nfilters=4\nsize=3\nbatch_normalize=1\n[maxpool]\nsize=2\nstride=2\n"
    "[convolutional]\nfilters=5\n[convolutional]\nfilters=6\n[yolo]\nclasses=1\nnum=1\n"
)


@pytest.mark.parametrize("layers", [1, 2, 3, 5])
def test_the_first_layers_come_from_the_file(tmp_path: Path, layers: int) -> None:
    own = graph(NET)
    model = random_model(own, 1)
    data = weights_file.dump(model.weights.with_seen(77), own.layers)
    file = tmp_path / "net.conv.n"
    file.write_bytes(data[: 20 + 4 * weights_file.count(own.layers[:layers])])
    found, taken = start_weights(own.layers, 3, file)
    fresh, none = start_weights(own.layers, 3)
    assert (taken, none) == ({1: 2, 2: 2, 3: 3, 5: 5}[layers], 0)  # a layer without arrays costs nothing
    assert found.header.seen == 0
    for index, arrays in enumerate(found.layers):
        for name, array in arrays.items():
            np.testing.assert_array_equal(array, (model.weights if index < layers else fresh).layers[index][name])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[:-4], "whole layers of them"),
        (lambda data: data + b"1234", "whole layers of them"),
        (lambda data: data[:-1], "whole layers of them"),
        (lambda data: data[:20], "whole layers of them"),
        (lambda data: data[:9], "expected a header"),
        (lambda data: data[:24] + b"\xff\xff\xff\x7f" + data[28:], "layer 0"),
    ],
)
def test_anything_else_is_refused(tmp_path: Path, change: object, message: str) -> None:
    own = graph(NET)
    file = tmp_path / "net.weights"
    assert callable(change)
    file.write_bytes(change(weights_file.dump(random_model(own, 1).weights, own.layers)))
    with pytest.raises(InputError, match=message):
        start_weights(own.layers, 3, file)
    with pytest.raises(InputError, match="cannot be read"):
        start_weights(own.layers, 3, tmp_path / "missing")
