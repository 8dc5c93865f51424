"""Views against pixels and boxes worked out by hand."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from tests.train.nets import graph
from yoloprune.darknet.dialect import ALEXEYAB, PJREDDIE, Dialect
from yoloprune.darknet.layers.base import Shape
from yoloprune.train.augment import Augmentation, View, draw, place_truths, render

TARGET = Shape(3, 24, 40)
SIZE = (61, 47)


def picture(seed: int = 0) -> np.ndarray:
    """Smooth noise, so that resampling is well defined."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return np.asarray(cv2.resize(noise, SIZE, interpolation=cv2.INTER_CUBIC))


def test_the_whole_picture_is_plain_resizing() -> None:
    pixels = picture()
    found = render(pixels, View(0, 0, *SIZE), TARGET, grey=False)
    expected = cv2.resize(pixels, (TARGET.w, TARGET.h), interpolation=cv2.INTER_LINEAR)[:, :, ::-1]
    inner = (slice(1, -1), slice(1, -1))  # at the rim warpAffine mixes in the border
    assert np.abs(found[inner].astype(int) - expected[inner]).max() <= 4  # warpAffine knows 1/32 of a pixel
    mirrored = render(pixels, View(0, 0, *SIZE, flip=True), TARGET, grey=False)
    assert np.abs(mirrored[:, ::-1][inner].astype(int) - found[inner]).max() <= 4


def test_a_crop_is_cut_and_what_is_outside_is_the_mean_or_grey() -> None:
    pixels = picture(1)
    cut = render(pixels, View(10, 5, 40, 24), TARGET, grey=False)
    np.testing.assert_array_equal(cut, pixels[5:29, 10:50, ::-1])
    wide = View(-40, 0, 40, 24)
    mean = render(pixels, wide, TARGET, grey=False)
    assert np.abs(mean[5, 5].astype(float) - pixels.mean((0, 1))[::-1]).max() <= 1
    assert set(render(pixels, wide, TARGET, grey=True)[:, :39].ravel()) <= {127, 128}


def test_boxes_follow_their_pixels() -> None:
    rng = np.random.default_rng(2)
    rule = Augmentation(jitter=0.3, resize=1.5, flip=True)
    seen = 0
    for _ in range(200):
        black = np.zeros((*SIZE[::-1], 3), np.uint8)
        x, y, w, h = rng.integers(5, 35), rng.integers(5, 25), rng.integers(12, 26), rng.integers(12, 22)
        black[y : y + h, x : x + w] = 255
        box = [1, (x + w / 2) / SIZE[0], (y + h / 2) / SIZE[1], w / SIZE[0], h / SIZE[1]]
        view = draw(rule, SIZE, TARGET, rng)
        (found,) = place_truths(np.array([box], np.float32), view, SIZE, TARGET, dialect=ALEXEYAB, most=9, rng=rng)
        # black stands for the mean, too: grey would be no border
        rows, columns = np.nonzero(render(black, view, TARGET, grey=False)[:, :, 0] > 200)
        left, right = columns.min() / TARGET.w, (columns.max() + 1) / TARGET.w
        top, bottom = rows.min() / TARGET.h, (rows.max() + 1) / TARGET.h
        expected = [1, (left + right) / 2, (top + bottom) / 2, right - left, bottom - top]
        np.testing.assert_allclose(found, expected, atol=2 / TARGET.h)
        seen += view.flip
    assert 60 < seen < 140


@pytest.mark.parametrize("dialect", [ALEXEYAB, PJREDDIE], ids=lambda dialect: str(dialect.name))
def test_an_object_at_the_origin_is_ignored(dialect: Dialect) -> None:
    truths = np.array([[0, 0, 0, 0.5, 0.5], [1, 0, 0.3, 0.5, 0.5], [2, 0.3, 0, 0.5, 0.5]], np.float32)
    for flip in (False, True):
        view, rng = View(0, 0, *SIZE, flip=flip), np.random.default_rng(0)
        found = place_truths(truths, view, SIZE, TARGET, dialect=dialect, most=9, rng=rng)
        assert sorted(found[:, 0]) == [1, 2]


@pytest.mark.parametrize(("dialect", "least"), [(ALEXEYAB, 1 / 24), (PJREDDIE, 0.001)])
def test_what_is_outside_or_too_small_goes_and_the_rest_is_clipped(dialect: Dialect, least: float) -> None:
    view = View(0, 0, SIZE[0] / 2, SIZE[1])  # the left half
    tall, small = least * 1.01, least * 0.99
    truths = np.array(
        [[0, 0.5, 0.5, 0.2, 0.2], [1, 0.8, 0.5, 0.2, 0.2], [2, 0.2, 0.5, 0.1, tall], [3, 0.2, 0.5, 0.1, small]],
        np.float32,
    )
    rng = np.random.default_rng(0)
    found = place_truths(truths, view, SIZE, TARGET, dialect=dialect, most=9, rng=rng)
    found = found[found[:, 0].argsort()]
    np.testing.assert_allclose(found, [[0, 0.9, 0.5, 0.2, 0.2], [2, 0.4, 0.5, 0.2, tall]], rtol=1e-3)
    counts = {len(place_truths(truths, view, SIZE, TARGET, dialect=dialect, most=2, rng=rng)) for _ in range(50)}
    assert counts == {0, 1, 2}  # `most` cuts before the filter, as Darknet does


def test_draws_keep_the_rules() -> None:
    rng = np.random.default_rng(3)
    rule = Augmentation(jitter=0.2, hue=0.1, saturation=1.5, exposure=2, flip=False)
    views = [draw(rule, (100, 50), TARGET, rng) for _ in range(500)]
    for view in views:
        assert -20 <= view.left <= 20
        assert -10 <= view.top <= 10
        assert 80 <= view.left + view.width <= 120
        assert 40 <= view.top + view.height <= 60
        assert not view.flip
    assert max(abs(view.hue) for view in views) == pytest.approx(0.1, abs=0.003)
    factors = np.array([view.saturation for view in views])
    assert factors.min() == pytest.approx(1 / 1.5, abs=0.02)
    assert factors.max() == pytest.approx(1.5, abs=0.02)
    assert 200 < (factors > 1).sum() < 300
    still = draw(Augmentation(), (100, 50), TARGET, rng)
    assert still == View(0, 0, 100, 50)


def test_letterbox_and_canvas_keep_the_aspect() -> None:
    rng = np.random.default_rng(4)
    boxed = draw(Augmentation(letterbox=True), (100, 50), TARGET, rng)
    assert (boxed.left, boxed.width) == (0, 100)
    assert boxed.width / boxed.height == pytest.approx(TARGET.w / TARGET.h)
    assert boxed.top == pytest.approx(-(boxed.height - 50) / 2)
    tops = set()
    for _ in range(50):
        view = draw(Augmentation(canvas=True), (100, 50), TARGET, rng)
        assert (view.left, view.width) == (pytest.approx(0), pytest.approx(100))
        assert view.height == pytest.approx(60)
        assert -10 <= view.top <= 0
        tops.add(round(view.top))
    assert len(tops) > 5


def test_colours() -> None:
    red = np.full((24, 40, 3), (0, 0, 200), np.uint8)  # blue, green, red
    whole = (0, 0, 40, 24)
    assert tuple(render(red, View(*whole, hue=1 / 3), TARGET, grey=False)[5, 5]) == (0, 200, 0)
    assert tuple(render(red, View(*whole, hue=-1 / 3), TARGET, grey=False)[5, 5]) == (0, 0, 200)
    assert tuple(render(red, View(*whole, exposure=0.5), TARGET, grey=False)[5, 5]) == (100, 0, 0)
    assert tuple(render(red, View(*whole, exposure=2), TARGET, grey=False)[5, 5]) == (255, 0, 0)
    pale = render(red, View(*whole, saturation=0.5), TARGET, grey=False)[5, 5]
    assert pale == pytest.approx((200, 100, 100), abs=1)
    grey = render(red[:, :, :1] + 100, View(*whole, exposure=1.5), Shape(1, 24, 40), grey=False)
    assert grey.shape == (24, 40, 1)
    assert set(grey.ravel()) == {150}


def test_the_cfg_is_read() -> None:
    text = (
        "[net]\nwidth=8\nheight=8\nchannels=3\nhue=.1\nsaturation=1.5\nexposure=1.2\nflip=0\nletter_box=1\n"
        "[convolutional]\nfilters=6\n[yolo]\nclasses=1\nnum=1\nanchors=2,2\njitter=.3\nresize=1.5\n"
    )
    expected = Augmentation(0.3, 1.5, 0.1, 1.5, 1.2, flip=False, letterbox=True, crop=(8.0, 16.0))
    assert Augmentation.from_graph(graph(text)) == expected
    assert Augmentation.from_graph(graph(text, PJREDDIE)).canvas
