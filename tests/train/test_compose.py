"""Pictures put together from several, and touched ones, against their pixels."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from yoloprune.darknet.dialect import ALEXEYAB
from yoloprune.darknet.layers.base import Shape
from yoloprune.train.augment import Augmentation, View, draw, place_truths, render
from yoloprune.train.compose import blur_and_noise, cornered, mixup, mosaic_centre, place_quarter

TARGET = Shape(3, 52, 68)


def picture(rng: np.random.Generator, level: int) -> tuple[np.ndarray, np.ndarray]:
    """Dark, with one bright box; its size is odd and differs."""
    w, h = int(rng.integers(60, 90)), int(rng.integers(50, 80))
    pixels = np.zeros((h, w, 3), np.uint8)
    bw, bh = int(rng.integers(14, 24)), int(rng.integers(14, 24))
    x, y = int(rng.integers(0, w - bw)), int(rng.integers(0, h - bh))
    pixels[y : y + bh, x : x + bw] = level
    return pixels, np.array([[0, (x + bw / 2) / w, (y + bh / 2) / h, bw / w, bh / h]], np.float32)


def test_boxes_of_a_mosaic_cover_their_pixels() -> None:
    rng = np.random.default_rng(0)
    rule = Augmentation(jitter=0.2, flip=True)
    levels, seen, clipped = (255, 215, 175, 135), 0, 0
    for _ in range(150):
        cut = mosaic_centre(TARGET, rng)
        assert 10 <= cut[1] <= 42
        assert 13 <= cut[0] <= 55
        canvas = np.zeros((TARGET.h, TARGET.w, 3), np.uint8)
        for quarter, level in enumerate(levels):
            pixels, truths = picture(rng, level)
            size = (pixels.shape[1], pixels.shape[0])
            view = draw(rule, size, TARGET, rng)
            if rng.integers(2):
                view = cornered(view, size, quarter)
            placed = place_truths(truths, view, size, TARGET, dialect=ALEXEYAB, most=9, rng=rng)
            shown = render(pixels, view, TARGET, grey=False)
            boxes = place_quarter(canvas, quarter, cut, shown, placed, view, size, bound=True)
            rows = slice(0, cut[1]) if quarter < 2 else slice(cut[1], TARGET.h)
            columns = slice(0, cut[0]) if quarter % 2 == 0 else slice(cut[0], TARGET.w)
            bright = np.argwhere(np.abs(canvas[rows, columns, 0].astype(int) - level) < 12)
            if not len(boxes) or not len(bright):
                assert len(bright) <= 2 * 60  # at most a rim of a box that was too thin
                continue
            corner = np.array([rows.start, columns.start])
            low, high = bright.min(0) + corner, bright.max(0) + 1 + corner
            (_, x, y, w, h), sides = boxes[0], np.array([TARGET.h, TARGET.w])
            np.testing.assert_allclose(np.array([y - h / 2, x - w / 2]) * sides, low, atol=2.5)
            np.testing.assert_allclose(np.array([y + h / 2, x + w / 2]) * sides, high, atol=2.5)
            seen += 1
            clipped += bool(placed[0, 3] * TARGET.w - w * TARGET.w > 1.5)
    assert seen > 200
    assert clipped > 20


def test_without_bound_boxes_reach_into_other_quarters() -> None:
    view, size = View(0, 0, 68, 52), (68, 52)
    whole = np.array([[3, 0.5, 0.5, 0.9, 0.9]], np.float32)
    canvas = np.zeros((52, 68, 3), np.uint8)
    shown = np.full((52, 68, 3), 9, np.uint8)
    (box,) = place_quarter(canvas, 0, (30, 20), shown, whole, view, size, bound=False)
    # its lower right corner comes to (30, 20): the box moves by -38, -32 and is clipped at 0
    right, bottom = 0.95 * 68 - 38, 0.95 * 52 - 32
    np.testing.assert_allclose(box, [3, right / 2 / 68, bottom / 2 / 52, right / 68, bottom / 52], rtol=1e-5)
    assert (canvas[:20, :30] == 9).all()
    assert (canvas[20:] == 0).all()
    assert (canvas[:, 30:] == 0).all()
    (box,) = place_quarter(canvas, 3, (30, 20), shown, whole, view, size, bound=False)
    np.testing.assert_allclose(
        box, [3, (30 + 0.05 * 68 + 68) / 2 / 68, (20 + 0.05 * 52 + 52) / 2 / 52, 34.6 / 68, 29.4 / 52], rtol=1e-5
    )


def test_a_cornered_view_shows_the_corner() -> None:
    view = View(-10, 20, 50, 40)
    at = [(each.left, each.top) for each in (cornered(view, (100, 90), quarter) for quarter in range(4))]
    assert at == [(0, 0), (50, 0), (0, 50), (50, 50)]
    flipped = View(-10, 20, 50, 40, flip=True)
    at = [(each.left, each.top) for each in (cornered(flipped, (100, 90), quarter) for quarter in range(4))]
    assert at == [(50, 0), (0, 0), (50, 50), (0, 50)]


def test_mixed_is_the_mean() -> None:
    rng = np.random.default_rng(1)
    a, b = (rng.integers(0, 256, (9, 7, 3), np.uint8) for _ in range(2))
    assert np.abs(mixup(a, b).astype(int) - (a.astype(int) + b) / 2).max() <= 0.5


def test_blur_spares_boxes_or_not() -> None:
    rng = np.random.default_rng(2)
    pixels = rng.integers(0, 256, (60, 80, 3), np.uint8)
    truths = np.array([[0, 0.5, 0.5, 0.5, 0.5]], np.float32)
    around = cv2.GaussianBlur(pixels, (17, 17), 0)
    over = cv2.GaussianBlur(pixels, (3, 3), 0)
    inner = around.copy()
    inner[15:45, 20:60] = pixels[15:45, 20:60]
    seen = set()
    for _ in range(60):
        found = blur_and_noise(Augmentation(blur=9), pixels, truths, rng)  # 9 is cut to an eighth of the box: 3
        seen.add(next(i for i, each in enumerate((pixels, inner, over)) if (found == each).all()))
    assert seen == {0, 1, 2}


def test_noise_only_brightens_every_other_picture() -> None:
    rng = np.random.default_rng(3)
    pixels = np.full((60, 80, 3), 100, np.uint8)
    noisy = [blur_and_noise(Augmentation(noise=20), pixels, np.zeros((0, 5), np.float32), rng) for _ in range(40)]
    changed = [each for each in noisy if (each != pixels).any()]
    assert 10 < len(changed) < 30
    values = np.stack(changed).astype(float) - 100
    assert values.min() == 0
    assert values.mean() == pytest.approx(20 / np.sqrt(2 * np.pi), rel=0.02)  # half of a normal distribution
