"""`detector map`'s rules: small sets worked out by hand, and a slow reading of the rules on random sets."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from yoloprune.darknet.predictions import Detections, join
from yoloprune.detect import evaluate as evaluate_file
from yoloprune.detect.evaluate import DetectionOutcome, MapResult, Points
from yoloprune.detect.match import Objects, match

EXACT = 1e-12
METRICS: tuple[str, ...] = ("map50", "map75", "map50-95")


def detections(*rows: tuple[float, int, float, float, float, float]) -> Detections:
    """Rows of probability, class, x, y, w, h; the most probable first."""
    table = torch.tensor(sorted(rows, key=lambda row: -row[0]), dtype=torch.float32).reshape(-1, 6)
    zeros = torch.zeros(len(table), dtype=torch.int64)
    return Detections(zeros, table[:, 1].long(), table[:, 0], table[:, 2:])


def of_images(found: list[Detections]) -> Detections:
    """As one table."""
    return join(replace(each, image=torch.full_like(each.image, number)) for number, each in enumerate(found))


def labels(*rows: tuple[float, ...]) -> np.ndarray:
    return np.array(rows, np.float32).reshape(-1, 5)


def evaluate(
    found: list[Detections],
    truths: list[np.ndarray],
    classes: int,
    *,
    difficult: list[np.ndarray] | None = None,
    points: Points = 0,
) -> MapResult:
    return outcome(found, truths, classes, "map50", difficult, points).result


def outcome(
    found: list[Detections],
    truths: list[np.ndarray],
    classes: int,
    metric: str,
    difficult: list[np.ndarray] | None = None,
    points: Points = 0,
) -> DetectionOutcome:
    """As measuring makes it."""
    hard = difficult or [labels()] * len(truths)
    objects = Objects.of(truths, classes)
    return DetectionOutcome.of(match(of_images(found), objects, Objects.of(hard, classes)), objects, metric, points)


# Places far apart, and a box that has IoU 0.6 with the one at PLACES[0]: 0.06 of 0.1 wide.
PLACES = [(0.1 + 0.2 * number, 0.5, 0.1, 0.1) for number in range(5)]
SHIFTED = (0.1 + 0.025, 0.5, 0.1, 0.1)


def test_two_of_three_with_one_false_between() -> None:
    """Ranks: true, false, true; three objects. Precision 1, 1/2, 2/3 at recall 1/3, 1/3, 2/3."""
    found = detections((0.9, 0, *PLACES[0]), (0.8, 0, *PLACES[4]), (0.7, 0, *PLACES[1]))
    truth = labels((0, *PLACES[0]), (0, *PLACES[1]), (0, *PLACES[2]))
    result = evaluate([found], [truth], 1)
    assert result.ap[0] == pytest.approx(1 / 3 * 1 + 1 / 3 * 2 / 3, abs=EXACT)
    assert result.map50 == result.map50_present == result.ap[0]
    assert (result.true_positives, result.false_positives, result.objects, result.images) == (2, 1, 3, 1)
    assert result.precision == pytest.approx(2 / 3, abs=EXACT)
    assert result.recall == pytest.approx(2 / 3, abs=EXACT)
    assert result.f1 == pytest.approx(2 / 3, abs=EXACT)
    assert result.average_iou == pytest.approx(2 / 3, abs=1e-6)
    eleven = evaluate([found], [truth], 1, points=11)
    assert eleven.map50 == pytest.approx((4 * 1 + 3 * 2 / 3) / 11, abs=EXACT)  # recalls 0..0.3, then 0.4..0.6
    many = evaluate([found], [truth], 1, points=101)
    assert many.map50 == pytest.approx((34 * 1 + 33 * 2 / 3) / 101, abs=EXACT)  # 0..0.33, then 0.34..0.66


def test_object_counts_once_and_goes_to_the_more_probable_over_all_images() -> None:
    truth = labels((0, *PLACES[0]))
    twice = detections((0.9, 0, *SHIFTED), (0.8, 0, *PLACES[0]))
    result = evaluate([twice, detections((0.85, 0, *PLACES[0]))], [truth, truth], 1)
    assert result.ap[0] == pytest.approx(1, abs=EXACT)  # true, true, false
    assert (result.true_positives, result.false_positives) == (2, 1)
    assert result.average_iou == pytest.approx((0.6 + 1) / 3, abs=1e-6)


def test_detection_goes_to_the_object_it_overlaps_most_even_if_that_is_taken() -> None:
    truth = labels((0, *PLACES[0]), (0, *SHIFTED))
    found = detections((0.9, 0, *PLACES[0]), (0.8, 0, 0.101, 0.5, 0.1, 0.1))
    result = evaluate([found], [truth], 1)
    assert result.ap[0] == pytest.approx(0.5, abs=EXACT)
    assert (result.true_positives, result.false_positives) == (1, 1)


def test_mean_over_all_classes_and_over_the_present() -> None:
    """Class 0 found, class 1 missed, class 2 only imagined, class 3 never heard of."""
    found = detections((0.9, 0, *PLACES[0]), (0.8, 2, *PLACES[1]))
    result = evaluate([found], [labels((0, *PLACES[0]), (1, *PLACES[1]))], 4)
    assert result.ap == (1.0, 0.0, None, None)
    assert result.map50 == pytest.approx(1 / 4, abs=EXACT)
    assert result.map50_present == pytest.approx(1 / 2, abs=EXACT)
    assert (result.precision, result.recall) == (0.5, 0.5)


def test_thresholds() -> None:
    """IoU 0.09 / 0.11 = 0.82 is enough at seven of the ten."""
    found, truth = [detections((0.9, 0, 0.11, *PLACES[0][1:]))], [labels((0, *PLACES[0]))]
    result = evaluate(found, truth, 1)
    steering = {metric: outcome(found, truth, 1, metric).accuracy for metric in METRICS}
    assert result.map50 == steering["map50"] == 1
    assert result.map75 == steering["map75"] == 1
    assert result.map50_95 == steering["map50-95"] == pytest.approx(0.7, abs=EXACT)
    less = evaluate([detections((0.9, 0, *SHIFTED))], [labels((0, *PLACES[0]))], 1)
    assert (less.map50, less.map75) == (1, 0)
    assert evaluate([detections((0.9, 0, *PLACES[0]))], [labels((0, *PLACES[0]))], 1).map50_95 == 1


def test_precision_counts_over_a_quarter_only() -> None:
    found = detections((0.26, 0, *PLACES[0]), (0.25, 0, *PLACES[1]), (0.1, 0, *PLACES[2]))
    result = evaluate([found], [labels(*((0, *place) for place in PLACES[:4]))], 1)
    assert (result.true_positives, result.false_positives) == (1, 0)
    assert result.recall == 0.25
    assert result.map50 == pytest.approx(0.75, abs=EXACT)


def test_difficult_objects() -> None:
    """A detection on a difficult object lowers no average precision, but counts as false in the precision."""
    found = detections((0.9, 0, *PLACES[1]), (0.8, 0, *PLACES[0]), (0.7, 1, *PLACES[1]))
    truth, hard = labels((0, *PLACES[0])), labels((0, *PLACES[1]))
    assert evaluate([found], [truth], 2).ap[0] == pytest.approx(0.5, abs=EXACT)
    result = evaluate([found], [truth], 2, difficult=[hard])
    assert result.ap == (1.0, None)
    assert (result.true_positives, result.false_positives) == (1, 2)


def test_nothing_found() -> None:
    result = evaluate([detections()] * 2, [labels((0, *PLACES[0])), labels()], 1)
    assert (result.map50, result.precision, result.recall, result.f1, result.average_iou) == (0, 0, 0, 0, 0)
    empty = evaluate([detections((0.9, 0, *PLACES[0]))], [labels()], 1)
    assert (empty.map50_present, empty.ap) == (0, (None,))


@dataclass
class Found:
    """One detection on its way through the rules."""

    prob: float
    number: int
    truth: int


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    width = min(a[0] + a[2] / 2, b[0] + b[2] / 2) - max(a[0] - a[2] / 2, b[0] - b[2] / 2)
    height = min(a[1] + a[3] / 2, b[1] + b[3] / 2) - max(a[1] - a[3] / 2, b[1] - b[3] / 2)
    if width <= 0 or height <= 0:
        return 0.0
    return float(width * height / (a[2] * a[3] + b[2] * b[3] - width * height))


def by_the_rules(
    found: list[Detections], truths: list[np.ndarray], hard: list[np.ndarray], classes: int, thresh: float, points: int
) -> tuple[list[float], dict[str, float]]:
    """Average precision of each class and the counts, one detection after the other."""
    kept: list[Found] = []
    true = false = 0
    iou_sum = 0.0
    before = 0
    objects = [0] * classes
    for image, truth, difficult in zip(found, truths, hard, strict=True):
        claimed: list[int] = []
        for row in truth:
            objects[int(row[0])] += 1
        for box, number, prob in zip(image.boxes, image.classes, image.probs, strict=True):
            best, best_iou = -1, 0.0
            for index, row in enumerate(truth):
                value = overlap(box, row[1:])
                if row[0] == number and value > thresh and value > best_iou:
                    best, best_iou = before + index, value
            on_hard = any(row[0] == number and overlap(box, row[1:]) > thresh for row in difficult)
            if best >= 0 or not on_hard:
                kept.append(Found(float(prob), int(number), best))
            if prob > 0.25:
                if best >= 0 and best not in claimed:
                    true += 1
                    iou_sum += best_iou
                else:
                    false += 1
            claimed.append(best)
        before += len(truth)

    kept.sort(key=lambda one: -one.prob)
    aps = []
    for number in range(classes):
        seen: set[int] = set()
        hits = 0
        curve = []
        for rank, one in enumerate((one for one in kept if one.number == number), start=1):
            if one.truth >= 0 and one.truth not in seen:
                seen.add(one.truth)
                hits += 1
            curve.append((hits / rank, hits / objects[number] if objects[number] else 0.0))
        if points:
            best = [max((p for p, r in curve if r >= at / (points - 1)), default=0.0) for at in range(points)]
            aps.append(sum(best) / points)
        else:
            area, last = 0.0, 0.0
            for place, (_, recall) in enumerate(curve):
                area += (recall - last) * max(p for p, _ in curve[place:])
                last = recall
            aps.append(area)
    counts = {"true": true, "false": false, "iou": iou_sum / (true + false) if true + false else 0.0}
    return aps, counts


def random_set(seed: int) -> tuple[list[Detections], list[np.ndarray], list[np.ndarray], int]:
    """Images with objects of some of the classes; detections near them, of right and wrong class; no equal ones."""
    rng = np.random.default_rng(seed)
    classes = int(rng.integers(1, 6))
    count = int(rng.integers(1, 7))
    probs = iter(rng.permutation(np.linspace(0.006, 0.99, 40 * count)))
    found, truths, hard = [], [], []
    for _ in range(count):
        place = np.concatenate((rng.random((8, 2)), rng.uniform(0.1, 0.4, (8, 2))), 1)
        number = rng.integers(0, max(classes - 1, 1), 8)
        some, others = int(rng.integers(0, 6)), int(rng.integers(0, 3))
        rows = np.concatenate((number[:, None], place), 1).astype(np.float32)
        truths.append(rows[:some])
        hard.append(rows[some : some + others])
        near = rng.integers(0, 8, int(rng.integers(0, 40)))
        shifts = rng.normal(0, 0.02, (len(near), 4))
        guess = np.where(rng.random(len(near)) < 0.8, number[near], rng.integers(0, classes, len(near)))
        found.append(
            detections(*((next(probs), int(k), *(place[n] + s)) for n, k, s in zip(near, guess, shifts, strict=True)))
        )
    return found, truths, hard, classes


def mean_present(aps: list[float], result: MapResult) -> float:
    present = [ap for ap, shown in zip(aps, result.ap, strict=True) if shown is not None]
    return sum(present) / len(present) if present else 0.0


@pytest.mark.parametrize("size", [np.inf, 1e20])
def test_an_object_whose_overlap_cannot_be_computed_is_nobodys(size: float) -> None:
    """A network that is taught by another may be taught such objects."""
    found = detections((0.9, 0, 0.5, 0.5, size, size))
    truth = labels((0, 0.5, 0.5, size, size))
    assert evaluate([found], [truth], 1).ap[0] == 0


@pytest.mark.parametrize("points", [0, 11, 101])
@pytest.mark.parametrize("with_difficult", [False, True])
def test_random_sets_against_the_rules(points: Points, with_difficult: bool) -> None:
    scores = []
    for seed in range(25):
        found, truths, hard, classes = random_set(seed)
        if not with_difficult:
            hard = [labels()] * len(truths)
        result = evaluate(found, truths, classes, difficult=hard if with_difficult else None, points=points)
        by_thresh = [by_the_rules(found, truths, hard, classes, percent / 100, points) for percent in range(50, 100, 5)]
        aps, counts = by_thresh[0]
        assert [ap or 0.0 for ap in result.ap] == pytest.approx(aps, abs=1e-9)
        assert result.map50 == pytest.approx(np.mean(aps), abs=1e-9)
        assert result.map50_present == pytest.approx(mean_present(aps, result), abs=1e-9)
        assert result.map75_present == pytest.approx(mean_present(by_thresh[5][0], result), abs=1e-9)
        assert result.map50_95 == pytest.approx(np.mean([aps for aps, _ in by_thresh]), abs=1e-9)
        assert (result.true_positives, result.false_positives) == (counts["true"], counts["false"])
        assert result.average_iou == pytest.approx(counts["iou"], abs=1e-6)
        scores.append(result.map50_present)
    assert 0.2 < np.mean(scores) < 0.9, "the random sets are too easy or too hard to tell anything"


def test_difficult_changes_the_random_sets() -> None:
    """Or the test above would not see the rule."""
    changed = 0
    for seed in range(25):
        found, truths, hard, classes = random_set(seed)
        changed += evaluate(found, truths, classes, difficult=hard) != evaluate(found, truths, classes)
    assert changed > 10


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("with_difficult", [False, True])
@pytest.mark.parametrize("at_once", [1 << 22, 8, 1])
def test_resampled_is_the_accuracy_of_a_set_with_images_repeated(
    metric: str, with_difficult: bool, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All at once, and in parts as large sets are."""
    monkeypatch.setattr(evaluate_file, "_AT_ONCE", at_once)
    checked = 0
    for seed in range(12):
        found, truths, hard, classes = random_set(seed)
        if not with_difficult:
            hard = [labels()] * len(truths)
        whole = outcome(found, truths, classes, metric, hard)
        counts = np.random.default_rng(seed).integers(0, 3, (5, len(found))).astype(np.float32)
        counts[0] = 1
        resampled = whole.resampled(torch.from_numpy(counts))
        assert resampled[0] == pytest.approx(whole.accuracy, abs=1e-6)  # counted in float32
        for drawn, value in zip(counts, resampled, strict=True):
            chosen = np.repeat(np.arange(len(found)), drawn.astype(int))
            if not chosen.size:
                continue
            repeated = [[each[number] for number in chosen] for each in (found, truths, hard)]
            again = outcome(repeated[0], repeated[1], classes, metric, repeated[2])
            assert value == pytest.approx(again.accuracy, abs=1e-6)
            checked += 1
    assert checked > 40
