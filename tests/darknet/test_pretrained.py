"""Weights to start from out of files of other networks: never a layer of another shape, and as many as can be known."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.helpers import graph_of, random_model
from yoloprune.darknet import weights as weights_file
from yoloprune.darknet.dialect import PJREDDIE
from yoloprune.darknet.model import Graph, Model
from yoloprune.darknet.pretrained import read_pretrained
from yoloprune.errors import InputError

CONV = "[convolutional]\nbatch_normalize=1\nfilters={}\nsize={}\npad=1\nactivation=leaky\n"
POOL = "[maxpool]\nsize=2\nstride=2\n"
NET = "[net]\nwidth=64\nheight=64\nchannels=3\n"
BACKBONE = ((16, 3), (24, 1), (32, 3), (17, 3))
HEAD = "[convolutional]\nfilters={}\nsize=1\nactivation=linear\n"
YOLO = "[yolo]\nmask=0,1\nanchors=10,10,24,24\nnum=2\nclasses={}\n"


def body(convolutions: Sequence[tuple[int, int]] = BACKBONE) -> str:
    """A pool behind every second convolution."""
    parts = [CONV.format(*each) + (POOL if number % 2 else "") for number, each in enumerate(convolutions)]
    return NET + "".join(parts)


def detector(classes: int, convolutions: Sequence[tuple[int, int]] = BACKBONE) -> Graph:
    """Two heads, and a convolution between them."""
    head = HEAD.format(2 * (5 + classes)) + YOLO.format(classes)
    return graph_of(body(convolutions) + head + "[route]\nlayers=-3\n" + CONV.format(20, 1) + head)


FIRST_HEAD = 6
"""Index of the convolution before it: four others and two pools stand before."""


def saved(graph: Graph, file: Path, seed: int = 0) -> Model:
    model = random_model(graph, seed)
    weights_file.write(file, model.weights, graph.layers, force=True)
    return model


def check_taken(graph: Graph, file: Path, model: Model, expected: int, layers: int | None = None) -> None:
    """The first `expected` layers are the file's, the others as new."""
    weights, taken = read_pretrained(file, graph, 3, layers)
    assert taken == expected
    new = weights_file.initial(graph.layers, 3)
    for index, arrays in enumerate(weights.layers):
        source = model.weights if index < taken else new
        assert arrays.keys() == source.layers[index].keys()
        assert all(np.array_equal(arrays[name], source.layers[index][name]) for name in arrays), index


@pytest.mark.parametrize("classes", [1, 2, 7, 80, 601])
def test_other_classes_are_told_by_the_length(tmp_path: Path, classes: int) -> None:
    file = tmp_path / "a.weights"
    for number, ours in enumerate((1, 3, 20)):
        model = saved(detector(classes), file, number)
        check_taken(detector(ours), file, model, FIRST_HEAD if ours != classes else len(detector(1).layers))


@pytest.mark.parametrize(
    "end", ["[avgpool]\n" + HEAD.format(10), HEAD.format(37) + "[avgpool]\n", "[avgpool]\n[connected]\noutput=9\n"]
)
def test_the_backbone_of_a_classifier(tmp_path: Path, end: str) -> None:
    """darknet53.weights or darknet19_448.weights, of which Darknet's users cut darknet53.conv.74."""
    file = tmp_path / "a.weights"
    model = saved(graph_of(body() + end + "[softmax]\n"), file)
    check_taken(detector(4), file, model, FIRST_HEAD)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("at", "other"),
    [(1, (48, 1)), (1, (23, 1)), (1, (24, 3)), (2, (32, 1)), (2, (16, 3)), (2, (64, 3)), (3, (34, 3)), (3, (19, 3))],
)
def test_no_layer_of_another_shape_is_taken(tmp_path: Path, at: int, other: tuple[int, int], seed: int) -> None:
    """Convolution `at` has other filters or another size; those before it are taken, or all but the last of them."""
    convolutions = [*BACKBONE, (18, 1), (21, 3)]
    theirs = [*convolutions[:at], other, *convolutions[at + 1 :]]
    file = tmp_path / "a.weights"
    model = saved(detector(9, theirs), file, seed)
    same = at + at // 2  # layers before it: pools stand behind every second
    try:
        _, taken = read_pretrained(file, detector(9, convolutions), 0)
    except InputError:
        taken = 0
    assert max(same - 2, 0) <= taken <= same
    if taken:
        check_taken(detector(9, convolutions), file, model, taken)


def test_as_many_as_are_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "a.weights"
    theirs, ours = detector(80), detector(3)
    model = saved(theirs, file)
    for layers in (1, 2, 3, FIRST_HEAD):
        check_taken(ours, file, model, layers, layers)
    size = weights_file.count(theirs.layers)
    with pytest.raises(InputError, match=r"--pretrained-layers: expected 1\.\.12 as the network has layers, found 13"):
        read_pretrained(file, ours, 0, 13)
    wide = detector(500)
    needed = weights_file.count(wide.layers)
    message = rf"a\.weights: --pretrained-layers: expected {needed} floats for 11 layers, found {size}"
    with pytest.raises(InputError, match=message):
        read_pretrained(file, wide, 0, 11)


def test_files_that_have_no_layer_of_ours(tmp_path: Path) -> None:
    file = tmp_path / "a.weights"
    saved(detector(3, [(40, 3), (24, 1), (9, 3), (17, 3)]), file)
    with pytest.raises(InputError, match=r"a\.weights: its first layers are of another shape .*--pretrained-layers N"):
        read_pretrained(file, detector(3), 0)
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(InputError, match="expected floats of 4 bytes behind the header"):
        read_pretrained(file, detector(3), 0)
    file.write_bytes(weights_file.Header().dump())
    with pytest.raises(InputError, match="byte 20: expected floats"):
        read_pretrained(file, detector(3), 0)


def test_a_file_that_ends_behind_a_layer_and_within_one(tmp_path: Path) -> None:
    file = tmp_path / "a.weights"
    graph = detector(3)
    model = saved(graph, file)
    content = file.read_bytes()
    for layers, taken in ((1, 1), (2, 3), (4, 4), (5, 6), (7, 9)):  # pools, yolo and route hold nothing
        file.write_bytes(content[: 20 + 4 * weights_file.count(graph.layers[:layers])])
        check_taken(graph, file, model, taken)
    file.write_bytes(content[: 16 + 4 * weights_file.count(graph.layers[:4])])  # within layer 3, behind its variances
    check_taken(graph, file, model, 3)


def test_what_is_taken_is_what_darknet_partial_writes(libdarknet: Path, tmp_path: Path) -> None:
    """Of its yolov3-tiny, narrowed, with 80 classes, for one with 3."""
    cfg = Path("/usr/share/darknet/cfg/yolov3-tiny.cfg")
    if not cfg.exists():
        pytest.skip(f"Debian's darknet: no {cfg}")
    text = cfg.read_text().replace("filters=1024", "filters=36").replace("filters=512", "filters=40")
    theirs = graph_of(text, PJREDDIE)
    ours = graph_of(text.replace("filters=255", "filters=24").replace("classes=80", "classes=3"), PJREDDIE)
    files = [tmp_path / name for name in ("a.cfg", "a.weights", "a.conv")]
    files[0].write_text(text)
    saved(theirs, files[1])
    weights, taken = read_pretrained(files[1], ours, 0)
    assert taken == 15
    command = ["darknet", "partial", *map(str, files), str(taken)]
    subprocess.run(command, capture_output=True, check=False)
    part = weights_file.parse(files[2].read_bytes(), ours.layers[:taken])
    for layer, expected in zip(weights.layers, part.layers, strict=False):
        assert all(np.array_equal(layer[name], expected[name]) for name in expected)
