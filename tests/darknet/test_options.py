"""Values that are no plain numbers: keys of shape are strict, keys that only train count as Darknet has them."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers import graph_of
from yoloprune.darknet import cfg as cfg_file
from yoloprune.darknet.dialect import ALEXEYAB, PJREDDIE, Dialect
from yoloprune.darknet.layers.cost import Cost
from yoloprune.darknet.layers.yolo import Yolo
from yoloprune.darknet.model import Graph, build_graph, load_graph, plain
from yoloprune.darknet.options import Options
from yoloprune.errors import InputError, InputWarning

NET = "[net]\nwidth=13\nheight=17\nchannels=3\n"
CONV = "[convolutional]\nfilters=7\n"
HEAD = "[yolo]\nclasses=2\n"


def read(net: str = "", conv: str = "", head: str = "", dialect: Dialect = ALEXEYAB) -> Graph:
    return graph_of(f"{NET}{net}{CONV}{conv}{HEAD}{head}", dialect)


def options_of(entry: str) -> Options:
    cfg = cfg_file.parse(f"[net]\n{entry}\n".encode(), "a.cfg")
    return Options(cfg, cfg.sections[0], None)


@pytest.mark.parametrize(
    ("entry", "field", "value", "said"),
    [
        ("learning_rate=0.001,0.0005", "learning_rate", 0.001, "'0.001,0.0005': Darknet takes 0.001"),
        ("decay=1e-3f", "decay", 1e-3, "'1e-3f': Darknet takes 0.001"),
        ("batch=64/2", "batch", 64, "expected a whole number, found '64/2': Darknet takes 64"),
        ("max_batches=1e6", "max_batches", 1, "'1e6': Darknet takes 1"),
        ("momentum=none", "momentum", 0.0, "'none': Darknet takes 0"),
        ("policy=steps\nsteps=4,9\nscales=.1,,10.0", "scales", (0.1, 0.0, 10.0), "found '': Darknet takes 0.1,0,10"),
        ("steps=4,9k,", "steps", (4, 9, 0), "'9k': Darknet takes 4,9,0"),
        ("burn_in=4294967396", "burn_in", 100, "Darknet takes 100"),
        ("hue=0x.8", "hue", 0.5, None),
        ("step=0", "step", 0, None),
        ("saturation=1.5 # was 2,3", "saturation", 1.5, None),
        ("policy=cosine", "policy", "constant", "Darknet takes constant"),
        ("policy=steps # 3", "policy", "constant", "a comment stands on its own line"),
    ],
)
def test_net(entry: str, field: str, value: object, said: str | None) -> None:
    graph = read(entry + "\n")
    assert getattr(graph.net, field) == value
    if said is None:
        assert not graph.misread
    else:
        assert any(said in misread.message for misread in graph.misread), graph.misread


def test_layers_too() -> None:
    graph = read(
        "", "learning_rate=.5x\nstopbackward=yes\n", "ignore_thresh=.7.\nmax=90boxes\nrandom=on\njitter=.2,.3\n"
    )
    assert (graph.updates[0].rate, graph.updates[0].stop) == (0.5, 0)
    head = graph.layers[1]
    assert isinstance(head, Yolo)
    training = head.training
    assert (training.ignore_thresh, training.max_truths, training.random, training.jitter) == (0.7, 90, 0.0, 0.2)
    assert sorted(misread.line for misread in graph.misread) == [7, 8, 11, 12, 13, 14]


@pytest.mark.parametrize(
    ("entry", "field", "value"),
    [
        ("nms_kind=soft", "nms_kind", "default"),
        ("iou_loss=eiou", "training.iou_loss", "iou"),
        ("iou_loss=MSE", "training.iou_loss", "iou"),
        ("iou_thresh_kind=mse", "training.iou_thresh_kind", "iou"),
    ],
)
def test_words_fall_back_to_what_darknet_takes(entry: str, field: str, value: str) -> None:
    """parse_yolo; pjreddie's Darknet has none of these keys."""
    graph = read("", "", entry + "\n")
    found: object = graph.layers[1]
    for name in field.split("."):
        found = getattr(found, name)
    assert found == value
    assert [(misread.line, f"Darknet takes {value}" in misread.message) for misread in graph.misread] == [(9, True)]
    assert not read("", "", entry + "\n", PJREDDIE).misread


@pytest.mark.parametrize(
    ("text", "dialect", "value", "misread"),
    [
        ("type=L1", PJREDDIE, "L1", 0),
        ("type=L1", ALEXEYAB, "sse", 1),
        ("type=smooth", ALEXEYAB, "smooth", 0),
        ("type=l2\nscale=2x", PJREDDIE, "sse", 2),
    ],
)
def test_cost(text: str, dialect: Dialect, value: str, misread: int) -> None:
    """get_cost_type of each."""
    graph = graph_of(f"{NET}{CONV}[avgpool]\n[softmax]\n[cost]\n{text}\n", dialect)
    cost = graph.layers[-1]
    assert isinstance(cost, Cost)
    assert cost.type == value
    assert len(graph.misread) == misread


@pytest.mark.parametrize(("text", "theirs", "ours"), [("0.9", 0.9, 0), ("1.4", 1.4, 1), ("1", 1, 1)])
def test_random_is_a_whole_number_to_pjreddie(text: str, theirs: float, ours: int) -> None:
    """option_find_int_quiet there, option_find_float_quiet in AlexeyAB's parse_yolo."""
    for dialect, expected in ((ALEXEYAB, theirs), (PJREDDIE, ours)):
        head = read("", "", f"random={text}\n", dialect).layers[1]
        assert isinstance(head, Yolo)
        assert head.training.random == expected


def test_sgdr_is_alexeyabs() -> None:
    assert (read("policy=sgdr\n").net.policy, read("policy=sgdr\n", dialect=PJREDDIE).net.policy) == (
        "sgdr",
        "constant",
    )


@pytest.mark.parametrize(
    ("net", "conv", "head", "message"),
    [
        ("", "size=3x3\n", "", r"test.cfg:7: \[convolutional\] layer 0: size=3x3 expected a whole number, found '3x3'"),
        ("", "", "num=1 anchor\n", "num=1anchor expected a whole number"),
        ("", "", "scale_x_y=1.05f\n", "scale_x_y=1.05f expected a number, found '1.05f'"),
        ("", "", "anchors=1,2,,3\nnum=2\nmask=0\n", "expected a number, found ''"),
        ("", "", "beta_nms=none\n", "expected a number, found 'none'"),
        ("", "size=\uff13\n", "", "expected a whole number"),  # a digit to Python, none to atoi
        ("batch=none\n", "", "", "batch=none expected a value in 1.."),
        ("learning_rate=nan\n", "", "", "learning_rate=nan expected a number, found 'nan'"),
        ("policy=step\nstep=0\n", "", "", "step=0 expected a value in 1.."),
    ],
)
def test_errors(net: str, conv: str, head: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(net, conv, head)


def test_a_file_that_is_read_is_warned_of(tmp_path: Path) -> None:
    file = tmp_path / "a.cfg"
    file.write_text(f"{NET}batch=8/2\n{CONV}{HEAD}nms_kind=soft\n")
    with pytest.warns(InputWarning) as warned:
        load_graph(file, ALEXEYAB)
    assert [str(each.message) for each in warned] == [
        f"{file}:5: [net]: batch=8/2 expected a whole number, found '8/2': Darknet takes 8",
        f"{file}:10: [yolo] layer 1: nms_kind=soft expected one of default, greedynms, diounms, cornersnms: "
        "Darknet takes default",
    ]


def test_written_plainly_it_is_the_same() -> None:
    """Nothing is misread then, and the numbers are those that counted."""
    graph = read(
        "batch=64/2\npolicy=steps\nsteps=4,9k,\nscales=.1,,1e-5x\nmax_batches=1e6\ndecay=16777217a\n",
        "learning_rate=.123456789z\n",
        "nms_kind=soft\njitter=none\n",
    )
    written = build_graph(plain(graph), ALEXEYAB)
    assert written.misread == ()
    assert len(graph.misread) == 8
    assert written.net == graph.net
    assert (written.layers, written.updates) == (graph.layers, graph.updates)


PIECES = st.lists(st.sampled_from([*"0123456789.,+-eExfn/#;", "1e3", "0x", "inf"]), min_size=1, max_size=8).map("".join)


@given(PIECES)
def test_training_takes_what_the_c_library_reads(text: str) -> None:
    """As a number, a whole number and lists of them, unless no float holds it."""
    libc = ctypes.CDLL(None)
    libc.atof.restype = ctypes.c_double
    items = text.replace(";", "#").split("#")[0].split(",")
    reader = options_of(f"a={text}").training
    reals = [libc.atof(item.encode()) for item in items]
    assert reader.integers("a") == tuple(libc.atoi(item.encode()) for item in items)
    assert reader.integer("a", 1) == libc.atoi(text.encode())
    if all(abs(value) < 3e38 for value in reals):
        assert reader.numbers("a") == tuple(reals)
        assert reader.number("a", 1.0) == libc.atof(text.encode())
    else:
        with pytest.raises(InputError, match="expected a number"):
            reader.numbers("a")


@given(PIECES)
def test_strict_takes_the_same_or_nothing(text: str) -> None:
    try:
        value = options_of(f"a={text}").number("a", 1.0)
    except InputError:
        return
    assert value == options_of(f"a={text}").training.number("a", 1.0)
