"""What `check` and `export --for` know of programs that convert Darknet's files: every fact and what follows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.compat.test_rules import conv, header, yolo
from tests.helpers import graph_of, random_model
from yoloprune.compat import CONVERTERS, PROFILES, WeightsFile, check, profile_named
from yoloprune.compat.adapt import adapted
from yoloprune.darknet import cfg as cfg_file
from yoloprune.darknet.dialect import ALEXEYAB
from yoloprune.darknet.model import build_graph
from yoloprune.darknet.network import build
from yoloprune.errors import InputError

NET = "[net]\nwidth=64\nheight=64\nchannels=4\n"
"""Four lines: what follows starts at line 5."""
NCNN, TRT, TORCH = "ncnn", "tensorrt_demos", "pytorch-yolov4"
PYTHON = (TRT, TORCH)
ALL = (NCNN, TRT, TORCH)


def line(filters: int = 8, size: int = 3, **more: object) -> str:
    """Six lines and one for each of `more`: a convolution in words that all take."""
    return conv(filters, size, **{"stride": 1, "activation": "leaky", **more})


def deep(stride: int) -> str:
    """Convolutions until the map is that much smaller: 6 lines each."""
    return line(stride=2) * (stride.bit_length() - 1)


def head(**more: object) -> str:
    """A [yolo] of six lines and what it reads, 6 lines."""
    return line(18, 1, activation="linear") + yolo(**{"scale_x_y": "1.0", **more})


DETECTOR = deep(32) + head() + "[route]\nlayers=-4\n" + head(mask="0,1,2")
"""Heads at strides 32 and 16. Lines 5 to 34, 35 to 46, 47 and 48, 49 to 60."""


def findings(text: str | bytes, weights: WeightsFile | None = None):  # type: ignore[no-untyped-def]
    data = text.encode() if isinstance(text, str) else text
    return check(cfg_file.parse(data, "yolov4-64.cfg", lenient=True), list(CONVERTERS.values()), weights)


def who(
    text: str | bytes, severity: str, number: int | None, words: str, weights: WeightsFile | None = None
) -> set[str]:
    found = findings(text, weights)
    return {each.reader for each in found if (each.severity, each.line) == (severity, number) and words in each.message}


def replaced(old: str, new: str) -> str:
    """DETECTOR with a change at its first head."""
    return NET + DETECTOR.replace(old, new, 1)


SHORT = NET + line()
CASES: list[tuple[str, str, str, int, str, tuple[str, ...]]] = [
    # what, text, severity, line, words, for whom
    ("BOM", "\ufeff" + SHORT, "break", 1, "byte order mark", (NCNN, TORCH)),
    ("comment behind a section", SHORT.replace("al]", "al] # c"), "break", 5, "behind a section", (NCNN, TORCH)),
    ("other comment behind a section", SHORT.replace("al]", "al] ; c"), "break", 5, "behind a section", ALL),
    ("blanks in a section", SHORT.replace("[conv", "[ conv"), "break", 5, "blanks before or within", ALL),
    ("an indented section", NET + " " + line(), "break", 5, "blanks before or within", PYTHON),
    ("a comment with ;", NET + "; old\n" + line(), "break", 5, "starts with ;", PYTHON),
    ("a comment with ; and =", NET + ";a=1\n" + line(), "break", 5, "starts with ;", (TRT,)),
    ("an indented comment", NET + "  # old\n" + line(), "break", 5, "is indented", (TORCH,)),
    ("two =", NET + "a=b=c\n" + line(), "break", 5, "two =", PYTHON),
    ("two = behind #", NET + "a=1 # b=c\n" + line(), "break", 5, "two =", (TORCH,)),
    ("[ before [net]", "# see [1]\n" + SHORT, "break", 1, "a [ before [net]", (TRT,)),
    ("#[ before [net]", "#[old]\n" + SHORT, "break", 1, "a [ before [net]", ()),
    ("no =", NET + "bare\n" + line(), "break", 5, "without =", PYTHON),
    ("comment behind a number", NET + line(size="3 # was 5"), "break", 7, "a number and nothing else", (TORCH,)),
    ("other comment behind a number", NET + line(size="3 ; was 5"), "break", 7, "a number and nothing else", PYTHON),
    ("comment behind a word", NET + line(activation="leaky # c"), "break", 9, "part of the value", (NCNN,)),
    ("comment behind a word", NET + line(activation="leaky # c"), "differs", 9, "part of the value", (TORCH,)),
    ("no number", NET + line(stride="two"), "break", 10, "expected a number", ALL),
    ("no whole number", NET + line(stride="2.0"), "break", 10, "expected a number", (TORCH,)),
    ("a list", NET + "seq_scales=1,2\n" + line(), "break", 5, "expected a number", (TRT,)),
    ("steps", NET + "steps=1,2\npolicy=steps\nscales=.1,.1\n" + line(), "break", 5, "", ()),
    ("a word of several", NET + "a=b_c\n" + line(), "break", 5, "expected a number", (TRT,)),
    ("twice", NET + line() + "size=5\n", "differs", 11, "this one counts", ALL),
    ("relu", NET + line(activation="relu"), "break", 9, "unknown activation relu", (TRT,)),
    ("swish", NET + line(activation="swish"), "differs", 9, "linear instead of swish", (TORCH,)),
    ("logistic", NET + line(activation="logistic"), "differs", 9, "linear instead", (TORCH,)),
    ("elu", NET + line(activation="elu"), "break", 9, "unknown activation", (NCNN, TRT)),
    ("no activation", NET + "[convolutional]\nfilters=4\nsize=1\nstride=1\npad=1\n",
     "break", 5, "needs activation=", PYTHON),
    ("no activation", NET + "[convolutional]\nfilters=4\nsize=1\nstride=1\npad=1\n",
     "differs", 5, "takes linear", (NCNN,)),
    ("no pad", NET + conv(8, 1, stride=1).replace("pad=1\n", ""), "break", 5, "needs pad=", (TORCH,)),
    ("no stride", NET + conv(8, 1), "break", 5, "needs stride=", PYTHON),
    ("no width", "[net]\nheight=64\nchannels=4\n" + line(), "break", 1, "needs width=", PYTHON),
    ("groups", NET + line(groups=2), "break", 11, "other weights are read", PYTHON),
    ("dilation", NET + line(dilation=2), "differs", 8, "windows start 1", (NCNN,)),
    ("dilation", NET + line(dilation=2), "differs", 11, "passed over", PYTHON),
    ("stride_x", NET + line(stride_x=2), "differs", 11, "passed over", ALL),
    ("no padding", NET + line(pad=0), "differs", 8, "windows start 1", (TRT,)),
    ("padding", NET + line(pad=0, padding=1), "differs", 11, "windows start 0", (TORCH,)),
    ("size 2", NET + line(8, 2, stride=2), "differs", 8, "windows start 0", PYTHON),
    ("maxpool at stride 1", SHORT + "[maxpool]\nsize=2\nstride=1\n", "differs", 12, "have 63 places", (NCNN,)),
    ("maxpool of 3 by 2", SHORT + "[maxpool]\nsize=3\nstride=2\n", "differs", 12, "windows start 0", (TRT,)),
    ("maxpool of 3 by 2", SHORT + "[maxpool]\nsize=3\nstride=2\n", "differs", 12, "windows start 2", (NCNN,)),
    ("maxpool of 3 by 3", SHORT + "[maxpool]\nsize=3\nstride=3\n", "differs", 12, "windows start 0", (TORCH,)),
    ("maxpool's padding", SHORT + "[maxpool]\nsize=2\nstride=2\npadding=2\n", "differs", 14, "windows start", ALL),
    ("maxpool without size", SHORT + "[maxpool]\nstride=2\n", "differs", 11, "without size= it takes 1", (NCNN,)),
    ("upsample", SHORT + "[upsample]\nstride=4\n", "differs", 12, "doubled", (NCNN,)),
    ("upsample scale", SHORT + "[upsample]\nstride=2\nscale=3\n", "differs", 13, "passed over", ALL),
    ("sam", SHORT * 1 + line() + "[sam]\nfrom=-2\n", "break", 17, "unknown section [sam]", ALL),
    ("dropout", SHORT + "[dropout]\n", "break", 11, "unknown section", PYTHON),
    ("connected", SHORT + "[connected]\noutput=4\nactivation=linear\n", "break", 11, "can't be loaded", (TORCH,)),
    ("connected", SHORT + "[connected]\noutput=4\nactivation=linear\n", "break", 11, "unknown section", (NCNN, TRT)),
    ("reorg", SHORT + "[reorg]\nstride=2\n", "break", 11, "divides into floats", (TORCH,)),
    ("narrower", NET + line(8) + line(16) + "[shortcut]\nfrom=-2\nactivation=linear\n",
     "differs", 18, "reads past the end", (NCNN,)),
    ("wider, packed alike", NET + line(24) + line(8) + "[shortcut]\nfrom=-2\nactivation=linear\n",
     "differs", 18, "", ()),
    ("wider, packed otherwise", NET + line(24) + line(16) + "[shortcut]\nfrom=-2\nactivation=linear\n",
     "differs", 18, "packed otherwise", (NCNN,)),
    ("wider", NET + line(24) + line(8) + "[shortcut]\nfrom=-2\nactivation=linear\n",
     "break", 18, "adds 24 channels to 8", PYTHON),
    ("two layers", NET + line() * 3 + "[shortcut]\nfrom=-2,-3\nactivation=linear\n",
     "differs", 24, "the first of 2", (NCNN,)),
    ("two layers", NET + line() * 3 + "[shortcut]\nfrom=-2,-3\nactivation=linear\n",
     "break", 24, "expected a number", PYTHON),
    ("leaky shortcut", NET + line() * 2 + "[shortcut]\nfrom=-2\nactivation=leaky\n",
     "break", 19, "leaky in [shortcut]", (TRT,)),
    ("mish shortcut", NET + line() * 2 + "[shortcut]\nfrom=-2\nactivation=mish\n",
     "differs", 19, "linear instead", (TORCH,)),
    ("no activation", NET + line() * 2 + "[shortcut]\nfrom=-2\n", "break", 17, "needs activation=", PYTHON),
    ("absolute", NET + line() * 3 + "[shortcut]\nfrom=1\nactivation=linear\n", "differs", 24, "another layer", (TRT,)),
    ("from 0", NET + line() * 3 + "[shortcut]\nfrom=0\nactivation=linear\n",
     "break", 24, "the section itself", (TORCH,)),
    ("layer 0", NET + line() * 3 + "[route]\nlayers=-1,0\n", "differs", 24, "another layer", (TRT,)),
    ("layer 1", NET + line() * 3 + "[route]\nlayers=-1,1\n", "differs", 24, "another layer", ()),
    ("three layers", NET + line() * 3 + "[route]\nlayers=-1,-2,-3\n", "differs", 24, "of 3 layers", (TORCH,)),
    ("not the last", NET + line() * 3 + "[route]\nlayers=-2,-3\n", "break", 24, "one of two", (TORCH,)),
    ("last of four", NET + line() * 4 + "[route]\nlayers=-4,-3,-2,-1\n", "break", 30, "the first", (TORCH,)),
    ("groups of two", NET + line() * 2 + "[route]\nlayers=-1,-2\ngroups=2\ngroup_id=0\n",
     "differs", 19, "passed over", (NCNN, TORCH)),
    ("groups of two", NET + line() * 2 + "[route]\nlayers=-1,-2\ngroups=2\ngroup_id=0\n",
     "break", 19, "are refused", (TRT,)),
    ("no group_id", SHORT + "[route]\nlayers=-1\ngroups=2\n", "break", 13, "needs group_id=", PYTHON),
    ("no group_id", SHORT + "[route]\nlayers=-1\ngroups=2\n", "differs", 13, "needs group_id=", (NCNN,)),
    ("to a route", NET + line() * 2 + "[route]\nlayers=-2\n" + line() + "[route]\nlayers=-1,-2\n",
     "break", 26, "points to layer 2 [route]", (TRT,)),
    ("to a head", NET + DETECTOR + "[route]\nlayers=-1\n", "break", 62, "has no output here", ALL),
    ("an odd map", NET.replace("64", "52") + line(stride=2) * 3 + "[route]\nlayers=-1\ngroups=2\ngroup_id=1\n",
     "differs", 23, "map of 7x7 for 6x6, and cuts it", (NCNN,)),
    ("no [yolo]", SHORT, "break", 1, "gives boxes of [yolo] only", (TORCH,)),
    ("one [yolo]", NET + deep(32) + head(), "break", 1, "expected 2 or 3 [yolo], found 1", (TRT,)),
    ("two classes", replaced("classes=1", "classes=2").replace("filters=18", "filters=21", 1),
     "break", 56, "another in the first", (NCNN, TRT)),
    ("other anchors", replaced("anchors=1,1,2", "anchors=1,1,3"), "break", 59, "another in the first", (NCNN,)),
    ("other anchors", replaced("anchors=1,1,2", "anchors=1,1,3"), "differs", 59, "of the first head", (TRT,)),
    ("fewer anchors", replaced("mask=0,1,2", "mask=0,1").replace("filters=18", "filters=12", 1),
     "break", 58, "number of anchors", (NCNN,)),
    ("parts of anchors", (NET + DETECTOR).replace("1,1,2,2", "1,1.5,2,2"), "differs", 45, "cuts 1.5 to 1", (NCNN,)),
    ("ignore_thresh", (NET + DETECTOR).replace("scale_x_y=1.0", "ignore_thresh=.7"),
     "note", 46, "nothing under 0.25", (NCNN,)),
    ("scale_x_y", (NET + DETECTOR).replace("scale_x_y=1.0", "scale_x_y=1.2"),
     "differs", 46, "width and height", (NCNN,)),
    ("no scale_x_y", (NET + DETECTOR).replace("scale_x_y=1.0\n", ""), "break", 41, "needs scale_x_y=", (TORCH,)),
    ("scale_x_y in one", replaced("scale_x_y=1.0\n", ""), "break", 41, "stands in another head", (TRT,)),
    ("new_coords", (NET + DETECTOR).replace("scale_x_y=1.0", "scale_x_y=1\nnew_coords=1"),
     "differs", 47, "passed over", (NCNN, TORCH)),
    ("strides", replaced("stride=2", "stride=1"), "break", 41, "expected heads at strides", (TRT,)),
    ("what a head reads", replaced("activation=linear", "activation=leaky"), "break", 41, "before it", (TRT,)),
    ("a name", (NET + DETECTOR).replace("64", "96"), "note", 1, "yolov4-96.cfg", (TRT,)),
    ("a stride that groups divide",
     NET + deep(16) + line(16, stride=2) + "[route]\nlayers=-1\ngroups=2\ngroup_id=1\n" + head(),
     "differs", 45, "takes the stride for 16", (TORCH,)),
    ("not 32", NET.replace("64", "48") + DETECTOR, "break", 1, "multiples of 32", (TRT,)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "severity", "number", "words", "readers"),
    [case[1:] for case in CASES],
    ids=[f"{case[0]}-{case[2]}" for case in CASES],
)
def test_what_is_said_of_which_line(
    text: str, severity: str, number: int, words: str, readers: tuple[str, ...]
) -> None:
    assert who(text, severity, number, words) - {"opencv5"} == set(readers)


def test_a_plain_detector_is_taken_by_all() -> None:
    found = findings(NET + DETECTOR)
    assert {each.reader for each in found if each.severity != "note"} == {"opencv5"}
    assert [each.message[:21] for each in found if each.reader == "opencv5"] == ["reads no Darknet file"]
    assert not set(CONVERTERS) & set(PROFILES)  # `check` without --for asks none of them


@pytest.mark.parametrize(
    ("weights", "severity", "words", "readers"),
    [
        (header(0, 2, 296), "break", "", ()),
        (header(0, 2, 294), "break", "expected 1204 bytes", ALL),
        (header(0, 2, 297), "ignored", "expected 1204 bytes", ALL),
        (header(0, 1, 295), "break", "16 bytes, and 20", PYTHON),
        (header(1001, 0, 295), "break", "16 bytes, and 20", PYTHON),
        (header(1001, 0, 295), "differs", "4 bytes late", (NCNN,)),
    ],
)
def test_weights(weights: WeightsFile, severity: str, words: str, readers: tuple[str, ...]) -> None:
    assert who(SHORT, severity, None, words, weights) - {"opencv5"} == set(readers)


def torch_pool(x: Tensor, size: int, stride: int) -> Tensor:
    """MaxPoolDark and MaxPool2d as pytorch-YOLOv4 uses them."""
    if stride == 1 and size % 2:
        return F.max_pool2d(x, size, 1, size // 2)
    if stride == size:
        return F.max_pool2d(x, size, stride)
    sides = []
    for side in (x.shape[3], x.shape[2]):
        exact = (side - 1) // stride == (side + 2 * (size // 2) - size) // stride
        sides += [(size - 1) // 2, (size - 1) // 2 + (0 if exact else 1)]
    return F.max_pool2d(F.pad(x, sides, mode="replicate"), size, stride)


def same(x: Tensor, size: int, stride: int, value: float, *, end: bool) -> Tensor:
    """x padded as ONNX's auto_pad does, SAME_UPPER or SAME_LOWER."""
    sides = []
    for side in (x.shape[3], x.shape[2]):
        total = max((-(-side // stride) - 1) * stride + size - side, 0)
        less, more = total // 2, total - total // 2
        sides += [less, more] if end else [more, less]
    return F.pad(x, sides, value=value)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("side", [13, 16, 18])
def test_windows_are_called_other_exactly_where_they_are(size: int, stride: int, side: int) -> None:
    """Against what the converters' programs compute, by PyTorch's own functions; two pictures."""
    net = f"[net]\nwidth={side}\nheight={side + 2}\nchannels=2\n"
    x = torch.from_numpy(np.random.default_rng(size).normal(size=(2, 2, side + 2, side)).astype(np.float32))
    for pad in (0, 1):
        text = net + f"[convolutional]\nfilters=3\nsize={size}\nstride={stride}\npad={pad}\nactivation=linear\n"
        model = random_model(graph_of(text), 5)
        weight, bias = (torch.from_numpy(model.weights.layers[0][name]) for name in ("weight", "bias"))
        theirs = {
            TRT: F.conv2d(same(x, size, stride, 0, end=False), weight, bias, stride),
            TORCH: F.conv2d(x, weight, bias, stride, (size - 1) // 2 if pad else 0),
        }
        compare(text, build(model)(x), theirs)
    text = net + f"[maxpool]\nsize={size}\nstride={stride}\n"
    graph = graph_of(text)
    theirs = {
        TRT: F.max_pool2d(same(x, size, stride, -torch.inf, end=True), size, stride),
        TORCH: torch_pool(x, size, stride),
    }
    compare(text, build(random_model(graph, 0))(x), theirs)


def compare(text: str, outputs: dict[int, Tensor], theirs: dict[str, Tensor]) -> None:
    (own,) = outputs.values()
    for name, other in theirs.items():
        found = [each.message for each in findings(text) if each.reader == name and "windows start" in each.message]
        alike = own.shape == other.shape and bool((own - other).abs().max() < 1e-5)
        assert bool(found) != alike, (name, text, found, own.shape, other.shape)


@pytest.mark.parametrize(
    ("name", "takers"),
    [
        ("yolov3", {NCNN, TRT, TORCH}),
        ("yolov3-spp", {NCNN, TRT, TORCH}),
        ("yolov3-tiny", {TRT, TORCH}),  # ncnn: a pool at stride 1 loses a place
        ("yolov4", {TRT, TORCH}),  # ncnn: scale_x_y
        ("yolov4-tiny", {TRT, TORCH}),
        ("yolov4-csp", {TRT}),  # new_coords
        ("yolov7-tiny", {TRT}),
        ("enet-coco", {NCNN}),  # its kind of blocks
        ("yolov3-tiny-prn", set()),
        ("yolov2-tiny", set()),  # [region]
    ],
)
def test_stock_cfgs(stock_cfg: Callable[[str], Path], name: str, takers: set[str]) -> None:
    """Either refused, or the same layers in words that the converter takes; who takes what is what they say."""
    cfg = cfg_file.read(stock_cfg(name))
    taken, refusals = set(), []
    for reader in CONVERTERS.values():
        try:
            written = adapted(cfg, reader)
        except InputError as error:
            refusals.append(str(error))
            continue
        taken.add(reader.name)
        assert build_graph(written, ALEXEYAB).layers == build_graph(cfg, ALEXEYAB).layers
        assert {each.severity for each in check(written, [reader])} <= {"note", "ignored"}
    assert taken == takers
    assert all("can't be written for" in refusal for refusal in refusals)


HABITS = """\
[net]
width=64
height=64
channels=4
seq_scales=1,1
; old
[conv]
filters=16
size=3
padding=1 # one
stride=2
activation=leaky
[conv]
filters=16
pad = 1
size=3
activation=leaky
[shortcut]
from=0
[route]
layers=2
groups=2
[route]
layers=2
"""


def test_what_converters_want_is_written() -> None:
    """The same layers; keys that Darknet doesn't mind, relative indexes, comments with #."""
    text = HABITS + (deep(16) + head() + "[route]\nlayers=-4\n" + head()).replace("scale_x_y=1.0\n", "", 1)
    for reader in (TRT, TORCH):
        written = adapted(cfg_file.parse(text.encode()), profile_named(reader))
        assert build_graph(written, ALEXEYAB).layers == graph_of(text).layers
        plain = cfg_file.dump(written).decode()
        assert "[convolutional]\nfilters=16\nsize=3\n# one\npadding=1\nstride=2\nactivation=leaky\npad=1\n" in plain
        assert "pad=1\nsize=3\nactivation=leaky\nstride=1\n" in plain
        assert "[shortcut]\nfrom=-2\nactivation=linear\n" in plain
        assert "layers=-1\ngroups=2\ngroup_id=0\n[route]\nlayers=-2\n" in plain
        assert plain.count("scale_x_y=1\n") == 1
        assert "\n# old\n" in plain
        assert ("seq_scales" in plain) == (reader == TORCH)
    assert "scale_x_y=1\n" not in cfg_file.dump(adapted(cfg_file.parse(text.encode()), CONVERTERS[NCNN])).decode()


def test_opencv_5_is_written_for_nobody() -> None:
    with pytest.raises(InputError, match=r"can't be written for OpenCV 5: reads no Darknet files"):
        adapted(cfg_file.parse((NET + DETECTOR).encode()), CONVERTERS["opencv5"])
    with pytest.raises(
        InputError, match=r"hank-ai, opencv, ncnn, tensorrt_demos, pytorch-yolov4, opencv5, found 'opencv4'"
    ):
        profile_named("opencv4")
