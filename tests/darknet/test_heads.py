"""What heads make of their input and which boxes they give: against libdarknet's, else NumPy, cell by cell."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.darknet.test_layers import INPUTS, NET, REGION, START, V1, outputs
from tests.helpers import graph_of, random_model, worst
from tests.oracles import libdarknet_many
from yoloprune.darknet import cfg as cfg_file
from yoloprune.darknet import weights as weights_file
from yoloprune.darknet.dialect import ALEXEYAB, PJREDDIE
from yoloprune.darknet.model import Model, build_graph
from yoloprune.darknet.network import build
from yoloprune.darknet.predictions import Detections
from yoloprune.errors import InputError

TREE = "animal -1\nthing -1\ncat 0\ndog 0\ncar 1\nbus 1\nminibus 5\nschoolbus 5\n"
"""Two at the top, two below each, two below the last; numbers are lines."""
PARENTS = [-1, -1, 0, 0, 1, 1, 5, 5]
GROUPS = [slice(0, 2), slice(2, 4), slice(4, 6), slice(6, 8)]
HEADS = {
    "yolo": START.replace("=8", "=14") + "[yolo]\nmask=1,2\nnum=3\nanchors=3,4,5,6,7,8\nclasses=2\n",
    "region": START.replace("=8", "=14") + REGION + "softmax=1\n",
    "region background": START.replace("=8", "=14") + REGION + "softmax=1\nbackground=1\n",
    "region coords": START.replace("=8", "=18") + REGION + "coords=6\n",
    "detection": START + "[connected]\noutput=108\nactivation=logistic\n" + V1,
    "detection softmax": START + "[connected]\noutput=108\nactivation=logistic\n" + V1 + "softmax=1\n",
}
THRESH = 0.3
Found = dict[str, tuple[Model, np.ndarray, np.ndarray]]


def rows(found: Detections) -> np.ndarray:
    """Image, class, x, y, w, h, probability, in an order of their own."""
    columns = [found.image[:, None], found.classes[:, None], found.boxes, found.probs[:, None]]
    return ordered(torch.cat([column.double() for column in columns], 1).numpy())


def ordered(table: np.ndarray) -> np.ndarray:
    return table[np.lexsort((table[:, 6], table[:, 1], table[:, 0]))]


@pytest.fixture(scope="module")
def found(libdarknet: Path, tmp_path_factory: pytest.TempPathFactory) -> Found:
    """For each head a model, the library's output of the head and its boxes."""
    folder = tmp_path_factory.mktemp("heads")
    models, files = {}, []
    for number, (name, text) in enumerate(HEADS.items()):
        model = models[name] = random_model(graph_of(NET + text, PJREDDIE), 5)
        files.append((folder / f"{number}.cfg", folder / f"{number}.weights"))
        cfg_file.write(files[-1][0], model.graph.cfg)
        weights_file.write(files[-1][1], model.weights, model.graph.layers)
    values = libdarknet_many.outputs(files, INPUTS)
    of_classes = [(*pair, model.graph.classes) for pair, model in zip(files, models.values(), strict=True)]
    tables = libdarknet_many.boxes(of_classes, INPUTS, (13, 17), THRESH)
    return {
        name: (model, value[max(value)], table)
        for (name, model), value, table in zip(models.items(), values, tables, strict=True)
    }


@pytest.mark.parametrize("name", HEADS)
def test_boxes_are_libdarknets(found: Found, name: str) -> None:
    """Of its own output of the head; that ours is the same, test_layers shows."""
    model, output, theirs = found[name]
    head = model.graph.layers[-1]
    ours = rows(head.decode(torch.from_numpy(output.reshape(3, *head.out)), THRESH))  # type: ignore[attr-defined]
    expected = []
    for image, x, y, w, h, _, *probs in theirs:
        if name.startswith("detection"):
            x, y, w, h = x / 13, y / 17, w / 13, h / 17
        expected += [(image, k, x, y, w, h, prob) for k, prob in enumerate(probs) if prob > 0]
    assert len(expected) > 20
    assert worst(ours, ordered(np.array(expected))) < 1e-5


def grouped_softmax(x: np.ndarray, axis: int) -> np.ndarray:
    parts = []
    for group in GROUPS:
        part = np.exp(np.take(x, range(group.start, group.stop), axis))
        parts.append(part / part.sum(axis, keepdims=True))
    return np.concatenate(parts, axis)


@pytest.mark.parametrize("dialect", [ALEXEYAB, PJREDDIE], ids=["alexeyab", "pjreddie"])
def test_tree_of_a_region(tmp_path: Path, dialect: object) -> None:
    """Softmax by groups; AlexeyAB's then takes the last class that is over 1/2, with its own probability."""
    (tmp_path / "t").write_text(TREE)
    region = REGION.replace("classes=2", "classes=8") + f"tree={tmp_path / 't'}\nmap=for_training_only\n"
    text = START.replace("=8", "=26") + region
    model = random_model(graph_of(NET + text, dialect), 5)  # type: ignore[arg-type]
    x = torch.from_numpy(INPUTS.astype(np.float64))
    with torch.inference_mode():
        out = build(model).double()(x, want=[0, 1])
    raw = out[0].numpy().reshape(3, 2, 13, 17, 13)
    ours = out[1].numpy().reshape(3, 2, 13, 17, 13)
    assert worst(ours[:, :, 5:], grouped_softmax(raw[:, :, 5:], 2)) < 1e-12
    if dialect is PJREDDIE:
        return
    expected = []
    for b, a, i, j in np.ndindex(3, 2, 17, 13):
        cell = ours[b, a, :, i, j]
        probs = cell[5:].copy()
        for k, parent in enumerate(PARENTS):
            probs[k] *= probs[parent] if parent >= 0 else 1
        sure = np.flatnonzero(probs > 0.5)
        if cell[4] > THRESH and len(sure):
            w, h = np.exp(cell[2]) * (1, 3)[a] / 13, np.exp(cell[3]) * (2, 4)[a] / 17
            expected.append((b, sure[-1], (j + cell[0]) / 13, (i + cell[1]) / 17, w, h, probs[sure[-1]]))
    assert len(expected) > 20
    assert worst(rows(model.graph.layers[1].decode(out[1], THRESH)), ordered(np.array(expected))) < 1e-9  # type: ignore[attr-defined]


def test_walks_are_libdarknets(libdarknet: Path, tmp_path: Path) -> None:
    """Its [region] gets the softmax of a tree wrong, but its functions on trees are right."""
    (tmp_path / "t").write_text(TREE)
    softmax = graph_of(NET + START + f"[avgpool]\n[softmax]\ntree={tmp_path / 't'}\n").layers[2]
    tree = softmax.tree  # type: ignore[attr-defined]
    library = ctypes.CDLL(str(libdarknet))
    floats, pointer, number = ctypes.POINTER(ctypes.c_float), ctypes.c_void_p, ctypes.c_int
    library.read_tree.restype, library.read_tree.argtypes = pointer, [ctypes.c_char_p]
    library.hierarchy_predictions.argtypes = [floats, number, pointer, number, number]
    library.hierarchy_top_prediction.argtypes = [floats, pointer, ctypes.c_float, number]
    theirs = library.read_tree(str(tmp_path / "t").encode())
    x = grouped_softmax(np.random.default_rng(3).normal(0, 3, (200, 8)), 1).astype(np.float32)
    products = x.copy()
    walked = []
    for row in products:
        data = row.ctypes.data_as(floats)
        library.hierarchy_predictions(data, 8, theirs, 0, 1)
        walked.append(library.hierarchy_top_prediction(data, theirs, 0.5, 1))
    ours = tree.products(torch.from_numpy(x))
    assert worst(ours.numpy(), products) < 1e-6
    assert tree.walk(ours, 0.5).tolist() == walked
    leaves = x.copy()
    for row in leaves:
        library.hierarchy_predictions(row.ctypes.data_as(floats), 8, theirs, 1, 1)
    scores = softmax.scores(torch.from_numpy(x)[:, :, None, None]).numpy()
    assert worst(scores, leaves) < 1e-6
    assert (scores > 0).any(0).tolist() == [False, False, True, True, True, False, True, True]
    assert len(set(walked)) > 5


def test_tree_of_a_softmax(tmp_path: Path) -> None:
    (tmp_path / "t").write_text(TREE)
    text = START + f"[avgpool]\n[softmax]\ntemperature=2\ntree={tmp_path / 't'}\n"
    out, _ = outputs(text)
    assert worst(out[2], grouped_softmax(out[1] / 2, 1)) < 1e-12


@pytest.mark.parametrize("point", ["center", "left_top", "right_bottom"])
def test_gaussian_yolo(point: str) -> None:
    keys = f"mask=0,2\nnum=3\nanchors=3,4,5,6,7,8\nclasses=2\nscale_x_y=1.1\nyolo_point={point}\n"
    out, model = outputs(START.replace("=8", "=22").replace("leaky", "linear") + f"[Gaussian_yolo]\n{keys}")
    raw = out[0].reshape(2, 2, 11, 17, 13)
    values = 1 / (1 + np.exp(-raw))
    values[:, :, [0, 2]] = values[:, :, [0, 2]] * 1.1 - 0.05
    values[:, :, [4, 6]] = raw[:, :, [4, 6]]
    assert worst(out[1].reshape(raw.shape), values) < 1e-12
    shift = {"center": 0, "left_top": 0.5, "right_bottom": -0.5}[point]
    expected = []
    for b, a, i, j in np.ndindex(2, 2, 17, 13):
        x, sx, y, sy, w, sw, h, sh, there, *classes = values[b, a, :, i, j]
        width, height = np.exp(w) * (3, 7)[a] / 13, np.exp(h) * (4, 8)[a] / 17
        for k, each in enumerate(classes):
            prob = there * each * (1 - (sx + sy + sw + sh) / 4)
            if there > 0.1 and prob > 0.1:
                x_, y_ = (j + x) / 13 + shift * width, (i + y) / 17 + shift * height
                expected.append((b, k, x_, y_, width, height, prob))
    assert len(expected) > 20
    ours = rows(model.graph.layers[1].decode(torch.from_numpy(out[1]), 0.1))  # type: ignore[attr-defined]
    assert worst(ours, ordered(np.array(expected))) < 1e-9


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a -1\nb 5\n", "line 2: expected a class and a parent before it, or -1"),
        ("a -1\nb x\n", "line 2: expected a class and a parent before it, or -1"),
        ("a -1\nb 0\nc -1\n", "line 3: expected all children of -1 in a row"),
        ("a -1\nb -1\n", "expected 8 classes in it, found 2"),
        (None, "cannot be read: No such file or directory"),
    ],
)
def test_bad_trees_are_refused(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "t").write_text(text)
    with pytest.raises(InputError) as caught:
        graph_of(NET + START + f"[avgpool]\n[softmax]\ntree={tmp_path / 't'}\n")
    assert message in str(caught.value)


def test_a_tree_lies_from_the_cfg_or_its_parent(tmp_path: Path) -> None:
    (tmp_path / "cfg").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "t").write_text(TREE)
    text = NET + START + "[avgpool]\n[softmax]\ntree=data/t\n"
    graph = build_graph(cfg_file.parse(text.encode(), str(tmp_path / "cfg" / "a.cfg")), ALEXEYAB)
    assert graph.layers[2].tree.parents == tuple(PARENTS)  # type: ignore[attr-defined]


@pytest.mark.parametrize("head", ["[yolo]\nmask=0,1\nnum=2\n", "[region]\nnum=2\nsoftmax=1\n"])
def test_scores_are_what_boxes_are_found_by(head: str) -> None:
    text = f"[net]\nwidth=9\nheight=7\nchannels=16\n{head}anchors=1,2,3,4\nclasses=3\n"
    graph = graph_of(text)
    (layer,) = graph.detection_heads
    x = torch.from_numpy(np.random.default_rng(1).normal(size=(2, 16, 7, 9)).astype(np.float32))
    output = layer.module(graph.dialect)(x)
    scores = layer.scores(output)
    assert scores.shape == (2, 2 * 3 * 7 * 9)
    probs = layer.decode(output, 0.2).probs
    assert 10 < len(probs) < scores.numel()
    assert torch.equal(scores[scores > 0.2].sort().values, probs.sort().values)
