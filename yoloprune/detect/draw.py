"""Boxes and labels on a picture."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np

from yoloprune.darknet.predictions import Detections
from yoloprune.detect.image import Pixels

Colour = tuple[int, int, int]

_FONT: Final = cv2.FONT_HERSHEY_SIMPLEX
_CAP_HEIGHT: Final = 22
"""Height in pixels of the font's capitals at scale 1."""
_GOLDEN: Final = 0.618033988749895
_INK: Final = (24, 24, 24)
_PAPER: Final = (255, 255, 255)


def draw(pixels: Pixels, detections: Detections, names: Sequence[str]) -> Pixels:
    """A copy of a picture, uint8 [H, W, 3] BGR, with the box, class name and probability of all that was found in it.

    The most probable box is drawn last, over the others; lines and text grow with the picture. Names that OpenCV's font
    lacks come out as question marks.
    """
    canvas = pixels.copy()
    height, width = canvas.shape[:2]
    line = max(round(min(height, width) / 250), 1)
    for (x, y, w, h), number, prob in reversed(
        list(zip(detections.boxes.tolist(), detections.classes.tolist(), detections.probs.tolist(), strict=True))
    ):
        left, right = (_pixel(edge, width) for edge in (x - w / 2, x + w / 2))
        top, bottom = (_pixel(edge, height) for edge in (y - h / 2, y + h / 2))
        colour = class_colour(number)
        cv2.rectangle(canvas, (left, top), (right, bottom), colour, line, cv2.LINE_AA)
        _label(canvas, f"{names[number]} {prob:.0%}", left, top, colour, line)
    return canvas


def class_colour(number: int) -> Colour:
    """A bright colour of its own for each class, BGR 0..255; neighbouring numbers are far apart on the colour wheel."""
    red, green, blue = colorsys.hsv_to_rgb(number * _GOLDEN % 1, 0.75, 1 - 0.25 * (number % 2))
    return round(blue * 255), round(green * 255), round(red * 255)


def _label(canvas: Pixels, text: str, left: int, top: int, colour: Colour, line: int) -> None:
    """Text on a filled field on top of a box; inside it where the picture ends above, further left where it ends."""
    height, width = canvas.shape[:2]
    scale = max(min(height, width) / 36, 10) / _CAP_HEIGHT
    stroke = max(round(scale * 1.5), 1)
    (text_width, text_height), below = cv2.getTextSize(text, _FONT, scale, stroke)
    margin = line + 2
    field_width, field_height = text_width + 2 * margin, text_height + below + margin
    x = max(min(left - line // 2, width - field_width), 0)
    y = top - field_height if top >= field_height else top
    cv2.rectangle(canvas, (x, y), (x + field_width, y + field_height), colour, cv2.FILLED)
    blue, green, red = colour
    light = 0.114 * blue + 0.587 * green + 0.299 * red > 140
    at = (x + margin, y + margin // 2 + text_height)
    cv2.putText(canvas, text, at, _FONT, scale, _INK if light else _PAPER, stroke, cv2.LINE_AA)


def _pixel(fraction: float, size: int) -> int:
    return int(np.clip(round(fraction * size), 0, size - 1))
