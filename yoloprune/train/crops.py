"""Darknet's augmentation of classifiers' pictures (data.c load_image_augment_paths; image.c random_augment_image).

The short side of a picture, its aspect changed by up to `aspect`, becomes r pixels, r between the two of `crop`; then a
square of the network's larger side is cut out anywhere, turned by up to `angle` degrees, and stretched to the network.
"""

from __future__ import annotations

import math

import numpy as np

from yoloprune.darknet.layers.base import Shape
from yoloprune.train.augment import Augmentation, Pixels, draw_colours, random_scale, warp


def crop(rule: Augmentation, pixels: Pixels, target: Shape, rng: np.random.Generator) -> Pixels:
    """A crop of uint8 [H, W, C] in blue, green, red as uint8 [h, w, C] in red, green, blue; outside is black."""
    h, w = pixels.shape[:2]
    side = max(target.w, target.h)
    aspect = random_scale(rule.aspect, rng)
    low, high = sorted(map(round, rule.crop))
    scale = int(rng.integers(low, high + 1)) / min(h, w * aspect)
    angle = math.radians(float(rng.uniform(-rule.angle, rule.angle)))
    reach_x, reach_y = (w * scale / aspect - side) / 2, (h * scale - side) / 2
    move_x = float(rng.uniform(min(-reach_x, reach_x), abs(reach_x)))
    move_y = float(rng.uniform(min(-reach_y, reach_y), abs(reach_y)))
    flip, *hsv = draw_colours(rule, rng)

    # Pixel (x, y) of the square reads at turn * (x - side/2 + move_x, y - side/2 + move_y) + the picture's middle.
    cos, sin = math.cos(angle), math.sin(angle)
    turn = np.array([[cos * aspect, -sin], [sin * aspect, cos]]) / scale
    # The square is stretched to the network by pinned corners; both in one.
    across = (side - 1) / (target.w - 1) if target.w > 1 else 0.0
    down = (side - 1) / (target.h - 1) if target.h > 1 else 0.0
    first = np.array([(side - 1 if flip else 0) - side / 2 + move_x, -side / 2 + move_y])
    to_source = np.empty((2, 3))
    to_source[:, :2] = turn * [-across if flip else across, down]
    to_source[:, 2] = turn @ first + [w / 2, h / 2]
    return warp(pixels, to_source, target, (0,) * 4, hsv)
