"""Every rule of `check`: what it says, of which line, for whom; and real readers where they are here."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from yoloprune.compat import PROFILES, Finding, WeightsFile, check, lost_values
from yoloprune.compat.profiles import ALEXEYAB, PJREDDIE
from yoloprune.darknet import cfg as cfg_file
from yoloprune.darknet.layers import REGISTRY
from yoloprune.errors import InputError
from yoloprune.readers import ReaderError, libdarknet, opencv, opencv_worker
from yoloprune.readers.process import RefusalError

NET = "[net]\nwidth=16\nheight=16\nchannels=4\n"
"""Four lines: what follows starts at line 5."""
TRAINERS = ("pjreddie", "alexeyab", "hank-ai")
EVERYONE = (*TRAINERS, "opencv")
FIRST_TWO = TRAINERS[:2]
ALEXEYABS = TRAINERS[1:]
ALL_BUT_HANK_AI = (*FIRST_TWO, "opencv")
SECTIONS = {kind.names[0] for kind in REGISTRY.values()}


def conv(filters: int = 8, size: int = 3, **more: object) -> str:
    """Five lines and one for each of `more`."""
    values = {"filters": filters, "size": size, "pad": 1, "activation": "linear", **more}
    return "[convolutional]\n" + "".join(f"{key}={value}\n" for key, value in values.items())


def yolo(**more: object) -> str:
    values = {"classes": 1, "num": 3, "mask": "0,1,2", "anchors": "1,1,2,2,3,3", **more}
    return "[yolo]\n" + "".join(f"{key}={value}\n" for key, value in values.items() if value is not None)


def findings(text: str | bytes, weights: WeightsFile | None = None) -> list[Finding]:
    data = text.encode() if isinstance(text, str) else text
    return check(cfg_file.parse(data, "a.cfg", lenient=True), list(PROFILES.values()), weights)


def who(found: list[Finding], severity: str, line: int | None, words: str) -> set[str]:
    return {each.reader for each in found if (each.severity, each.line) == (severity, line) and words in each.message}


CASES: list[tuple[str, str, str, int, str, tuple[str, ...]]] = [
    # what, text, severity, line, words, for whom
    ("BOM", "\ufeff" + NET + conv(), "break", 1, "byte order mark", TRAINERS),
    ("CR", NET + conv().replace("\n", "\r\n"), "break", 5, "CR LF", ("pjreddie",)),
    ("a key first", "x=1\n" + NET + conv(), "break", 1, "before the first section", EVERYONE),
    ("comment behind a section", NET + conv().replace("]", "] # c"), "break", 5, "behind a section", FIRST_TWO),
    ("comment behind [net]", NET.replace("]", "] # c") + conv(), "break", 1, "behind a section", ALL_BUT_HANK_AI),
    ("blanks in a section", NET + conv().replace("[conv", "[ conv"),
     "break", 5, "blanks before or within", ("hank-ai",)),
    ("an indented section", NET + "  " + conv(), "break", 5, "blanks before or within", ("hank-ai",)),
    ("case", NET + conv().replace("[c", "[C"), "break", 5, "is it [convolutional]?", EVERYONE),
    ("alias", NET + conv().replace("olutional", ""), "break", 5, "full name [convolutional]", ("opencv",)),
    ("bare key", NET + conv() + "bare\n", "break", 10, "without =", ("opencv",)),
    ("bare key", NET + conv() + "bare\n", "note", 10, "counts as absent", TRAINERS),
    ("a comment with =", NET + ";a=1\n" + conv(), "break", 5, "read as a key", ("hank-ai",)),
    ("comment behind a number", NET + conv(size="3 # was 5"), "differs", 7, "", ()),
    ("other comment behind a number", NET + conv(size="3 ; was 5"), "break", 7, "expected a number", ("hank-ai",)),
    ("comment behind a word", NET + conv(activation="leaky # x"), "differs", 9, "part of the value", FIRST_TWO),
    ("comment behind a word", NET + conv(activation="leaky # x"), "break", 9, "part of the value", ("opencv",)),
    ("comment with commas", NET + conv() * 2 + "[route]\nlayers=-1 # a,b\n", "differs", 16, "commas", ALL_BUT_HANK_AI),
    ("exponent", NET + "decay=1e-3\n" + conv(), "break", 5, "expected a number", ("hank-ai",)),
    ("exponent in a list", NET + "policy=steps\nsteps=1\nscales=1e-3\n" + conv(),
     "differs", 7, "read as other numbers", ("hank-ai",)),
    ("blanks in a number", NET + "batch=1 6\n" + conv(), "break", 5, "expected a number", ("hank-ai",)),
    ("no number", NET + conv(stride="two"), "differs", 10, "counts as 0", ALL_BUT_HANK_AI),
    ("unknown key", NET + conv(fliters=3), "break", 10, "unknown key fliters", ("hank-ai",)),
    ("unknown key", NET + conv(fliters=3), "ignored", 10, "is it filters?", ALL_BUT_HANK_AI),
    ("max_crop", NET + "max_crop=4\n" + conv(), "break", 5, "unknown key max_crop", ("hank-ai",)),
    ("a key of another policy", NET + "step=4\n" + conv(), "break", 5, "under policy=constant", ("hank-ai",)),
    ("a key of adam", NET + "B1=1\n" + conv(), "break", 5, "without adam=1", ("hank-ai",)),
    ("twice", NET + conv(8) + "size=5\n", "break", 10, "repeats line 7", ("hank-ai",)),
    ("twice", NET + conv(8) + "size=5\n", "ignored", 10, "line 7, which counts", FIRST_TWO),
    ("twice", NET + conv(8) + "size=5\n", "differs", 10, "this one counts", ("opencv",)),
    ("trailing comma", NET + conv() + "[route]\nlayers=-1,\n", "differs", 11, "adds a 0", FIRST_TWO),
    ("mish", NET + conv(activation="mish"), "differs", 9, "ReLU instead of mish", ("pjreddie",)),
    ("swish", NET + conv(activation="swish"), "differs", 9, "ReLU instead of swish", ("pjreddie",)),
    ("relu6", NET + conv(activation="relu6"), "differs", 9, "zeros", ("alexeyab",)),
    ("relu6", NET + conv(activation="relu6"), "break", 9, "unknown activation relu6", ("opencv",)),
    ("no such activation", NET + conv(activation="rellu"), "break", 9, "unknown activation", ("hank-ai", "opencv")),
    ("no activation", NET + "[convolutional]\nfilters=4\nsize=1\n", "differs", 5, "takes linear", ("opencv",)),
    ("no size", NET + "[convolutional]\nfilters=4\n", "break", 5, "needs size=", ("opencv",)),
    ("maxpool's defaults", NET + conv() + "[maxpool]\nsize=2\n", "differs", 10, "without stride=", ("opencv",)),
    ("1x1 with stride", NET + conv(8, 1, stride=2), "differs", 10, "reads the wrong pixels", ("pjreddie",)),
    ("1x1 with stride_y", NET + conv(8, 1, stride_y=2), "differs", 10, "reads the wrong pixels", ALEXEYABS),
    ("dilation", NET + conv(dilation=2), "differs", 10, "passed over", ("pjreddie", "opencv")),
    ("stride_x as stride", NET + conv(stride=2, stride_x=2), "ignored", 11, "unknown key stride_x", ("pjreddie",)),
    ("antialiasing", NET + conv(antialiasing=1), "differs", 10, "passed over", ("pjreddie", "opencv")),
    ("share_index", NET + conv(4) + conv(4, share_index=-1), "differs", 15, "passed over", ("pjreddie", "opencv")),
    ("groups", NET + conv(8, 3, groups=3), "differs", 10, "3 groups don't divide 4", TRAINERS),
    ("groups", NET + conv(8, 3, groups=3), "break", 10, "3 groups don't divide 4", ("opencv",)),
    ("reorg", NET + conv() + "[reorg]\nstride=2\n", "break", 10, "unknown section [reorg]", ("hank-ai",)),
    ("reorg3d", NET + conv() + "[reorg3d]\nstride=2\n", "break", 10, "unknown section", ("pjreddie", "opencv")),
    ("reorg of too few", NET + conv(3) + "[reorg]\nstride=2\n", "break", 11, "divides by zero", FIRST_TWO),
    ("reorg of odd", NET + conv(6) + "[reorg]\nstride=2\n", "differs", 11, "no multiple", ALL_BUT_HANK_AI),
    ("wide maxpool", NET + conv() + "[maxpool]\nsize=5\nstride=1\n", "note", 12, "AVX", ALEXEYABS),
    ("route groups", NET + conv() + "[route]\nlayers=-1\ngroups=2\n", "differs", 12, "passed over", ("pjreddie",)),
    ("odd route groups", NET + conv() + "[route]\nlayers=-1\ngroups=3\n",
     "differs", 12, "don't divide 8", EVERYONE[1:]),
    ("a layer to come", NET + conv() + "[route]\nlayers=3\n", "break", 11, "points to no layer", ("hank-ai", "opencv")),
    ("a layer to come", NET + conv() + "[route]\nlayers=3\n", "differs", 11, "garbage", FIRST_TWO),
    ("the start of a number", NET + conv() + "[route]\nlayers=1e999\n", "break", 11, "found 1)", ("hank-ai", "opencv")),
    ("a layer before", NET + conv() + "[route]\nlayers=-3\n", "differs", 11, "garbage", TRAINERS),
    ("two sizes", NET + conv() + conv(stride=2) + "[route]\nlayers=-1,-2\n", "break", 17, "several sizes", EVERYONE),
    ("two sizes", NET + conv() + conv(stride=2) + "[shortcut]\nfrom=-2\n", "break", 17, "two sizes", EVERYONE[1:]),
    ("beta", NET + conv() * 2 + "[shortcut]\nfrom=-2\nbeta=1\n", "break", 17, "beta is refused", ("opencv",)),
    ("alpha", NET + conv() * 2 + "[shortcut]\nfrom=-2\nalpha=2\n", "differs", 17, "passed over", ("alexeyab",)),
    ("several", NET + conv() * 3 + "[shortcut]\nfrom=-2,-3\n",
     "differs", 21, "takes the first of 2", ("pjreddie", "opencv")),
    ("weights", NET + conv() * 2 + "[shortcut]\nfrom=-2\nweights_type=per_layer\nweights_normalization=relu\n",
     "break", 17, "expected one of", ("hank-ai",)),
    ("weights", NET + conv() * 2 + "[shortcut]\nfrom=-2\nweights_type=per_channel\n",
     "break", 17, "weights need", ("alexeyab",)),
    ("the fast path", NET + conv(8) + conv(5) + conv(8) + "[shortcut]\nfrom=-2\n",
     "differs", 21, "reads past layer 1", ALEXEYABS),
    ("scale_channels", NET + conv() + "[avgpool]\n[scale_channels]\nfrom=-2\nactivation=mish\n",
     "break", 13, "can't be used", ("hank-ai",)),
    ("dropout first", NET + "[dropout]\n" + conv(), "break", 5, "there is none", EVERYONE),
    ("filters before a head", NET + conv(17, 1) + yolo(), "break", 10, "expected 18 channels", EVERYONE),
    ("too many anchors", NET + conv(18, 1) + yolo(anchors="1,1,2,2,3,3,4"),
     "break", 14, "past its array", ("pjreddie", "hank-ai")),
    ("too many anchors", NET + conv(18, 1) + yolo(anchors="1,1,2,2,3,3,4"),
     "ignored", 14, "passes over", ("alexeyab",)),
    ("too many anchors", NET + conv(18, 1) + yolo(anchors="1,1,2,2,3,3,4"),
     "break", 14, "expected 6 numbers", ("opencv",)),
    ("scale_x_y", NET + conv(18, 1) + yolo(scale_x_y=1.1), "differs", 15, "passed over", ("pjreddie",)),
    ("scale_x_y of 1", NET + conv(18, 1) + yolo(scale_x_y="1.0"), "ignored", 15, "scale_x_y", ("pjreddie",)),
    ("new_coords", NET + conv(18, 1) + yolo(new_coords=1), "differs", 15, "passed over", ("pjreddie",)),
    ("no mask", NET + conv(18, 1) + yolo(mask=None), "break", 10, "needs mask=", ("opencv",)),
    ("iou_loss", NET + conv(18, 1) + yolo(iou_loss="best"), "break", 15, "unknown iou_loss best", ("hank-ai",)),
    ("not 32", NET + conv(18, 1) + yolo(), "break", 1, "multiples of 32", ("hank-ai",)),
    ("not 32", NET + conv(18, 1) + yolo(), "note", 1, "multiples of 32", ("alexeyab",)),
    ("batch", NET + "batch=2\nsubdivisions=4\n" + conv(), "break", 5, "a crash", ("pjreddie",)),
    ("contrastive", NET + "contrastive=1\n" + conv(), "break", 5, "two pictures", ALEXEYABS),
    ("policy", NET + "policy=cosine\n" + conv(), "break", 5, "unknown policy", ("hank-ai",)),
    ("policy", NET + "policy=cosine\n" + conv(), "differs", 5, "constant is taken", FIRST_TWO),
    ("sgdr", NET + "policy=sgdr\n" + conv(), "differs", 5, "constant is taken", ("pjreddie",)),
    ("cost", NET + conv() + "[cost]\ntype=L1\n", "differs", 11, "sse is taken", ("alexeyab",)),
    ("cost", NET + conv() + "[cost]\ntype=L1\n", "break", 11, "unknown type L1", ("hank-ai",)),
    ("nms_kind", NET + conv(18, 1) + yolo(nms_kind="soft"), "differs", 15, "default is taken", ("alexeyab",)),
    ("nms_kind", NET + conv(18, 1) + yolo(nms_kind="soft"), "break", 15, "unknown nms_kind soft", ("hank-ai",)),
    ("iou_loss", NET + conv(18, 1) + yolo(iou_loss="eiou"), "differs", 15, "iou is taken", ("alexeyab",)),
    ("iou_thresh_kind", NET + conv(18, 1) + yolo(iou_thresh_kind="mse"), "differs", 15, "iou is taken", ("alexeyab",)),
    ("iou_thresh_kind", NET + conv(18, 1) + yolo(iou_thresh_kind="mse"), "break", 15, "", ()),
    ("no number", NET + "batch=none\n" + conv(), "differs", 5, "counts as 0", FIRST_TWO),
    ("text behind a number", NET + "batch=64/2\n" + conv(), "note", 5, "starts with counts", FIRST_TWO),
    ("text behind a number", NET + "batch=64/2\n" + conv(), "break", 5, "digits", ("hank-ai",)),
    ("an empty item", NET + "policy=steps\nsteps=1,2,3\nscales=.1,,10.0\n" + conv(), "differs", 7, "empty", FIRST_TWO),
    ("two numbers", NET + "learning_rate=.1,.2\n" + conv(), "note", 5, "starts with counts", FIRST_TWO),
    ("vectors only", "[net]\ninputs=16\n[connected]\noutput=3\nactivation=linear\n",
     "break", 1, "divides by zero", ALEXEYABS),
    ("no input", "[net]\n" + conv(), "break", 1, "expected width=", TRAINERS),
    ("time_steps", NET + "time_steps=3\n" + conv(), "differs", 5, "passed over", ("opencv",)),
    ("batch norm", NET + conv(batch_normalize=1), "note", 10, "normalizes by", EVERYONE),
    ("softmax groups", NET + conv() + "[softmax]\ngroups=2\n", "break", 11, "one group", ("opencv",)),
    ("upsample", NET + conv() + "[upsample]\nstride=-2\n", "break", 11, "over 0", ("opencv",)),
    ("upsample scale", NET + conv() + "[upsample]\nstride=2\nscale=3\n", "differs", 12, "passed over", ("opencv",)),
    ("tree", NET + conv(18, 1) + "[region]\nclasses=1\nnum=3\nanchors=1,1,2,2,3,3\ntree=a\n", "break", 14, "tree",
     ("opencv",)),
    ("crop", NET + "[crop]\ncrop_height=8\ncrop_width=8\n" + conv(), "break", 5, "without noadjust=1", ("opencv",)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "severity", "line", "words", "readers"),
    [case[1:] for case in CASES],
    ids=[f"{case[0]}-{case[2]}" for case in CASES],
)
def test_what_is_said_of_which_line(text: str, severity: str, line: int, words: str, readers: tuple[str, ...]) -> None:
    assert who(findings(text), severity, line, words) == set(readers)


def test_a_plain_cfg_has_nothing_but_notes() -> None:
    text = NET.replace("16", "32") + conv() + "[maxpool]\nsize=2\nstride=2\n" + conv(18, 1) + yolo()
    assert findings(text) == []


def test_layers_are_counted_and_bytes_shown() -> None:
    found = findings(NET.encode() + conv().encode() * 2 + b"\xff\xfe=1\n")
    assert {(each.line, each.layer, each.key) for each in found} == {(15, 1, "\\udcff\\udcfe")}


def test_what_no_shape_is_known_of_is_said() -> None:
    found = findings(NET + conv() + "[convnext]\nfilters=3\n" + conv(5, groups=4))
    assert who(found, "note", 10, "from here on shapes are unknown") == {"yoloprune"}
    assert not any(each.line == 17 for each in found)


@pytest.mark.parametrize("data", [b"", b"[yolo]\n", b"[net]\nwid\0th=3\n"])
def test_no_cfg_at_all(data: bytes) -> None:
    with pytest.raises(InputError):
        findings(data)


def header(major: int, minor: int, floats: int) -> WeightsFile:
    """20 bytes of header, and ones."""
    head = np.array([major, minor, 5, 0, 0], "<i4").tobytes()
    return WeightsFile("a.weights", np.frombuffer(head + np.ones(floats, "<f4").tobytes(), np.uint8))


@pytest.mark.parametrize(
    ("weights", "severity", "words", "readers"),
    [
        (header(0, 2, 40), "break", "", ()),
        (header(0, 2, 41), "break", "expected 180 bytes", ("hank-ai",)),
        (header(0, 2, 41), "ignored", "expected 180 bytes", ALL_BUT_HANK_AI),
        (header(0, 2, 38), "differs", "random values", ALL_BUT_HANK_AI),
        (header(0, 2, 39), "break", "4 bytes too few: the header's version and length disagree", EVERYONE),
        (header(0, 1, 40), "break", "4 bytes too many: the header's version and length disagree", EVERYONE),
        (header(0, 1, 41), "ignored", "expected 176 bytes", ALL_BUT_HANK_AI),
        (header(1001, 0, 40), "break", "transposed", ("opencv",)),
        (header(1001, 0, 40), "differs", "4 bytes late", ALEXEYABS),
        (WeightsFile("a.bin", header(0, 2, 40).data), "differs", "silently not loaded", ("hank-ai",)),
        (WeightsFile("a.weights", np.zeros(0, np.uint8)), "break", "too short", ("hank-ai", "opencv")),
        (WeightsFile("a.weights", np.zeros(0, np.uint8)), "differs", "random weights", ("pjreddie", "alexeyab")),
    ],
)  # fmt: skip
def test_weights(weights: WeightsFile, severity: str, words: str, readers: tuple[str, ...]) -> None:
    found = findings(NET + conv(8, 1, pad=0), weights)
    assert who(found, severity, None, words) == set(readers)


def test_weights_where_a_reader_has_other_arrays() -> None:
    """pjreddie's Darknet takes all channels, so the filters behind need more weights than there are."""
    text = NET + conv(8, 1) + "[route]\nlayers=-1\ngroups=2\n" + conv(2, 1)
    found = findings(text, header(0, 2, 40 + 2 + 8))
    assert who(found, "differs", None, f"expected {20 + 4 * (40 + 2 + 16)} bytes") == {"pjreddie"}
    assert {each.reader for each in found if "bits" not in each.message} == {"pjreddie"}  # all weights are one value
    unknown = text + "[shortcut]\nfrom=-2\n[convolutional]\nfilters=2\ngroups=5\n"
    assert {each.reader for each in findings(unknown, header(0, 2, 3)) if each.line is None} == set()


@pytest.mark.parametrize(("name", "expected"), [("yolov4-tiny", 25025420), ("yolov4-tiny-3l", 26110344)])
def test_weights_of_the_length_that_the_library_saves(
    stock_cfg: Callable[[str], Path], name: str, expected: int
) -> None:
    """Sizes that pjreddie's library wrote for the cfg."""
    weights = header(0, 2, (expected - 20) // 4)
    found = check(cfg_file.read(stock_cfg(name)), list(PROFILES.values()), weights)
    assert {each.reader for each in found if each.line is None} == {"alexeyab", "hank-ai", "opencv"}


NORMALIZED = NET + conv(4, 1, batch_normalize=1) + conv(3, 1)
FLOATS = 4 * 4 + 4 * 4 + 3 + 3 * 4


def normalized(variances: tuple[float, ...], **others: float) -> WeightsFile:
    """Weights of NORMALIZED; `others`: values at other places."""
    floats = np.random.default_rng(4).uniform(0.5, 1, FLOATS).astype("<f4")
    floats[12 : 12 + len(variances)] = variances
    for place, value in others.items():
        floats[int(place.removeprefix("at"))] = value
    return WeightsFile("a.weights", np.frombuffer(header(0, 2, 0).data.tobytes() + floats.tobytes(), np.uint8))


@pytest.mark.parametrize(
    ("weights", "words", "readers"),
    [
        (normalized((0.0, 1e-44, -7e-44, 3e38)), "", ()),
        (normalized((1.0, -5e-7)), "byte 72: layer 0 [convolutional], variance: -5e-07, which becomes NaN",
         ("pjreddie",)),
        (normalized((-9.9999e-6, -5e-6)), "-9.9999e-06, which becomes NaN (1 more)", ("pjreddie", "opencv")),
        (normalized((-1.01e-5, 1.0)), "byte 68: layer 0 [convolutional], variance: -1.01e-05, which becomes", EVERYONE),
        (normalized((), at33=np.nan), "byte 152: layer 1 [convolutional], bias: nan", EVERYONE),
        (normalized((), at3=np.inf, at40=-np.inf), "byte 32: layer 0 [convolutional], bias: inf (1 more)", EVERYONE),
    ],
)  # fmt: skip
def test_values_of_weights(weights: WeightsFile, words: str, readers: tuple[str, ...]) -> None:
    found = findings(NORMALIZED, weights)
    assert who(found, "break", None, words) == set(readers)
    assert {
        each.line for each in lost_values(cfg_file.parse(NORMALIZED.encode()), list(PROFILES.values()), weights)
    } == ({None} if readers else set())


@pytest.mark.usefixtures("libdarknet")
@pytest.mark.parametrize("name", ["pjreddie", "opencv"])
def test_variances_that_real_readers_turn_to_nan(tmp_path: Path, name: str) -> None:
    """One filter each; a reader that is here computes NaN of those of which `check` says so."""
    variances = (-2e-6, -1.1e-6, -9e-7, -1e-8, -1e-40, 0.0, 1e-40, 1e-7)
    text = NET + conv(len(variances), 1, batch_normalize=1)
    floats = np.ones(4 * 8 + 4 * 8, "<f4")
    floats[24:32] = variances
    cfg, file = tmp_path / "a.cfg", tmp_path / "a.weights"
    cfg.write_text(text + yolo(classes=3, num=1, mask="0", anchors="1,1"))
    data = header(0, 2, 0).data.tobytes() + floats.tobytes()
    file.write_bytes(data)
    x = np.ones((1, 4, 16, 16), np.float32)
    reader = {"pjreddie": libdarknet, "opencv": opencv}[name]
    values = reader.head_inputs(cfg, file, x, [1])[1][0, :, 0, 0]
    for index, value in enumerate(values):
        alone = floats.copy()
        alone[24:32] = 1
        alone[24 + index] = variances[index]
        weights = WeightsFile("a.weights", np.frombuffer(data[:20] + alone.tobytes(), np.uint8))
        said = lost_values(cfg_file.parse(cfg.read_bytes()), [PROFILES[name]], weights)
        assert bool(said) == (not np.isfinite(value)), (variances[index], value, said)


LIVE = {text for _, text, *_ in CASES if "width" in text}


@pytest.mark.parametrize("text", sorted(LIVE))
def test_opencv_refuses_what_check_says(tmp_path: Path, text: str) -> None:
    """Loaded, and asked for every layer's shape; weights are random and more than enough."""
    cfg, weights = tmp_path / "a.cfg", tmp_path / "a.weights"
    cfg.write_bytes(text.encode())
    random = np.random.default_rng(1).normal(size=20000).astype("<f4")
    weights.write_bytes(header(0, 2, 0).head + random.tobytes())
    said = [each.message for each in findings(text) if (each.reader, each.severity) == ("opencv", "break")]
    try:
        opencv_worker.answer({"do": "load", "cfg": str(cfg), "weights": str(weights)}, {})
        refusal = None
    except RefusalError as error:
        refusal = str(error)
    assert bool(said) == bool(refusal), (said, refusal)


@pytest.mark.usefixtures("libdarknet")
@pytest.mark.parametrize(
    "text",
    [
        "\ufeff" + NET + conv(),
        NET + conv().replace("\n", "\r\n"),
        "[net]\r\n" + NET[6:] + conv(),
        "x=1\n" + NET + conv(),
        NET + conv().replace("]", "] # c"),
        NET + conv().replace("[conv", "[ conv"),
        NET + conv().replace("[c", "[C"),
        NET + conv() + "bare\n",
        NET + conv(size="3 # was 5"),
        NET + conv(8) + "size=5\n",
        NET + conv(groups=3),
        NET + conv() + "[reorg3d]\nstride=2\n" + conv(),
        NET + conv(3) + "[reorg]\nstride=2\n",
        NET + conv() + conv(stride=2) + "[route]\nlayers=-1,-2\n" + conv(),
        NET + conv() + conv(stride=2) + "[shortcut]\nfrom=-2\n",
        NET + "[dropout]\n" + conv(),
        NET + conv(17, 1) + yolo(),
        NET + conv() + "[avgpool]\n[scale_channels]\nfrom=-2\n" + conv(),
        "[net]\n" + conv(),
        "[net]\ninputs=16\n[connected]\noutput=3\nactivation=linear\n",
        NET + "batch=2\nsubdivisions=4\n" + conv(),
    ],
    ids=range(21),
)  # fmt: skip
def test_pjreddie_refuses_what_check_says(tmp_path: Path, text: str) -> None:
    """Loaded and run."""
    cfg, weights = tmp_path / "a.cfg", tmp_path / "a.weights"
    cfg.write_bytes(text.encode())
    weights.write_bytes(header(0, 2, 0).head + bytes(80000))
    said = [each.message for each in findings(text) if (each.reader, each.severity) == ("pjreddie", "break")]
    try:
        libdarknet.outputs(cfg, weights, np.zeros((1, 16, 1, 1) if "inputs" in text else (1, 4, 16, 16), np.float32))
        refusal = None
    except ReaderError as error:
        refusal = str(error)
    assert bool(said) == bool(refusal), (said, refusal)


PARSE = """
import ctypes, sys
library = ctypes.CDLL(sys.argv[1])
library.load_network.restype = ctypes.c_void_p
library.load_network(sys.argv[2].encode(), None, 0)
"""


@pytest.mark.parametrize("kind", [kind for kind in sorted(SECTIONS - {"iseg"}) if PJREDDIE.keys(kind) is not None])
def test_the_table_of_pjreddies_keys(libdarknet: Path, tmp_path: Path, kind: str) -> None:
    """Its library names every key that it didn't ask for; files that a key names are left out."""
    both = [reader.keys(each) or frozenset() for reader in (PJREDDIE, ALEXEYAB) for each in SECTIONS]
    everything = sorted(set().union(*both) - {"tree", "map"})
    values = {"activation": "linear", "from": "0", "layers": "0", "anchors": "1,1", "mask": "0", "type": "sse",
              "filters": "4", "classes": "1", "num": "1", "side": "1", "coords": "4"}  # fmt: skip
    before = {"yolo": 6, "region": 6, "detection": 6}.get(kind, 4)
    text = "[net]\nwidth=8\nheight=8\nchannels=4\n" + conv(before, 1)
    if kind == "detection":
        text += "[avgpool]\n"
    text += f"[{kind}]\n" + "".join(f"{key}={values.get(key, '1')}\n" for key in everything)
    (tmp_path / "a.cfg").write_text(text)
    done = subprocess.run(
        [sys.executable, "-c", PARSE, str(libdarknet), str(tmp_path / "a.cfg")],
        capture_output=True,
        text=True,
        check=True,
    )
    unused = set(re.findall(r"Unused field: '(\S+) =", done.stderr))
    assert unused == set(everything) - (PJREDDIE.keys(kind) or set())


@pytest.mark.parametrize(
    "text",
    [
        NET + "[convolutional]\n" + "".join(f"key{number}=1\n" for number in range(5000)),
        NET + "[convolutional]\n" + "size=1\n" * 10000,
        NET + "[dropout]\n" * 5000,
        NET + conv() + "[route]\nlayers=" + "0," * 50000 + "0\n",
        NET + f"momentum={'1' * 300_000}x\n[convolutional]\nsize={'1' * 300_000}x\n",
        NET + f"[convolutional]\nsize=1\nalpha={'1.' * 150_000}e\n",
    ],
    ids=["unknown keys", "one key", "sections", "a list", "a number", "points"],
)
def test_large_cfgs_take_little_time(text: str) -> None:
    """Each in well under a second alone; what grows with the square would take hours."""
    start = time.process_time()
    cfg = cfg_file.parse(text.encode())
    cfg_file.legal(cfg)
    check(cfg, list(PROFILES.values()))
    assert time.process_time() - start < 5
