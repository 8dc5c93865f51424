"""What a report shows of a measurement: curves and confusions by hand, files that come back as they were."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from yoloprune.darknet.predictions import Detections
from yoloprune.detect.confusion import confusion, paired
from yoloprune.detect.details import ClassDetails, Details, PictureDetails
from yoloprune.detect.evaluate import DetectionOutcome
from yoloprune.detect.match import Matches, Objects, match
from yoloprune.detect.outcome import resamples
from yoloprune.errors import InputError
from yoloprune.steps.differing import differing

NOTHING = np.zeros((0, 5), np.float32)


def matches(
    rows: list[tuple[float, ...]], truths: list[np.ndarray], difficult: list[np.ndarray], classes: int
) -> Matches:
    """Of rows image, class, probability, x, y, w, h."""
    table = torch.tensor(rows, dtype=torch.float32).reshape(-1, 7)
    found = Detections(table[:, 0].long(), table[:, 1].long(), table[:, 2], table[:, 3:])
    return match(found, Objects.of(truths, classes), Objects.of(difficult, classes))


def test_precision_at_each_recall_is_the_best_from_there_on() -> None:
    """Against all prefixes of the ranked list."""
    rng = np.random.default_rng(3)
    for _ in range(20):
        truths = [np.array([[0, x, 0.5, 0.1, 0.1] for x in (0.1, 0.4, 0.7)], np.float32)] * 4
        rows = [(i, 0, rng.random(), rng.choice([0.1, 0.4, 0.7, 0.95]), 0.5, 0.1, 0.1) for i in rng.integers(0, 4, 15)]
        outcome = DetectionOutcome.of(matches(rows, truths, [NOTHING] * 4, 2), Objects.of(truths, 2))
        (count, accuracy, curve), absent = outcome.by_class(11)
        seen, true = set(), []
        for image, _, _, x, *_ in sorted(rows, key=lambda row: -np.float32(row[2])):
            hit = x < 0.9 and (image, x) not in seen
            seen |= {(image, x)} if hit else set()
            true.append(hit)
        prefixes = [(sum(true[:n]) / 12, sum(true[:n]) / n) for n in range(1, len(true) + 1)]
        expected = [max((p for r, p in prefixes if r >= recall / 10 - 1e-12), default=0.0) for recall in range(11)]
        assert count == 12
        assert accuracy == outcome.accuracy
        assert np.allclose(curve, expected)
        assert absent[:2] == (0, None)
        assert not absent[2].any()


def test_what_is_taken_for_what() -> None:
    truths = [
        np.array([[0, 0.2, 0.2, 0.2, 0.2], [1, 0.7, 0.7, 0.2, 0.2], [1, 0.7, 0.2, 0.1, 0.1]], np.float32),
        NOTHING,
    ]
    difficult = [NOTHING, np.array([[1, 0.5, 0.5, 0.4, 0.4]], np.float32)]
    rows = [
        (0, 0, 0.9, 0.2, 0.2, 0.2, 0.2),  # right
        (0, 0, 0.8, 0.7, 0.7, 0.2, 0.2),  # a 1 taken for a 0, as it overlaps more than the next
        (0, 1, 0.7, 0.72, 0.7, 0.2, 0.2),  # so this is none
        (1, 0, 0.6, 0.1, 0.1, 0.1, 0.1),  # no object
        (1, 1, 0.5, 0.5, 0.5, 0.4, 0.4),  # a difficult one, which doesn't count
    ]
    found = matches(rows, truths, difficult, 2)
    assert confusion(found, truths, 2) == ((0, 0, 1), (1, 0, 1), (1, 2, 1), (2, 0, 1), (2, 1, 1))
    shuffled = found.rows(torch.tensor([3, 1, 4, 0, 2]))
    assert confusion(shuffled, truths, 2) == confusion(found, truths, 2)
    assert confusion(matches([], truths, difficult, 2), truths, 2) == ((0, 2, 1), (1, 2, 2))


def test_pairs_overlap_most_and_each_box_is_in_one() -> None:
    rng = np.random.default_rng(1)
    for _ in range(30):
        boxes = [np.column_stack([rng.random((n, 2)) * 0.3 + 0.3, np.full((n, 2), 0.4)]) for n in rng.integers(0, 6, 2)]
        rows, columns = paired(*(each.astype(np.float32) for each in boxes))
        assert len(set(rows.tolist())) == len(rows) == len(columns) == len(set(columns.tolist()))
        apart = np.abs(boxes[0][:, None, :2] - boxes[1][None, :, :2])
        common = np.prod(np.maximum(0.4 - apart, 0), 2)
        overlap = common / (2 * 0.16 - common)
        left = overlap.copy()
        for _ in range(len(rows)):
            row, column = np.unravel_index(left.argmax(), left.shape)
            assert column == columns[rows.tolist().index(row)]
            left[row], left[:, column] = 0, 0
        assert left.max(initial=0) <= 0.5 + 1e-6


def details(*found: tuple[tuple[float, ...], ...]) -> Details:
    """Of one object a picture, in its middle."""
    pictures = tuple(
        PictureDetails(f"{number}.png", ((1.0, 0.5, 0.5, 0.4, 0.4),), rows) for number, rows in enumerate(found)
    )
    classes = (ClassDetails("a", 0, None), ClassDetails("b", len(found), 0.5, (1.0, 0.5, 0.0)))
    return Details("map50_present", 0.5, len(found), (0.5, 0.25), classes, ((1, 1, 2),), pictures, "data")


HIT, OTHER, FALSE = (1.0, 0.9, 0.5, 0.5, 0.4, 0.4), (0.0, 0.9, 0.5, 0.5, 0.4, 0.4), (1.0, 0.5, 0.1, 0.1, 0.1, 0.1)


def test_pictures_that_differ_most_come_first(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(5)]
    for path in paths:
        assert cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 255, (31, 961, 3), np.uint8))
    before = details((HIT,), (HIT,), (HIT,), (HIT,), ())
    after = details((HIT,), (HIT, FALSE), (OTHER,), (), (HIT,))
    found = differing(before, after, paths)
    assert [each.name for each in found] == ["2.png", "3.png", "4.png", "1.png"]
    assert [[mark.kind for mark in each.after] for each in found] == [
        ["wrong", "missed"], ["missed"], ["right"], ["right", "wrong"],
    ]  # fmt: skip
    assert found[0].size == (961, 31)
    assert cv2.imdecode(np.frombuffer(found[0].jpeg, np.uint8), cv2.IMREAD_COLOR).shape == (15, 480, 3)
    assert [mark.name for mark in found[0].after] == ["a", "b"]
    assert differing(before, before, paths) == ()
    assert differing(before, after, paths[:2]) == found[3:]
    assert differing(before, after, [path.with_name("x.png") for path in paths]) == ()
    paths[2].write_bytes(b"no picture")
    with pytest.raises(InputError, match="not a picture"):
        differing(before, after, paths)


def test_details_come_back_from_their_file(tmp_path: Path) -> None:
    known = replace(details((HIT,), ()), pictures=(PictureDetails("\udc80.png", (), (HIT,)),))
    known.save(tmp_path / "details.json")
    assert Details.load(tmp_path / "details.json") == known
    (tmp_path / "details.json").write_text('{"yoloprune": "details", "version": 3}')
    with pytest.raises(InputError, match="expected the keys"):
        Details.load(tmp_path / "details.json")


def test_intervals_are_of_the_same_resamples() -> None:
    """A picture found by one network alone: the loss is how often it is drawn."""
    counts = resamples(10, 0).numpy()
    one = replace(details(()), resampled=tuple((counts.sum(1) / 10).tolist()))
    other = replace(one, resampled=tuple(((counts.sum(1) - counts[:, 3]) / 10).tolist()))
    assert one.interval == (1.0, 1.0)
    low, high = np.quantile(counts[:, 3] / 10, (0.05, 0.95))
    assert one.loss_interval(other) == pytest.approx((low, high))
