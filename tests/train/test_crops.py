"""Crops of classifiers against Darknet's formula, pixel by pixel."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from yoloprune.darknet.layers.base import Shape
from yoloprune.train.augment import Augmentation, random_scale
from yoloprune.train.crops import crop


def smooth(seed: int, w: int, h: int) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), np.uint8)
    return np.asarray(cv2.resize(noise, (w, h), interpolation=cv2.INTER_CUBIC))


def rotate_crop(pixels: np.ndarray, side: int, rad: float, s: float, dx: float, dy: float, aspect: float) -> np.ndarray:
    """image.c rotate_crop_image and bilinear_interpolate, in loops."""
    h, w = pixels.shape[:2]
    out = np.zeros((side, side, 3))
    for y in range(side):
        for x in range(side):
            u, v = (x - side / 2) / s * aspect + dx / s * aspect, (y - side / 2) / s + dy / s
            rx, ry = math.cos(rad) * u - math.sin(rad) * v + w / 2, math.sin(rad) * u + math.cos(rad) * v + h / 2
            ix, iy = math.floor(rx), math.floor(ry)
            for i, j, share in (
                (ix, iy, (1 - rx + ix) * (1 - ry + iy)),
                (ix + 1, iy, (rx - ix) * (1 - ry + iy)),
                (ix, iy + 1, (1 - rx + ix) * (ry - iy)),
                (ix + 1, iy + 1, (rx - ix) * (ry - iy)),
            ):
                if 0 <= i < w and 0 <= j < h:
                    out[y, x] += share * pixels[j, i]
    return out


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("flip", [False, True])
def test_a_crop_is_darknets(seed: int, flip: bool) -> None:
    pixels = smooth(seed, 61, 47)
    rule = Augmentation(crop=(20, 40), aspect=1.3, angle=25, flip=flip)
    target = Shape(3, 21, 21)
    found = crop(rule, pixels, target, np.random.default_rng(seed))
    rng = np.random.default_rng(seed)  # the same draws, in the same order
    aspect = random_scale(1.3, rng)
    scale = int(rng.integers(20, 41)) / min(47, 61 * aspect)
    rad = math.radians(float(rng.uniform(-25, 25)))
    reach = (61 * scale / aspect - 21) / 2, (47 * scale - 21) / 2
    dx, dy = (float(rng.uniform(min(-r, r), abs(r))) for r in reach)
    assert abs(dx) <= abs(reach[0])
    expected = rotate_crop(pixels, 21, rad, scale, dx, dy, aspect)
    if flip and rng.integers(2):
        expected = expected[:, ::-1]
    gap = np.abs(found[:, :, ::-1].astype(float) - expected)
    assert np.median(gap) < 1.5
    assert np.quantile(gap, 0.98) < 9  # warpAffine knows 1/32 of a pixel


def test_a_small_picture_leaves_black() -> None:
    white = np.full((30, 30, 3), 255, np.uint8)
    found = crop(Augmentation(crop=(10, 10)), white, Shape(3, 20, 20), np.random.default_rng(0))
    assert (found == 255).all(2).sum() == pytest.approx(100, abs=25)
    assert (found == 0).all(2).sum() > 200


def test_a_network_that_is_not_square_stretches_the_crop() -> None:
    pixels = smooth(9, 50, 50)
    square = crop(Augmentation(crop=(40, 40)), pixels, Shape(3, 33, 33), np.random.default_rng(1))
    wide = crop(Augmentation(crop=(40, 40)), pixels, Shape(3, 17, 33), np.random.default_rng(1))
    assert np.abs(wide.astype(int) - square[::2]).max() <= 4
