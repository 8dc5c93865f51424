"""Non-maximum suppression against stock Darknet and against plain loops; the letterbox correction in closed form."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.oracles.libdarknet_image import Library
from yoloprune.darknet.predictions import Detections
from yoloprune.detect import postprocess as file
from yoloprune.detect import suppress as suppress_file
from yoloprune.detect.overlap import NmsKind, Overlap, iou
from yoloprune.detect.resize import letterbox_size, network_input
from yoloprune.detect.suppress import suppress

CLASSES = 4


def crowd(count: int, seed: int, images: int = 1) -> Detections:
    """Boxes around a few places, so that many overlap; probabilities all different."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, images, count)
    places = rng.random((images, 6, 4))
    place = places[image, rng.integers(0, 6, count)]
    centres = place[:, :2] + rng.normal(0, 0.04, (count, 2))
    sizes = (0.05 + 0.4 * place[:, 2:]) * np.exp(rng.normal(0, 0.3, (count, 2)))
    probs = rng.permutation(np.linspace(0.01, 0.99, count))
    return Detections(
        image=torch.from_numpy(image),
        boxes=torch.from_numpy(np.concatenate((centres, sizes), 1).astype(np.float32)),
        classes=torch.from_numpy(rng.integers(0, CLASSES, count)),
        probs=torch.from_numpy(probs.astype(np.float32)),
    )


def only(candidates: Detections, image: int) -> Detections:
    """One image's, as of a batch of one."""
    some = candidates.rows(torch.nonzero(candidates.image == image).squeeze(1))
    return replace(some, image=torch.zeros_like(some.image))


def plain_iou(a: list[float], b: list[float]) -> float:
    width = min(a[0] + a[2] / 2, b[0] + b[2] / 2) - max(a[0] - a[2] / 2, b[0] - b[2] / 2)
    height = min(a[1] + a[3] / 2, b[1] + b[3] / 2) - max(a[1] - a[3] / 2, b[1] - b[3] / 2)
    common = max(width, 0) * max(height, 0)
    return common / (a[2] * a[3] + b[2] * b[3] - common)


def plain_diou(a: list[float], b: list[float], power: float) -> float:
    width = max(a[0] + a[2] / 2, b[0] + b[2] / 2) - min(a[0] - a[2] / 2, b[0] - b[2] / 2)
    height = max(a[1] + a[3] / 2, b[1] + b[3] / 2) - min(a[1] - a[3] / 2, b[1] - b[3] / 2)
    distance = (a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2
    return plain_iou(a, b) - math.pow(distance / (width**2 + height**2), power)


def plain_nms(candidates: Detections, overlap, thresh: float) -> list[tuple[float, int]]:
    """(probability, class) of what a plain greedy loop keeps in one image, the most probable first."""
    order = torch.argsort(-candidates.probs).tolist()
    box, classes = candidates.boxes.double().tolist(), candidates.classes.tolist()
    kept: list[int] = []
    for this in order:
        if all(classes[this] != classes[that] or overlap(box[that], box[this]) <= thresh for that in kept):
            kept.append(this)
    return [(candidates.probs[this].item(), classes[this]) for this in kept]


def found(detections: Detections) -> list[tuple[float, int]]:
    return list(zip(detections.probs.tolist(), detections.classes.tolist(), strict=True))


@pytest.mark.parametrize(("count", "seed"), [(1, 0), (150, 1), (150, 2), (150, 3), (3000, 4)])
@pytest.mark.parametrize("thresh", [0.3, 0.45, 0.6])
def test_default_is_do_nms_sort(libdarknet: Path, count: int, seed: int, thresh: float) -> None:
    candidates = crowd(count, seed)
    probs = np.zeros((count, CLASSES), np.float32)
    probs[np.arange(count), candidates.classes] = candidates.probs
    left = Library(libdarknet).nms(candidates.boxes.numpy(), probs, thresh)
    expected = sorted(((left[box, k].item(), k) for box, k in zip(*np.nonzero(left), strict=True)), reverse=True)
    detections = file.postprocess(candidates, Overlap("default", thresh))
    assert 0 < len(expected) <= count
    assert found(detections) == [(prob, int(k)) for prob, k in expected]


@pytest.mark.parametrize(
    ("kind", "overlap"),
    [
        ("default", plain_iou),
        ("cornersnms", plain_iou),
        ("greedynms", lambda a, b: plain_diou(a, b, 0.6)),
        ("diounms", lambda a, b: plain_diou(a, b, 1.3)),
    ],
)
@pytest.mark.parametrize(("count", "seed"), [(200, 0), (200, 1), (1000, 2)])
def test_every_kind_is_the_plain_loop(kind: NmsKind, overlap, count: int, seed: int) -> None:
    candidates = crowd(count, seed)
    detections = file.postprocess(candidates, Overlap(kind, 0.4, 1.3))
    expected = plain_nms(candidates, overlap, 0.4)
    assert len(expected) < count
    assert found(detections) == expected


@pytest.mark.parametrize("at_once", [1 << 22, 3000, 1])
@pytest.mark.parametrize("levels", [1000000, 5])
def test_boxes_of_many_classes_are_boxes_of_one_class_each(
    at_once: int, levels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As networks give them that have learned nothing; also in parts, and with many that are equally probable."""
    several = crowd(150, 6, images=3)
    rng = np.random.default_rng(7)
    box, classes = map(torch.from_numpy, np.nonzero(rng.random((150, CLASSES)) < 0.8))
    probs = torch.from_numpy(rng.integers(1, levels, len(box)).astype(np.float32) / levels)
    candidates = Detections(several.image[box], classes, probs, several.boxes[box])
    expected = suppress(candidates, Overlap("default"))
    assert 20 < len(expected) < len(box) - 20
    monkeypatch.setattr(suppress_file, "_CROWDED", 0)
    monkeypatch.setattr(suppress_file, "_AT_ONCE", at_once)
    assert torch.equal(suppress(candidates, Overlap("default")), expected)


@pytest.mark.parametrize("size", [0.1, 50.0])
def test_classes_are_looked_at_together_unless_boxes_overlap_densely(
    size: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every box has every class. Small ones overlap few others; where all do, that would be too many pairs."""
    kinds, each = 20, 100
    rng = np.random.default_rng(8)
    places = np.concatenate([rng.random((2 * each, 2)), np.full((2 * each, 2), size)], 1).astype(np.float32)
    box, classes = map(torch.from_numpy, np.nonzero(np.ones((2 * each, kinds))))
    probs = torch.from_numpy(rng.random(len(box), np.float32))
    image = torch.arange(2).repeat_interleave(each)
    candidates = Detections(image[box], classes, probs, torch.from_numpy(places)[box])
    other = "_suppress_by_box" if size > 1 else "_suppress_by_class"
    kept = suppress(candidates, Overlap("default"))
    monkeypatch.setattr(suppress_file, other, None)
    assert torch.equal(suppress(candidates, Overlap("default")), kept)
    assert (len(kept) == 2 * kinds) == (size > 1)


def test_kinds_differ() -> None:
    candidates = crowd(200, 1)
    kinds: tuple[NmsKind, ...] = ("default", "greedynms")
    counts = {len(file.postprocess(candidates, Overlap(kind)).probs) for kind in kinds}
    assert len(counts) == 2


def test_a_removed_box_removes_nothing() -> None:
    """Three in a row, each overlapping the next: the middle one goes, so the last stays."""
    row = Detections(
        image=torch.zeros(3, dtype=torch.int64),
        boxes=torch.tensor([[0.3, 0.5, 0.2, 0.2], [0.36, 0.5, 0.2, 0.2], [0.42, 0.5, 0.2, 0.2]]),
        classes=torch.zeros(3, dtype=torch.int64),
        probs=torch.tensor([0.9, 0.8, 0.7]),
    )
    detections = file.postprocess(row, Overlap("default"))
    np.testing.assert_allclose(detections.probs, [0.9, 0.7])


def test_overlap_at_the_threshold_stays() -> None:
    """Half of each of two equal boxes in common: IoU 1/3, exact in float32 as box and threshold are given."""
    pair = torch.tensor([[0.25, 0.5, 0.5, 0.5], [0.5, 0.5, 0.5, 0.5]])
    third = iou(pair[0], pair[1])
    assert third == np.float32(1 / 3)
    zeros = torch.zeros(2, dtype=torch.int64)
    both = Detections(zeros, zeros, torch.tensor([0.5, 0.6]), pair)
    assert suppress(both, Overlap("default", float(third))).tolist() == [0, 1]
    assert suppress(both, Overlap("default", 0.333)).tolist() == [1]


def test_batch_is_its_images_alone() -> None:
    candidates = crowd(2000, 3, images=4)
    together = file.postprocess(candidates, Overlap("default"))
    assert (np.diff(together.image) >= 0).all()
    assert set(together.image.tolist()) == {0, 1, 2, 3}
    for number in range(4):
        alone = file.postprocess(only(candidates, number), Overlap("default"))
        assert found(only(together, number)) == found(alone)
        assert (only(together, number).boxes == alone.boxes).all()
        assert (np.diff(alone.probs) <= 0).all()


def test_equal_probabilities_keep_the_order_of_the_heads() -> None:
    far = Detections(
        image=torch.zeros(5, dtype=torch.int64),
        boxes=torch.tensor([[0.1 + 0.2 * number, 0.5, 0.1, 0.1] for number in range(5)]),
        classes=torch.tensor([2, 1, 0, 1, 2]),
        probs=torch.full((5,), 0.5),
    )
    detections = file.postprocess(far, Overlap("default"))
    assert detections.classes.tolist() == [2, 1, 0, 1, 2]


def test_nothing_and_points() -> None:
    nothing = crowd(0, 0)
    assert len(file.postprocess(nothing, Overlap("default")).probs) == 0
    points = Detections(
        image=torch.zeros(2, dtype=torch.int64),
        boxes=torch.tensor([[0.5, 0.5, 0.0, 0.0]] * 2),
        classes=torch.zeros(2, dtype=torch.int64),
        probs=torch.tensor([0.5, 0.4]),
    )
    kinds: tuple[NmsKind, ...] = ("default", "greedynms")
    for kind in kinds:
        detections = file.postprocess(points, Overlap(kind))
        assert len(detections.probs) == 2


def test_over_is_strict() -> None:
    detections = file.postprocess(crowd(100, 5), Overlap("default"))
    thresh = float(detections.probs[3])
    assert found(detections.over(thresh)) == found(detections)[:3]


@pytest.mark.parametrize("picture", [(640, 480), (333, 500), (1000, 37), (320, 320)])
@pytest.mark.parametrize("network", [(320, 320), (416, 352)])
def test_correction_undoes_the_letterbox(picture: tuple[int, int], network: tuple[int, int]) -> None:
    inner = np.array(letterbox_size(*picture, *network))
    in_picture = np.array([[0.25, 0.7, 0.1, 0.3], [0.5, 0.5, 1, 1]])
    scale = inner / network
    in_network = np.concatenate(((in_picture[:, :2] - 0.5) * scale + 0.5, in_picture[:, 2:] * scale), 1)
    candidates = Detections(
        image=torch.tensor([1, 1]),
        boxes=torch.from_numpy(in_network.astype(np.float32)),
        classes=torch.tensor([0, 1]),
        probs=torch.tensor([0.9, 0.8]),
    )
    nothing = file.letterbox_place((7, 5), network)
    correction = [nothing, file.letterbox_place(picture, network)]
    detections = file.corrected(candidates, correction)
    np.testing.assert_allclose(detections.boxes, in_picture, atol=1e-5)


def test_correction_finds_a_bright_square_of_a_letterboxed_picture() -> None:
    pixels = np.zeros((300, 400, 3), np.uint8)
    pixels[150:210, 100:200] = 255
    seen = network_input(pixels, 160, 160, "letterbox")[0]
    seen[: (160 - 120) // 2] = seen[(160 + 120) // 2 :] = 0
    ys, xs = np.nonzero(seen > 0.5)
    box = np.array([(xs.min() + xs.max() + 1) / 2, (ys.min() + ys.max() + 1) / 2, np.ptp(xs) + 1, np.ptp(ys) + 1]) / 160
    zero = torch.zeros(1, dtype=torch.int64)
    candidates = Detections(zero, zero, torch.ones(1), torch.from_numpy(box[None]).float())
    detections = file.corrected(candidates, [file.letterbox_place((400, 300), (160, 160))])
    np.testing.assert_allclose(detections.boxes[0], [150 / 400, 180 / 300, 100 / 400, 60 / 300], atol=1.5 / 120)
