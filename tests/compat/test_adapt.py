"""Cfgs written for one reader: its words, the same network; and batch norm folded, the same numbers in all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers import graph_of, random_model, worst
from yoloprune.compat import PROFILES, check
from yoloprune.compat.adapt import adapted
from yoloprune.darknet import cfg as cfg_file
from yoloprune.darknet import weights as weights_file
from yoloprune.darknet.dialect import ALEXEYAB
from yoloprune.darknet.fold import folded
from yoloprune.darknet.model import Model, build_graph
from yoloprune.darknet.network import build
from yoloprune.errors import InputError
from yoloprune.readers import libdarknet, opencv

NORMALIZED = """
[net]
width=13
height=17
channels=3
[convolutional]
batch_normalize=1
filters=8
size=3
pad=1
activation=leaky
[convolutional]
batch_normalize=1
filters=8
groups=4
size=3
stride=2
pad=1
activation=logistic
[connected]
batch_normalize=1
output=6
activation=leaky
[connected]
output=5
activation=linear
"""


def tiny_variances(text: str, seed: int) -> Model:
    """Random weights, variances down to 1e-6: there the small number that is added to them matters."""
    model = random_model(graph_of(text), seed)
    rng = np.random.default_rng(seed)
    layers = []
    for arrays in model.weights.layers:
        own = dict(arrays)
        if "variance" in own:
            own["variance"] = (10.0 ** rng.uniform(-6, -4, own["variance"].shape)).astype(np.float32)
            own["scale"] = own["scale"] * np.float32(0.01)
        layers.append(own)
    return model.with_weights(replace(model.weights, layers=tuple(layers)))


@pytest.mark.usefixtures("libdarknet")
@pytest.mark.parametrize("seed", [1, 2])
def test_folded_all_readers_compute_what_we_do(tmp_path: Path, seed: int) -> None:
    model = tiny_variances(NORMALIZED, seed)
    inputs = np.random.default_rng(seed).random((2, 3, 17, 13), np.float32)
    with torch.inference_mode():
        expected = build(model)(torch.from_numpy(inputs))[3].numpy()

    def apart(model: Model, name: str) -> float:
        reader = {"pjreddie": libdarknet, "opencv": opencv}[name]
        cfg, weights = tmp_path / f"{name}.cfg", tmp_path / f"{name}.weights"
        cfg_file.write(cfg, adapted(model.graph.cfg, PROFILES[name]), force=True)
        weights_file.write(weights, model.weights, model.graph.layers, force=True)
        return worst(reader.head_inputs(cfg, weights, inputs, [4])[4].reshape(expected.shape), expected)

    with pytest.raises(InputError, match=r"layer 2: .* can't be written for OpenCV: arrays are read in another order"):
        adapted(model.graph.cfg, PROFILES["opencv"])
    assert apart(model, "pjreddie") > 1e-2
    for name in ("pjreddie", "opencv"):
        assert apart(folded(model), name) < 1e-5  # float32, summed in another order


@pytest.mark.usefixtures("libdarknet")
def test_opencv_reads_the_norm_of_connected_elsewhere(tmp_path: Path) -> None:
    """And that of a convolution by a formula of its own."""
    text = NORMALIZED[: NORMALIZED.index("[connected]")]
    cfg, weights = tmp_path / "a.cfg", tmp_path / "a.weights"
    inputs = np.random.default_rng(7).random((1, 3, 17, 13), np.float32)
    for end, model in ((3, random_model(graph_of(NORMALIZED), 5)), (2, tiny_variances(text, 6))):
        cfg_file.write(cfg, model.graph.cfg, force=True)
        weights_file.write(weights, model.weights, model.graph.layers, force=True)
        ours, theirs = (
            libdarknet.head_inputs(cfg, weights, inputs, [end]),
            opencv.head_inputs(cfg, weights, inputs, [end]),
        )
        with np.errstate(invalid="ignore", over="ignore"):
            assert not np.abs(theirs[end].reshape(ours[end].shape) - ours[end]).max() < 1e-3


def test_folding_is_the_same_function() -> None:
    model = random_model(graph_of(NORMALIZED), seed=3)
    flat = folded(model)
    assert [sorted(arrays) for arrays in flat.weights.layers] == [["bias", "weight"]] * 4
    left = cfg_file.dump(model.graph.cfg).decode().replace("batch_normalize=1\n", "")
    assert cfg_file.dump(flat.graph.cfg).decode() == left  # some readers ask only whether the key is there
    x = torch.from_numpy(np.random.default_rng(4).random((2, 3, 17, 13)))
    with torch.inference_mode():
        out, flat_out = (build(each).double()(x)[3].numpy() for each in (model, flat))
    assert worst(flat_out, out) < 1e-6  # the folded weights are float32


def adapted_text(text: str, reader: str) -> str:
    return cfg_file.dump(adapted(cfg_file.parse(text.encode(), "a.cfg"), PROFILES[reader])).decode()


HABITS = """\
[network]
width=32\r
height = 32
channels=3
max_crop=448
learning_rate=1e-3
policy=poly
steps=1,2
;was=2
bare
[conv]
filters=1 8
size=1
stride=1 ; one
stride=2
[shortcut]
from=-1
alpha=1
activation=linear
[max]
size=2
[yolo]
classes=1
num=3.9
anchors=1,1,2,2,3,3,4,4
mosaic=1
"""


def test_every_habit_for_every_reader() -> None:
    """The same layers, nothing left to find; and for hank-ai, who is strictest, word for word."""
    before = graph_of(HABITS)
    for reader in PROFILES.values():
        cfg = adapted(before.cfg, reader)
        assert build_graph(cfg, ALEXEYAB).layers == before.layers
        assert {each.severity for each in check(cfg, [reader])} <= {"note", "ignored"}
    assert adapted_text(HABITS, "hank-ai") == (
        "[net]\nwidth=32\nheight=32\nchannels=3\nlearning_rate=0.001\npolicy=poly\n# was=2\n# bare\n"
        "[convolutional]\nfilters=18\nsize=1\n# one\nstride=1\n"
        "[shortcut]\nfrom=-1\nactivation=linear\n[maxpool]\nsize=2\n"
        "[yolo]\nclasses=1\nnum=3.9\nanchors=1,1,2,2,3,3\n"
    ).replace("[net]", "[network]").replace("[convolutional]", "[conv]").replace("[maxpool]", "[max]")


def test_defaults_are_spelt_out_for_opencv() -> None:
    text = adapted_text(HABITS, "opencv")
    assert "[net]\nwidth=32\nheight=32\nchannels=3\n" in text
    assert "[convolutional]\nfilters=18\nsize=1\n# one\nstride=1\nactivation=logistic\n" in text
    assert "[maxpool]\nsize=2\nstride=1\n" in text
    assert text.endswith("[yolo]\nclasses=1\nnum=3.9\nanchors=1,1,2,2,3,3\nmosaic=1\nmask=0,1,2\n")


@pytest.mark.parametrize(
    ("change", "reader", "message"),
    [
        (("size=1", "size=1\nactivation=mish"), "pjreddie", "a.cfg:14: [conv] layer 0: activation=mish can't be"),
        (("size=1", "size=1\nactivation=mish"), "pjreddie", "for pjreddie's Darknet: ReLU instead of mish"),
        (("size=1", "size=1\nactivation=relu6"), "opencv", "unknown activation relu6"),
        (("size=2", "size=2\nstride_x=2"), "opencv", "unknown key stride_x"),
        (("height = 32", "height=40"), "hank-ai", "multiples of 32, found 32x40"),
        (("num=3.9", "num=3\nscale_x_y=1.2"), "pjreddie", "a.cfg:25: [yolo] layer 3: scale_x_y=1.2 "),
    ],
)  # fmt: skip
def test_what_cannot_be_said_is_refused(change: tuple[str, str], reader: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        adapted_text(HABITS.replace(*change), reader)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "name", ["yolov3-tiny", "yolov4-tiny", "densenet201", "resnet50", "yolov4-csp-swish", "cd53paspp-gamma"]
)
def test_stock_cfgs(stock_cfg: Callable[[str], Path], name: str) -> None:
    """Either refused, or the same layers in words that the reader takes."""
    cfg = cfg_file.read(stock_cfg(name))
    refused = set()
    for reader in PROFILES.values():
        try:
            written = adapted(cfg, reader)
        except InputError:
            refused.add(reader.name)
            continue
        assert not [each for each in check(written, [reader]) if each.severity in ("break", "differs")]
        if name != "resnet50":  # which only pjreddie's dialect understands
            assert build_graph(written, ALEXEYAB).layers == build_graph(cfg, ALEXEYAB).layers
    expected = {"yolov4-tiny": {"pjreddie"}, "resnet50": {"alexeyab", "hank-ai", "opencv"}}
    mish = {"yolov4-csp-swish": {"pjreddie"}, "cd53paspp-gamma": {"pjreddie"}}
    assert refused == (expected | mish).get(name, set())
