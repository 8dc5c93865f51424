"""Accuracy on real pictures against a computation of its own, from OpenCV's outputs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from tests.drawn import bench
from yoloprune.darknet.data import load_split, read_data
from yoloprune.darknet.dialect import ALEXEYAB
from yoloprune.darknet.model import load, load_graph
from yoloprune.darknet.network import build
from yoloprune.detect.detection_measure import DetectionMeasure
from yoloprune.detect.load import load_measure
from yoloprune.detect.pictures import Pictures
from yoloprune.readers import opencv


def test_map_is_what_opencv_and_a_plain_loop_give(shared: Path) -> None:
    """128 COCO pictures, plain NMS: boxes from OpenCV's heads on the same blobs, then NMS and AP written out here."""
    folder = shared / "models" / "yolo-fastest-1.1"
    cfg, weights = folder / "yolo-fastest-1.1.cfg", folder / "yolo-fastest-1.1.weights"
    data = read_data(shared / "data" / "coco_train128" / "coco_train128_all.data")
    model = load(cfg, weights, ALEXEYAB)
    measure = load_measure(model.graph, data, nms_kind="default")
    ours = measure.summary(measure.predictions(build(model)))
    assert ours["images"] == 128

    split = load_split(data, "valid", ALEXEYAB, classes=80)
    found: list[tuple[float, int, int, np.ndarray]] = []
    start = 0
    for batch in Pictures(split.images, model.graph, "stretch"):
        outputs = opencv.head_outputs(cfg, weights, batch.inputs.contiguous().numpy())
        for number in range(len(batch.sizes)):
            rows = np.concatenate([output[number] for output in outputs.values()])
            found += [(prob, start + number, k, box) for prob, k, box in plain_nms(rows)]
        start += len(batch.sizes)
    expected = plain_map(found, split.truths)
    assert abs(ours["map50_present"] - expected) < 1e-3


def test_what_a_network_finds_is_in_no_digest(tmp_path: Path) -> None:
    """It differs in the last bit between machines, and an analysis made on one is of use on the other."""
    made = bench(tmp_path / "set")
    measure = load_measure(load_graph(made.cfg, ALEXEYAB), read_data(made.data))
    assert isinstance(measure, DetectionMeasure)
    digests = []
    for labels, factor in ((True, 1), (True, 1 + 1e-6), (False, 1), (False, 1 + 1e-6)):
        moved = replace(measure.split, truths=tuple(truth * np.float32(factor) for truth in measure.split.truths))
        digests.append(replace(measure, split=moved, labels=labels).digest())
    assert digests[0] != digests[1]
    assert digests[2] == digests[3]


def plain_nms(rows: np.ndarray) -> list[tuple[float, int, np.ndarray]]:
    """rows [cells, 4+1+K] of one picture: objectness * class stands in column 5+k."""
    kept = []
    for k in range(rows.shape[1] - 5):
        probs = rows[:, 5 + k]
        left = [int(i) for i in np.argsort(-probs, kind="stable") if probs[i] > 0.005 and rows[i, 4] > 0.005]
        while left:
            best = left.pop(0)
            kept.append((float(probs[best]), k, rows[best, :4]))
            left = [i for i in left if overlap(rows[best, :4], rows[i, :4]) <= 0.45]
    return kept


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    w = min(a[0] + a[2] / 2, b[0] + b[2] / 2) - max(a[0] - a[2] / 2, b[0] - b[2] / 2)
    h = min(a[1] + a[3] / 2, b[1] + b[3] / 2) - max(a[1] - a[3] / 2, b[1] - b[3] / 2)
    if w <= 0 or h <= 0:
        return 0.0
    return float(w * h / (a[2] * a[3] + b[2] * b[3] - w * h))


def plain_map(found: list[tuple[float, int, int, np.ndarray]], truths: tuple[np.ndarray, ...]) -> float:
    """Mean over present classes of the area under the precision envelope."""
    aps = []
    for k in range(80):
        objects = {(i, j) for i, truth in enumerate(truths) for j in range(len(truth)) if truth[j, 0] == k}
        if not objects:
            continue
        used: set[tuple[int, int]] = set()
        hits = []
        for _, image, _, box in sorted((each for each in found if each[2] == k), key=lambda each: -each[0]):
            mine = [(overlap(box, truths[i][j, 1:]), (i, j)) for i, j in objects if i == image]
            best = max(mine, default=(0.0, None), key=lambda each: each[0])
            hit = best[0] > 0.5 and best[1] not in used
            if hit:
                used.add(best[1])
            hits.append(hit)
        true = np.cumsum(hits)
        precision, recall = true / np.arange(1, len(hits) + 1), true / len(objects)
        steps = np.diff(np.concatenate([[0], recall]))
        aps.append(float(sum(step * precision[i:].max() for i, step in enumerate(steps) if step)))
    return float(np.mean(aps))
