"""ncnn: what the converter writes, to the byte; and, where its Python package is installed, what ncnn makes of it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.helpers import graph_of, random_model, worst
from yoloprune.compat import CONVERTERS, check
from yoloprune.darknet import cfg as cfg_file
from yoloprune.darknet import weights as weights_file
from yoloprune.darknet.model import Model
from yoloprune.darknet.network import build
from yoloprune.readers import ReaderError, ncnn
from yoloprune.readers.ncnn_convert import convert
from yoloprune.readers.process import RefusalError
from yoloprune.steps.verify import verify

NEEDS_NCNN = pytest.mark.skipif(ncnn.available() is not None, reason=str(ncnn.available()))
NET = "[net]\nwidth=13\nheight=17\nchannels=3\n"


def conv(filters: int, size: int = 3, **more: object) -> str:
    values = {"filters": filters, "size": size, "stride": 1, "pad": 1, "activation": "leaky", **more}
    return "[convolutional]\n" + "".join(f"{key}={value}\n" for key, value in values.items())


def written(folder: Path, model: Model, name: str = "net") -> tuple[Path, Path]:
    cfg, weights = folder / f"{name}.cfg", folder / f"{name}.weights"
    cfg_file.write(cfg, model.graph.cfg, force=True)
    weights_file.write(weights, model.weights, model.graph.layers, force=True)
    return cfg, weights


def bytes_of(folder: Path, model: Model) -> tuple[bytes, bytes]:
    cfg, weights = written(folder, model)
    return cfg.read_bytes(), weights.read_bytes()


def test_what_the_converter_writes(tmp_path: Path) -> None:
    text = NET + conv(4, batch_normalize=1) + conv(4, groups=2, stride=2, activation="linear")
    text += "[route]\nlayers=-1\ngroups=2\ngroup_id=1\n[upsample]\nstride=2\n[route]\nlayers=-3,-3\n[dropout]\n"
    model = random_model(graph_of(text), 1)
    made = convert(*bytes_of(tmp_path, model))
    assert made.param.splitlines() == [
        "7767517",
        "9 11",
        "Input data 0 1 data 0=13 1=17 2=3",
        "Convolution 0_conv 1 1 data 0_conv 0=4 1=3 2=1 3=1 4=1 5=0 6=108",
        "BatchNorm 0_bn 1 1 0_conv 0_bn 0=4 1=.00001",
        "ReLU 0_activated 1 1 0_bn 0_activated 0=0.1",
        "ConvolutionDepthWise 1_conv 1 1 0_activated 1_conv 0=4 1=3 2=1 3=2 4=1 5=1 6=72 7=2",
        "Split 1_conv_split 1 3 1_conv 1_conv_0 1_conv_1 1_conv_2",
        "Crop 2_route 1 1 1_conv_0 2_route 2=2 3=6 4=8 5=2",  # 13 // 2 and 17 // 2, where the map has 7 and 9
        "Interp 3_twice 1 1 2_route 3_twice 0=1 1=2.0 2=2.0",
        "Concat 4_route 2 1 1_conv_1 1_conv_2 4_route ",
    ]
    assert made.blobs == ["0_activated", "1_conv", "2_route", "3_twice", "4_route", "4_route"]
    assert made.ends == ["3_twice", "4_route"]
    assert made.input == (3, 17, 13)
    first, second = model.weights.layers[:2]
    order = [first[name] for name in ("weight", "scale", "mean", "variance", "bias")]
    zero = np.zeros(1, np.float32)
    floats = np.concatenate([zero, *(each.ravel() for each in order), zero, second["weight"].ravel(), second["bias"]])
    np.testing.assert_array_equal(np.frombuffer(made.model, "<f4"), floats)


YOLO = "[yolo]\nclasses=1\nmask=0\nnum=1\nanchors=1,1\n"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (NET + "[connected]\noutput=2\nactivation=linear\n", r"unsupported section \[connected\]"),
        (NET + conv(4, activation="elu"), "unsupported activation elu"),
        (NET + conv(4) + conv(4, stride=2) + "[shortcut]\nfrom=-2\nactivation=linear\n", "two sizes"),
        (NET + conv(4) + conv(5) + "[avgpool]\n[scale_channels]\nfrom=-3\n", "channels don't match"),
        (NET + conv(7) + YOLO, "7 channels for 1 anchors of 6 values"),
        (NET + conv(6) + YOLO + "[route]\nlayers=-2\n" + conv(6) + YOLO.replace("1,1", "1,2"), "can't be merged"),
        (NET + conv(6) + YOLO + conv(6), "reads a head"),
        (NET + conv(4, size="x"), "size: expected a number, found 'x'"),
        ("width=3\n" + NET + conv(4), "before the first section"),
        (NET.replace("net", "network") + conv(4), r"expected \[net\] first"),
        (NET + "[shortcut]\nactivation=linear\n", "needs from="),
    ],
)  # fmt: skip
def test_what_the_converter_refuses(text: str, reason: str) -> None:
    weights = np.array([0, 2, 5, 0, 0], "<i4").tobytes() + bytes(40000)
    with pytest.raises(RefusalError, match=reason):
        convert(text.encode(), weights)


def test_short_weights_are_refused_and_headers_read(tmp_path: Path) -> None:
    model = random_model(graph_of(NET + conv(4)), 2)
    cfg, weights = bytes_of(tmp_path, model)
    with pytest.raises(RefusalError, match="unexpected end"):
        convert(cfg, weights[:-4])
    with pytest.raises(RefusalError, match="unexpected end"):
        convert(cfg, weights[:8])
    old = np.array([0, 1, 0, 0], "<i4").tobytes() + weights[20:]  # before version 0.2 `seen` has 4 bytes
    assert convert(cfg, old + b"more").model == convert(cfg, weights).model


def outcome(folder: Path, text: str, seed: int) -> tuple[str, str]:
    """What ncnn does, refused, differs or same, on two pictures; and how far apart or why."""
    model = random_model(graph_of(text), seed)
    cfg, weights = written(folder, model)
    c, h, w = model.graph.net.input
    inputs = np.random.default_rng(seed).random((2, c, h, w), np.float32)
    last = len(model.graph.layers)
    with torch.inference_mode():
        ours = build(model)(torch.from_numpy(inputs), want=[last - 1])[last - 1].numpy()
    try:
        theirs = ncnn.head_inputs(cfg, weights, inputs, [last])[last]
    except ReaderError as error:
        return "refused", str(error)
    if theirs.shape != ours.shape or not np.isfinite(theirs).all():
        return "differs", f"{theirs.shape}"
    apart = worst(theirs, ours)
    return ("same" if apart < 1e-5 else "differs"), f"{apart}"  # float32, summed in another order


def said(text: str) -> str:
    found = {each.severity for each in check(cfg_file.parse(text.encode()), [CONVERTERS["ncnn"]])}
    return "refused" if "break" in found else "differs" if "differs" in found else "same"


ODD = NET + conv(12)
TEXTS = {
    "activations": NET + "".join(conv(5, activation=name) for name in ("relu", "leaky", "mish", "swish", "logistic")),
    "batch norm": NET + conv(7, batch_normalize=1) + conv(5, 1, batch_normalize=1, activation="linear"),
    "windows": NET + conv(6, 5, stride=2) + conv(6, 3, stride=3) + conv(5, 1, stride=2),
    "even windows": NET + conv(6, 2) + conv(6, 4, stride=2),
    "no padding": NET + conv(6, 3, pad=0) + conv(6, 3, pad=0, padding=2),
    "groups": ODD + conv(12, groups=12) + conv(8, groups=4, stride=2) + conv(16, groups=8),
    "dilation": ODD + conv(6, dilation=2),
    "dilation of 1x1": ODD + conv(6, 1, dilation=2),
    "stride_x": ODD + conv(6, stride_x=2),
    "no activation": NET + "[convolutional]\nfilters=5\nsize=3\npad=1\n",
    "pool by 2, even": NET.replace("13", "16").replace("17", "18") + "[maxpool]\nsize=2\nstride=2\n",
    "pool by 2, odd": NET + "[maxpool]\nsize=2\nstride=2\n",
    "pool of 2 at stride 1": NET + "[maxpool]\nsize=2\nstride=1\n",
    "pools at stride 1": NET + "[maxpool]\nsize=3\nstride=1\n[maxpool]\nsize=5\nstride=1\n",
    "pool of 3 by 2": NET + "[maxpool]\nsize=3\nstride=2\n",
    "pool of one": ODD + "[maxpool]\nstride=2\n",
    "squeeze": ODD + "[avgpool]\n" + conv(12, 1, activation="logistic") + "[scale_channels]\nfrom=-3\n",
    "routes": ODD + conv(5) + "[route]\nlayers=-1,0\n" + conv(4) + "[route]\nlayers=1\n" + conv(3),
    "the same twice": ODD + "[route]\nlayers=-1,-1,-1\n" + conv(3),
    "route groups, even": ODD + "[route]\nlayers=-1\ngroups=3\ngroup_id=1\n" + conv(3),
    "route groups, odd": ODD + conv(6, stride=2) + "[route]\nlayers=-1\ngroups=2\ngroup_id=1\n" + conv(3),
    "groups without group_id": ODD + "[route]\nlayers=-1\ngroups=2\n",
    "groups of two": ODD + conv(4) + "[route]\nlayers=-1,-2\ngroups=2\ngroup_id=1\n",
    "upsample": ODD + conv(4, stride=2) + "[upsample]\nstride=2\n" + conv(3),
    "upsample by 3": ODD + conv(4, stride=2) + "[upsample]\nstride=3\n",
    "shortcuts": ODD + conv(12) + "[shortcut]\nfrom=-2\nactivation=linear\n" + conv(12)
    + "[shortcut]\nfrom=0\nactivation=leaky\n",
    "shortcut of a wider one": NET + conv(12) + conv(4) + "[shortcut]\nfrom=-2\nactivation=linear\n",
    "packed otherwise": NET + conv(6) + conv(4) + "[shortcut]\nfrom=-2\nactivation=linear\n",
    "shortcut of two": ODD + conv(12) + conv(12) + "[shortcut]\nfrom=-2,-3\nactivation=linear\n",
    "a shortcut that looks odd": NET + conv(8, stride=2) + conv(8, 2, pad=1) + conv(8, 2, pad=0)
    + "[shortcut]\nfrom=0\nactivation=linear\n",
    "dropout": ODD + "[dropout]\nprobability=.5\n" + conv(4),
    "elu": ODD + conv(4, activation="elu"),
    "connected": ODD + "[connected]\noutput=4\nactivation=linear\n",
    "comments": NET + conv(4).replace("size=3", "size = 3 ; was 5").replace("[conv", "  [conv") + "# end\nstride=1\n",
}  # fmt: skip


@NEEDS_NCNN
@pytest.mark.parametrize("name", list(TEXTS))
def test_ncnn_does_what_check_says(tmp_path: Path, name: str) -> None:
    found, why = outcome(tmp_path, TEXTS[name], 3)
    assert found == said(TEXTS[name]), why


@NEEDS_NCNN
@pytest.mark.parametrize("seed", range(10))
def test_ncnn_does_what_check_says_of_random_networks(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)

    def pick(*values: Any) -> Any:
        return values[rng.integers(len(values))]

    text = f"[net]\nwidth={rng.integers(13, 33)}\nheight={rng.integers(13, 33)}\nchannels=3\n" + conv(12)
    for _ in range(rng.integers(2, 6)):
        size = pick(1, 3, 5)
        text += pick(
            conv(12, size, stride=pick(1, 1, 2), groups=pick(1, 1, 3), batch_normalize=pick(0, 1)),
            conv(12, size, pad=pick(0, 1), activation=pick("mish", "swish", "relu", "logistic", "linear")),
            conv(12) + "[shortcut]\nfrom=-2\nactivation=leaky\n",
            "[avgpool]\n" + conv(12, 1, activation="logistic") + "[scale_channels]\nfrom=-3\nactivation=linear\n",
            "[route]\nlayers=-1\ngroups=2\ngroup_id=1\n" + conv(12),
            conv(4) + "[route]\nlayers=-1,-2\n" + conv(12),
            f"[maxpool]\nsize={pick(2, 3)}\nstride={pick(1, 2)}\n",
            conv(12, stride=2) + "[upsample]\nstride=2\n",
        )
    found, why = outcome(tmp_path, text, seed)
    assert found == said(text), (why, text)


@NEEDS_NCNN
def test_verify_sees_what_only_ncnn_spoils(tmp_path: Path) -> None:
    """Masked and slim are one network to all others; ncnn adds two widths that it packs differently."""
    net = "[net]\nwidth=16\nheight=16\nchannels=3\n"
    rest = "[shortcut]\nfrom=-2\nactivation=linear\n" + conv(6, 1, activation="linear", pad=0) + YOLO
    wide = random_model(graph_of(net + conv(6) + conv(6, activation="linear") + rest), 4)
    arrays = [{name: array.copy() for name, array in each.items()} for each in wide.weights.layers]
    arrays[1]["weight"][4:], arrays[1]["bias"][4:], arrays[3]["weight"][:, 4:] = 0, 0, 0
    masked = wide.with_weights(type(wide.weights)(wide.weights.header, tuple(arrays)))
    kept = [dict(each) for each in arrays]
    kept[1] = {name: array[:4] for name, array in arrays[1].items()}
    kept[3] = {**arrays[3], "weight": arrays[3]["weight"][:, :4]}
    narrow = graph_of(net + conv(6) + conv(4, activation="linear") + rest)
    slim = Model(narrow, type(wide.weights)(wide.weights.header, tuple(kept)))
    found = verify(*written(tmp_path, masked, "a"), *written(tmp_path, slim, "b"))
    assert found.max_relative_diff["yoloprune"] < 1e-6
    assert found.max_relative_diff["opencv"] < 1e-6
    assert found.max_relative_diff["ncnn"] > 1e-2
    assert not found.within
    assert found.skipped.keys() <= {"darknet"}
    assert verify(*written(tmp_path, masked, "a"), *written(tmp_path, masked, "c")).max_relative_diff["ncnn"] == 0


def test_verify_says_why_ncnn_was_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ncnn" else real(name))
    files = written(tmp_path, random_model(graph_of(NET + conv(6, 1, pad=0) + YOLO), 5))
    found = verify(*files, *files)
    assert found.skipped["ncnn"] == "the Python package ncnn is not installed"
    assert found.within


@NEEDS_NCNN
def test_a_network_that_ncnn_computes_otherwise_tells_nothing(tmp_path: Path) -> None:
    """Windows of a [maxpool] of 4 lie elsewhere in ncnn."""
    files = written(
        tmp_path, random_model(graph_of(NET + "[maxpool]\nsize=4\nstride=4\n" + conv(6, 1, pad=0) + YOLO), 5)
    )
    found = verify(*files, *files)
    reason = f"computes something else for {files[0]}, too; yoloprune check --for ncnn says where"
    assert found.skipped["ncnn"] == reason
    assert found.within


@NEEDS_NCNN
def test_a_larger_layer_takes_longer() -> None:
    net = "[net]\nwidth=64\nheight=64\nchannels=16\n"
    texts = [net + conv(filters) for filters in (4, 256)] + [net + conv(8) + "\n" + conv(8)]
    small, large, behind = ncnn.layer_seconds(texts, [4 * 145, 256 * 145, 8 * 145 + 8 * 73])
    assert 0 < small < large
    assert 0 <= behind < large


@NEEDS_NCNN
def test_another_input_is_refused(tmp_path: Path) -> None:
    files = written(tmp_path, random_model(graph_of(NET + conv(4)), 6))
    with pytest.raises(ReaderError, match="input 3x13x13, the net takes 3x17x13"):
        ncnn.head_inputs(*files, np.zeros((1, 3, 13, 13), np.float32), [1])
    with pytest.raises(ReaderError, match="found nothing that enters layer 9"):
        ncnn.head_inputs(*files, np.zeros((1, 3, 17, 13), np.float32), [9])
