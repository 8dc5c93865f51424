"""Accuracy on real pictures against a computation of its own, from OpenCV's outputs."""

from __future__ import annotations

from collections.abc import Iterable
from copy import copy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from tests.drawn import bench
from tests.helpers import graph_of
from yoloprune.darknet.data import Split, load_split, read_data
from yoloprune.darknet.dialect import ALEXEYAB
from yoloprune.darknet.model import load, load_graph
from yoloprune.darknet.network import build
from yoloprune.detect import image as image_file
from yoloprune.detect import measure as measure_file
from yoloprune.detect.measure import DetectionMeasure, Pictures, batch_for, load_measure, room_on
from yoloprune.readers import opencv


def test_map_is_what_opencv_and_a_plain_loop_give(shared: Path) -> None:
    """128 COCO pictures, plain NMS: boxes from OpenCV's heads on the same blobs, then NMS and AP written out here."""
    folder = shared / "models" / "yolo-fastest-1.1"
    cfg, weights = folder / "yolo-fastest-1.1.cfg", folder / "yolo-fastest-1.1.weights"
    data = read_data(shared / "data" / "coco_train128" / "coco_train128_all.data")
    model = load(cfg, weights, ALEXEYAB)
    measure = load_measure(model.graph, data, nms_kind="default")
    ours = measure.summary([each for found in measure.run(build(model)) for each in found])
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


def test_a_gpu_takes_as_many_pictures_as_its_outputs_fit_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    convolution = "[convolutional]\nsize=3\npad=1\nfilters={}\nactivation=linear\n".format
    text = "[net]\nwidth=16\nheight=16\nchannels=3\n" + convolution(8) + convolution(4) + convolution(2)
    graph = graph_of(text + "[route]\nlayers=0,-1\n" + convolution(5))
    assert graph.alive == (8 + 2 + 10) * 16 * 16  # at the route: what it joins, and itself
    bytes_each = 4 * graph.alive
    for room, batch in [(0, 1), (bytes_each * 1, 1), (bytes_each * 9, 8), (bytes_each * 1000, 64)]:
        monkeypatch.setattr(measure_file, "ALIVE", room)
        assert batch_for(graph, "cuda:1") == batch
    assert batch_for(graph, "cpu") == 64


@pytest.mark.parametrize(("device", "room"), [("cpu", 1000), ("cuda:1", 500), ("cuda", 1000)])
def test_a_small_gpu_keeps_less(monkeypatch: pytest.MonkeyPatch, device: str, room: int) -> None:
    memory = {"cuda": 1 << 30, "cuda:1": 16 * 500 + 3}
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=memory[str(device)])
    )
    assert room_on(device, 1000) == room


SMALL = "[net]\nwidth=32\nheight=32\nchannels=3\n[convolutional]\nfilters=7\n[yolo]\nclasses=2\nnum=1\n"


def noise(folder: Path, widths: Iterable[int]) -> list[Path]:
    """Pictures 32 high."""
    rng, paths = np.random.default_rng(1), []
    for number, width in enumerate(widths):
        paths.append(folder / f"{number}.png")
        cv2.imwrite(str(paths[-1]), rng.integers(0, 256, (32, width, 3), np.uint8))
    return paths


def reads_of(paths: list[Path], monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of the pictures that are decoded from here on, as they are."""
    read: list[int] = []

    def read_pixels(path: Path, channels: int) -> image_file.Pixels:
        read.append(paths.index(path))
        return image_read(path, channels)

    image_read = image_file.read_pixels
    monkeypatch.setattr(image_file, "read_pixels", read_pixels)
    return read


def test_the_first_pictures_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory for 4 of 10: they are read once, the others each time, also where a pass ends early or two overlap."""
    paths = noise(tmp_path, [32] * 10)
    image_read = image_file.read_pixels
    read = reads_of(paths, monkeypatch)
    monkeypatch.setattr(image_file, "_AHEAD", 0)
    monkeypatch.setattr(measure_file, "MEMORY", 4 * 3 * 32 * 32 * 4)
    pictures = Pictures(paths, graph_of(SMALL), "stretch", batch=2)
    next(iter(pictures))
    assert sorted(read) == [0, 1]
    one, other = iter(pictures), iter(pictures)
    passes = [[next(one), next(one)], [next(other)]]
    passes[1] += list(other)
    passes[0] += list(one)
    passes.append(list(pictures))
    assert sorted(set(read)) == list(range(10))
    assert read.count(0) == read.count(1) == 1
    assert read.count(2) <= 2
    assert all(read.count(number) == 3 for number in range(4, 10))
    expected = [image_read(path, 3) for path in paths]
    for batches in passes:
        pixels = torch.cat([batch.inputs for batch in batches])
        assert len(pixels) == 10
        for found, wanted in zip(pixels, expected, strict=True):
            assert np.array_equal((found.numpy() * 255).round().astype(np.uint8), wanted[..., ::-1].transpose(2, 0, 1))


@pytest.mark.parametrize(("kept", "again"), [(16, 0), (15, 8), (4, 8)])
def test_in_another_order_pictures_are_not_decoded_anew_where_there_is_room_for_both(
    kept: int, again: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """8 pictures, memory for so many."""
    paths = noise(tmp_path, range(33, 41))
    monkeypatch.setattr(measure_file, "MEMORY", kept * 3 * 32 * 32 * 4)
    pictures = Pictures(paths, graph_of(SMALL), "stretch", batch=3)
    before = list(pictures)
    read = reads_of(paths, monkeypatch)
    order = np.random.default_rng(1).permutation(8)
    after = list(pictures.taking(order.tolist()))
    assert len(read) == again
    assert [len(batch.sizes) for batch in after] == [3, 3, 2]
    assert [size for batch in after for size in batch.sizes] == [(33 + number, 32) for number in order]
    assert all(batch.inputs.is_contiguous(memory_format=torch.channels_last) for batch in after)
    inputs = [torch.cat([batch.inputs for batch in batches]) for batches in (before, after)]
    assert torch.equal(inputs[0][torch.from_numpy(order)], inputs[1])
    assert len(list(pictures)) == 3


def test_what_a_network_finds_is_in_no_digest(tmp_path: Path) -> None:
    """It differs in the last bit between machines, and an analysis made on one is of use on the other."""
    made = bench(tmp_path / "set")
    measure = load_measure(load_graph(made.cfg, ALEXEYAB), read_data(made.data))
    assert isinstance(measure, DetectionMeasure)
    digests = []
    for labels, factor in ((True, 1), (True, 1 + 1e-6), (False, 1), (False, 1 + 1e-6)):
        measure.labels = labels
        moved = replace(measure.split, truths=tuple(truth * np.float32(factor) for truth in measure.split.truths))
        digests.append(DetectionMeasure.digest(_with(measure, moved)))
    assert digests[0] != digests[1]
    assert digests[2] == digests[3]


def _with(measure: DetectionMeasure, split: Split) -> DetectionMeasure:
    changed = copy(measure)
    changed.split = split
    return changed


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
