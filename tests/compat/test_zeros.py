"""Zeros inside a dense network: what `check` says of them, once a file and reader; counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.helpers import graph_of, random_model
from yoloprune.compat import CONVERTERS, PROFILES, Finding, WeightsFile, check, lost_values
from yoloprune.compat.zeros import Zeros
from yoloprune.darknet import cfg as cfg_file
from yoloprune.darknet import weights as weights_file

TEXT = (
    "[net]\nwidth=13\nheight=17\nchannels=3\n"
    "[convolutional]\nfilters=8\nsize=3\npad=1\nstride=1\nbatch_normalize=1\nactivation=linear\n"
    "[convolutional]\nfilters=6\nsize=3\npad=1\nstride=1\nactivation=linear\n"
    "[convolutional]\nfilters=5\nsize=1\npad=1\nstride=1\nactivation=linear\n"
    "[connected]\noutput=2\nactivation=linear\n"
)
"""Weights: 8x3x3x3, 6x8x3x3, 5x6x1x1, 2x1105."""
GRAPH = graph_of(TEXT)
SIZE = 8 * 27 + 6 * 72 + 5 * 6 + 2 * 1105
READERS = [*PROFILES.values(), *CONVERTERS.values()]
COMPUTED = "all are computed, and nothing runs faster; the file gets small only once it is packed or compressed"


def arrays(**kept: NDArray[np.bool_]) -> list[dict[str, NDArray[np.float32]]]:
    """Random arrays of each layer; of layer N the weights that `atN` doesn't keep are 0."""
    made = [dict(each) for each in random_model(GRAPH, 7).weights.layers]
    for name, keep in kept.items():
        each = made[int(name.removeprefix("at"))]
        each["weight"] = each["weight"] * keep
    return made


def file_of(**kept: NDArray[np.bool_]) -> WeightsFile:
    model = random_model(GRAPH, 7).with_arrays(dict(enumerate(arrays(**kept))))
    return WeightsFile("a.weights", np.frombuffer(weights_file.dump(model.weights, GRAPH.layers), np.uint8))


def notes(weights: WeightsFile | None, text: str = TEXT) -> dict[str, list[str]]:
    """What is said of zeros, by reader."""
    found: dict[str, list[str]] = {}
    for each in check(cfg_file.parse(text.encode()), READERS, weights):
        if " are 0, " in each.message:
            assert (each.severity, each.line, each.layer) == ("note", None, None)
            found.setdefault(each.reader, []).append(each.message)
    return found


def first(count: int, *shape: int) -> NDArray[np.bool_]:
    """All but the first `count`."""
    return (np.arange(np.prod(shape)) >= count).reshape(shape)


def two_of_four(rows: int, columns: int, seed: int) -> NDArray[np.bool_]:
    """Two random places of each four, of fewer at the end at most two."""
    rng = np.random.default_rng(seed)
    parts = np.argsort(rng.random((rows, -(-columns // 4), 4)), -1) < 2
    return parts.reshape(rows, -1)[:, :columns]


def test_every_reader_hears_of_it_once() -> None:
    """43 of layer 1's 432 weights are just under a tenth, 44 just over; layers 1 and 2 have many then."""
    few = {"at1": first(43, 6, 8, 3, 3)}
    assert notes(file_of(**few)) == notes(None) == notes(file_of()) == {}
    found = notes(file_of(at1=first(44, 6, 8, 3, 3), at2=first(15, 5, 6, 1, 1)))
    assert found.keys() == {each.name for each in READERS} - {"opencv5"}
    said = f"weights: {59 / SIZE:.1%} of the weights are 0, a tenth or more in 2 of 4 layers: "
    converted = found.pop("tensorrt_demos")
    assert all(messages == [said + COMPUTED] for messages in found.values())
    assert len(converted) == 1
    assert converted[0].startswith(f"{said}TensorRT, also in ONNX Runtime, skips them on GPUs from Ampere on")
    assert "(2:4): in 0 of these layers; elsewhere all are computed" in converted[0]


def test_zeros_that_obey_2_to_4_are_called_so() -> None:
    """A few stray zeros in another layer don't matter; one place of the kernel that breaks the rule does."""
    keep = np.moveaxis(two_of_four(6 * 9, 8, 1).reshape(6, 3, 3, 8), -1, 1)
    (message,) = notes(file_of(at1=keep, at3=first(9, 2, 1105)))["opencv"]
    assert f"in 1 of 4 layers (2:4 in 1): {COMPUTED}" in message
    broken = keep.copy()
    broken[5, 4:7, 2, 1] = True
    (message,) = notes(file_of(at1=broken))["opencv"]
    assert "2:4" not in message


@pytest.mark.parametrize("seed", range(3))
def test_neighbours_are_input_channels(seed: int) -> None:
    """As TensorRT counts; not neighbours in the file, which are places of one kernel."""
    rows = two_of_four(6, 72, seed).reshape(6, 8, 3, 3)
    channels = np.moveaxis(two_of_four(6 * 9, 8, seed).reshape(6, 3, 3, 8), -1, 1)
    for keep, expected in ((rows, 0), (channels, 1)):
        found = Zeros.of(GRAPH.layers, arrays(at1=keep))
        assert (found.share, found.layers, found.sparse, found.two_of_four) == (216 / SIZE, 4, 1, expected)
    (message,) = notes(file_of(at1=channels))["tensorrt_demos"]
    assert "(2:4): in 1 of these layers" in message


def test_channels_of_no_multiple_of_four() -> None:
    """3, 6 and 1105 of them, in none of TensorRT's layers."""
    kept = {"at0": two_of_four(8 * 9, 3, 2).reshape(8, 3, 3, 3), "at2": two_of_four(5, 6, 3).reshape(5, 6, 1, 1)}
    found = Zeros.of(GRAPH.layers, arrays(**kept, at3=two_of_four(2, 1105, 4)))
    assert (found.sparse, found.two_of_four) == (3, 0)


def test_of_a_file_that_does_not_fit_nothing_is_said() -> None:
    weights = file_of(at1=first(400, 6, 8, 3, 3))
    cut = WeightsFile("a.weights", weights.data[:-4])
    odd = weights.data.copy()
    odd[20:24].view("<f4")[:] = np.nan
    assert notes(cut) == notes(WeightsFile("a.weights", odd)) == notes(WeightsFile("a.weights", weights.data[:7])) == {}
    assert notes(weights, TEXT + "[convnext]\n") == {}


def test_export_warns_of_no_zeros() -> None:
    weights = file_of(at1=first(432, 6, 8, 3, 3))
    lost: list[Finding] = lost_values(cfg_file.parse(TEXT.encode()), READERS, weights)
    assert lost == []
    assert notes(weights)
