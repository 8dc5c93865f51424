"""Darknet's augmentation of detection pictures (data.c load_data_detection; image_opencv.cpp image_data_augmentation).

Whatever the dialect, a picture becomes the network's input through a view: a rectangle of it, which may reach outside,
stretched to the input's size, perhaps mirrored, its colours changed. AlexeyAB draws the rectangle's sides, pjreddie a
size and place on a grey canvas, which is a rectangle too. The draws follow Darknet's rules, not its random numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from yoloprune.darknet.data import Labels
from yoloprune.darknet.dialect import Dialect
from yoloprune.darknet.layers.base import Shape
from yoloprune.darknet.model import Graph
from yoloprune.train.schedule import same_named

Pixels = NDArray[np.uint8]
"""[H, W, C]."""
_Rectangle = tuple[float, float, float, float]
"""Left, top, width, height in pixels of the picture."""
_GREY = 127.5


@dataclass(frozen=True)
class Augmentation:
    """How much is drawn; the fields are keys of [net] and of the last head."""

    jitter: float = 0.0
    """Largest move of each side, as a fraction of the picture's width or height."""
    resize: float = 1.0
    """Largest factor of the zoom, in or out; under 1 only out (AlexeyAB)."""
    hue: float = 0.0
    """Largest turn of the colour circle, of which 1 is the whole."""
    saturation: float = 1.0
    exposure: float = 1.0
    """Largest factor; as often its inverse."""
    flip: bool = False
    """Whether every other picture is mirrored."""
    letterbox: bool = False
    """Keep the aspect, apart from jitter (`letter_box=1`)."""
    canvas: bool = False
    """pjreddie's way: jitter the aspect, fit the picture and put it anywhere on a grey canvas."""
    mosaic: bool = False
    mosaic_bound: bool = False
    mixup: bool = False
    blur: int = 0
    noise: int = 0
    """See `Net`."""
    crop: tuple[float, float] = (0.0, 0.0)
    aspect: float = 1.0
    angle: float = 0.0
    """Of classifiers; see `crops`."""
    smooth: float = 0.0
    """What the true class lacks to 1 (`label_smooth_eps`)."""

    @classmethod
    def from_graph(cls, graph: Graph, letterbox: bool | None = None) -> Augmentation:
        """What the cfg asks for in its dialect. (detector.c train_detector takes jitter from the last layer.)

        letterbox: what is to hold instead of the cfg's letter_box.
        """
        net, heads = graph.net, graph.detection_heads
        training = getattr(heads[-1], "training", None) if heads else None
        own = {
            "letterbox": bool(net.letter_box) if letterbox is None else letterbox,
            "canvas": graph.dialect.letterbox,
            "noise": net.gaussian_noise,
            "smooth": net.label_smooth_eps,
        }
        return cls(**(same_named(cls, training) | same_named(cls, net) | own))


@dataclass(frozen=True)
class View:
    """One draw: the rectangle in pixels of the picture, and what happens to its colours."""

    left: float
    top: float
    width: float
    height: float
    flip: bool = False
    hue: float = 0.0
    saturation: float = 1.0
    exposure: float = 1.0


def draw(rule: Augmentation, size: tuple[int, int], target: Shape, rng: np.random.Generator) -> View:
    """A view of a picture of `size` (width, height) for an input of shape `target`."""
    find = _on_canvas if rule.canvas else _cropped
    left, top, width, height = find(rule, size, target, rng)
    return View(left, top, width, height, *draw_colours(rule, rng))


def draw_colours(rule: Augmentation, rng: np.random.Generator) -> tuple[bool, float, float, float]:
    """Mirrored or not, hue, saturation, exposure."""
    return (
        rule.flip and bool(rng.integers(2)),
        float(rng.uniform(-rule.hue, rule.hue)),
        random_scale(rule.saturation, rng),
        random_scale(rule.exposure, rng),
    )


def render(pixels: Pixels, view: View, target: Shape, *, grey: bool) -> Pixels:
    """The view as uint8 [h, w, C] of the network's input, in red, green, blue.

    pixels: uint8 [H, W, C] in blue, green, red. What lies outside is grey, or else the picture's mean colour.
    """
    step_x, step_y = view.width / target.w, view.height / target.h
    # Pixel centres lie at .5 in both; a mirrored view starts at its right end.
    first_x = view.left + view.width - step_x / 2 if view.flip else view.left + step_x / 2
    to_source = np.array(
        [[-step_x if view.flip else step_x, 0, first_x - 0.5], [0, step_y, view.top + step_y / 2 - 0.5]]
    )
    border = (_GREY,) * 4 if grey else cv2.mean(pixels)
    return warp(pixels, to_source, target, border, (view.hue, view.saturation, view.exposure))


def warp(
    pixels: Pixels, to_source: NDArray[np.float64], target: Shape, border: Sequence[float], hsv: Sequence[float]
) -> Pixels:
    """uint8 [H, W, C] in blue, green, red -> [h, w, C] in red, green, blue, its colours changed as `distort_colours`.

    to_source: [2, 3] from a target's pixel (x, y, 1) to the picture's (x, y); border: what lies outside.
    """
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    size = (target.w, target.h)
    warped = cv2.warpAffine(
        pixels, to_source, size, flags=flags, borderMode=cv2.BORDER_CONSTANT, borderValue=tuple(border)
    )
    return distort_colours(np.asarray(warped, np.uint8).reshape(target.h, target.w, -1), *hsv)


def place_truths(
    truths: Labels,
    view: View,
    size: tuple[int, int],
    target: Shape,
    *,
    dialect: Dialect,
    most: int,
    rng: np.random.Generator,
) -> Labels:
    """Objects [T, 5] as the view shows them, clipped to it (data.c correct_boxes, fill_truth_detection).

    In random order, of which the first `most` count; then those go that are outside or too small, or whose centre is
    said to be 0, 0: that means to ignore them.
    """
    shuffled = truths[rng.permutation(len(truths))]
    centre, half = shuffled[:, 1:3], shuffled[:, 3:] / 2
    scale, start = np.array(size, np.float32), np.array([view.left, view.top], np.float32)
    extent = np.array([view.width, view.height], np.float32)
    low = ((centre - half) * scale - start) / extent
    high = ((centre + half) * scale - start) / extent
    if view.flip:
        low[:, 0], high[:, 0] = 1 - high[:, 0], 1 - low[:, 0]
    low, high = low.clip(0, 1), high.clip(0, 1)
    placed = np.concatenate([shuffled[:, :1], (low + high) / 2, high - low], axis=1)[:most]
    fraction = dialect.smallest_truth
    least = (1 / target.w, 1 / target.h) if fraction is None else (fraction, fraction)
    large = (placed[:, 3] >= least[0]) & (placed[:, 4] >= least[1])
    kept: Labels = placed[large & centre[:most].any(1)].astype(np.float32)
    return kept


def _cropped(rule: Augmentation, size: tuple[int, int], target: Shape, rng: np.random.Generator) -> _Rectangle:
    """AlexeyAB: each side moves by itself; resize moves both sides of an axis on top."""
    w, h = size
    near, far = rng.random(2)  # resize: one draw for left and top, one for right and bottom
    out, into = sorted((rule.resize, 1 / rule.resize))
    sides = []
    for length in (w, h):
        move = int(length * rule.jitter)
        # Range of what `resize` takes off each side of an axis; negative widens the view.
        low, high = length * (1 - 1 / out) / 2, 0.0 if rule.resize < 1 else length * (1 - 1 / into) / 2
        sides.append([float(np.trunc(rng.uniform(-move, move) + low + (high - low) * share)) for share in (near, far)])
    (left, right), (top, bottom) = sides
    if rule.letterbox:
        if (w / h) / (target.w / target.h) > 1:
            more = (w * target.h / target.w - h) / 2
            top, bottom = top - more, bottom - more
        else:
            more = (h * target.w / target.h - w) / 2
            left, right = left - more, right - more
    return left, top, max(w - left - right, 1.0), max(h - top - bottom, 1.0)


def _on_canvas(rule: Augmentation, size: tuple[int, int], target: Shape, rng: np.random.Generator) -> _Rectangle:
    """pjreddie: a new aspect, as large as fits, anywhere on the canvas."""
    w, h = size
    dw, dh = rule.jitter * w, rule.jitter * h
    aspect = (w + rng.uniform(-dw, dw)) / (h + rng.uniform(-dh, dh))
    inner_w, inner_h = (target.h * aspect, float(target.h)) if aspect < 1 else (float(target.w), target.w / aspect)
    # As Darknet, one side may come out longer than the canvas; then the place is drawn within what hangs over.
    dx, dy = rng.random() * (target.w - inner_w), rng.random() * (target.h - inner_h)
    across, down = w / inner_w, h / inner_h
    return -dx * across, -dy * down, target.w * across, target.h * down


def random_scale(most: float, rng: np.random.Generator) -> float:
    """1..most, or one over that (utils.c rand_scale)."""
    scale = float(rng.uniform(min(1, most), max(1, most)))
    return scale if rng.integers(2) else 1 / scale


def distort_colours(pixels: Pixels, hue: float, saturation: float, exposure: float) -> Pixels:
    """Hue turned, saturation and value scaled and cut off at white; blue, green, red become red, green, blue."""
    if pixels.shape[2] == 1 and exposure == 1:
        return pixels
    values = np.arange(256)
    brighter = (values * exposure).clip(0, 255)
    if pixels.shape[2] == 1:
        return cv2.LUT(pixels, brighter.astype(np.uint8)).reshape(pixels.shape)  # type: ignore[return-value]
    if (hue, saturation, exposure) == (0, 1, 1):
        return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)
    turned = (values + round(180 * hue)) % 180  # OpenCV keeps hue in two-degree steps
    table = np.stack([turned, (values * saturation).clip(0, 255), brighter], -1).astype(np.uint8)
    hsv = cv2.LUT(cv2.cvtColor(pixels, cv2.COLOR_BGR2HSV), table[None])
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), np.uint8)
