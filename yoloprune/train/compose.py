"""What AlexeyAB's Darknet does to several pictures and boxes at once: mosaic, mixup, blur, noise.

(data.c load_data_detection, blend_truth, blend_truth_mosaic; image_opencv.cpp image_data_augmentation.) A quarter of a
mosaic is named by its number: 0 upper left, 1 upper right, 2 lower left, 3 lower right.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from yoloprune.darknet.data import Labels
from yoloprune.darknet.layers.base import Shape
from yoloprune.train.augment import Augmentation, Pixels, View

_EDGE = 0.2
"""Share of the picture that each side of a mosaic has at least."""


def mosaic_centre(target: Shape, rng: np.random.Generator) -> tuple[int, int]:
    """Where the four pictures of a mosaic meet: x, y."""
    x, y = (int(rng.integers(int(side * _EDGE), int(side * (1 - _EDGE)) + 1)) for side in (target.w, target.h))
    return x, y


def cornered(view: View, size: tuple[int, int], quarter: int) -> View:
    """The view moved to the corner of the picture whose part a quarter shows, so that most of it is seen."""
    w, h = size
    left = 0.0 if (quarter % 2 == 0) != view.flip else w - view.width
    return replace(view, left=left, top=0.0 if quarter < 2 else h - view.height)


def place_quarter(
    canvas: Pixels,
    quarter: int,
    centre: tuple[int, int],
    pixels: Pixels,
    truths: Labels,
    view: View,
    size: tuple[int, int],
    *,
    bound: bool,
) -> Labels:
    """Draw a quarter of `canvas` [h, w, C] from `pixels` [h, w, C], a whole input; its objects where they are then.

    truths: [T, 5] of `pixels`, clipped to the input, or with `bound` to the quarter. The part that is shown leads up to
    the cut, or a little less where the view reaches out of its picture.
    """
    h, w = canvas.shape[:2]
    (x, y), (source_w, source_h) = centre, size
    left, right = view.left, source_w - view.left - view.width
    top, bottom = view.top, source_h - view.top - view.height
    if view.flip:
        left, right = right, left
    if quarter % 2 == 0:
        columns, from_x = slice(0, x), w - x - min(w - x, max(0, int(-right * w / source_w)))
    else:
        columns, from_x = slice(x, w), min(x, max(0, int(-left * w / source_w)))
    if quarter < 2:
        rows, from_y = slice(0, y), h - y - min(h - y, max(0, int(-bottom * h / source_h)))
    else:
        rows, from_y = slice(y, h), min(y, max(0, int(-top * h / source_h)))
    part = canvas[rows, columns]
    part[:] = pixels[from_y : from_y + part.shape[0], from_x : from_x + part.shape[1]]

    move = np.array([columns.start - from_x, rows.start - from_y])
    sides = np.array([w, h])
    low = (truths[:, 1:3] - truths[:, 3:] / 2) * sides + move
    high = (truths[:, 1:3] + truths[:, 3:] / 2) * sides + move
    if bound:
        corners = np.array([[columns.start, rows.start], [columns.stop, rows.stop]])
        low, high = np.trunc(low).clip(corners[0]), np.trunc(high).clip(None, corners[1])
    else:
        low, high = low.clip(0), high.clip(None, sides)
    extent = (high - low) / sides
    kept = ((extent > 1 / sides) & (extent < 1)).all(1)
    placed = np.concatenate([truths[:, :1], (low + high) / 2 / sides, extent], 1)[kept]
    return np.asarray(placed, np.float32)


def mixup(a: Pixels, b: Pixels) -> Pixels:
    """The mean of two pictures."""
    return np.asarray(cv2.addWeighted(a, 0.5, b, 0.5, 0), np.uint8).reshape(a.shape)


def blur_and_noise(rule: Augmentation, pixels: Pixels, truths: Labels, rng: np.random.Generator) -> Pixels:
    """Blurred in one of three cases over all and in one around the boxes; noise on every other picture."""
    if rule.blur:
        h, w = pixels.shape[:2]
        kind = int(rng.integers(3))
        width = 1 if kind == 1 else kind and rule.blur
        if width > 1 and len(truths):
            width = min(width, int((truths[:, 3:] * [w, h]).min()) // 8)  # not where an object is too small for it
        if width:
            kernel = 17 if width == 1 else width // 2 * 2 + 1
            blurred = np.asarray(cv2.GaussianBlur(pixels, (kernel, kernel), 0), np.uint8).reshape(pixels.shape)
            if width == 1:
                for x, y, box_w, box_h in truths[:, 1:] * [w, h, w, h]:
                    inner = (
                        slice(max(int(y - box_h / 2), 0), int(y + box_h / 2)),
                        slice(max(int(x - box_w / 2), 0), int(x + box_w / 2)),
                    )
                    blurred[inner] = pixels[inner]
            pixels = blurred
    if rule.noise and rng.integers(2):
        # Darknet's noise lies in bytes, so that all of it that is negative is 0.
        noise = rng.standard_normal(pixels.shape, np.float32) * min(rule.noise, 127)
        pixels = np.asarray(cv2.add(pixels, np.rint(noise).clip(0, 255).astype(np.uint8)), np.uint8)
    return pixels
