"""Pixels to network input: Darknet's own resizing.

Input: float32 [C, H, W], red, green, blue, 0..1.

Sources: Darknet's image.c (resize_image, letterbox_image, resize_min, crop_image, center_crop_image). All of its
bilinear resizing pins the corners: output i reads at i * (in - 1) / (out - 1), which no OpenCV interpolation does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

import cv2
import numpy as np
import numpy.typing as npt

from yoloprune.detect.image import Pixels

Planes = npt.NDArray[np.float32]
_Indices = npt.NDArray[np.int64]
Fit = Literal["stretch", "letterbox", "short_side", "centre_square"]
"""How a picture becomes the network's size: `stretch` and `letterbox` for detectors; for classifiers `short_side` (the
short side scaled to the width, then the middle cut out; AlexeyAB) or `centre_square` (the middle square, stretched;
pjreddie)."""

_GREY: Final = 0.5
_UNIT: Final = np.float32(1 / 255)
_BLOCK: Final = 48 * 1024
"""Output floats resized at a time: what they need stays in the cache, and no large memory is asked for and given back
over and over, which can cost more than the arithmetic."""


def network_input(pixels: Pixels, width: int, height: int, fit: Fit) -> Planes:
    """A picture uint8 [H, W, C], BGR, as a network of that size takes it: float32 [C, height, width], RGB, 0..1."""
    out = np.empty((pixels.shape[2], height, width), np.float32)
    fit_into(out, pixels, fit)
    return out


def fit_into(out: Planes, pixels: Pixels, fit: Fit) -> None:
    """The same, written to `out` [C, height, width]."""
    _FITS[fit](pixels, out)


def letterbox_size(source_width: int, source_height: int, width: int, height: int) -> tuple[int, int]:
    """Width and height of the picture inside its letterbox, rounded down (at least 1, where Darknet gets none)."""
    if np.float32(width) / np.float32(source_width) < np.float32(height) / np.float32(source_height):
        return width, max(source_height * width // source_width, 1)
    return max(source_width * height // source_height, 1), height


def _stretch(pixels: Pixels, out: Planes) -> None:
    """Aspect ignored. (resize_image.)

    Darknet's rounding is kept: the last row reads at (h-1) * scale in float32, which may come out just under the last
    source row; Darknet then drops the other tap and the row is nearly black. Height 1, undefined there, is the last
    row, as width 1 is the last column.
    """
    channels, height, width = out.shape
    if pixels.shape[:2] == (height, width):
        np.multiply(pixels[:, :, ::-1].transpose(2, 0, 1), _UNIT, out=out)
        return
    top, bottom, *weights = _taps(pixels.shape[0], height, rows=True)
    weight_top, weight_bottom = (weight[:, None] * _UNIT for weight in weights)
    left, right, *weights = _taps(pixels.shape[1], width, rows=False)
    weight_left, weight_right = (np.repeat(weight, channels) for weight in weights)
    block = max(_BLOCK // (width * channels), 1)
    for start in range(0, height, block):
        rows = slice(start, start + block)
        # Columns are gathered as rows of the transposed block: whole rows copy ten times faster than single pixels.
        columns = _transposed(pixels[np.concatenate((top[rows], bottom[rows]))])
        part = _rows(_transposed(columns[left])) * weight_left
        part += _rows(_transposed(columns[right])) * weight_right
        upper, lower = np.split(part, 2)
        upper *= weight_top[rows]
        lower *= weight_bottom[rows]
        upper += lower
        out[:, rows] = upper.reshape(-1, width, channels)[:, :, ::-1].transpose(2, 0, 1)


def _letterbox(pixels: Pixels, out: Planes) -> None:
    """Aspect kept, centred on grey. (letterbox_image.)"""
    _, height, width = out.shape
    inner_width, inner_height = letterbox_size(pixels.shape[1], pixels.shape[0], width, height)
    x, y = (width - inner_width) // 2, (height - inner_height) // 2
    out[...] = _GREY
    _stretch(pixels, out[:, y : y + inner_height, x : x + inner_width])


def _short_side(pixels: Pixels, out: Planes) -> None:
    """The short side scaled to the width and the middle cut out; edges repeat where the network is higher than wide.

    (AlexeyAB classifier.c: validate_classifier_single; resize_min, crop_image.)
    """
    source_height, source_width, _ = pixels.shape
    _, height, width = out.shape
    if source_width < source_height:
        resized = network_input(pixels, width, source_height * width // source_width, "stretch")
    else:
        resized = network_input(pixels, source_width * width // source_height, width, "stretch")
    rows, columns = _middle(resized.shape[1], height), _middle(resized.shape[2], width)
    out[...] = resized[:, rows][:, :, columns]


def _centre_square(pixels: Pixels, out: Planes) -> None:
    """The middle square, stretched. (pjreddie: center_crop_image.)"""
    source_height, source_width, _ = pixels.shape
    side = min(source_height, source_width)
    y, x = (source_height - side) // 2, (source_width - side) // 2
    _stretch(pixels[y : y + side, x : x + side], out)


_FITS: Final[dict[Fit, Callable[[Pixels, Planes], None]]] = {
    "stretch": _stretch,
    "letterbox": _letterbox,
    "short_side": _short_side,
    "centre_square": _centre_square,
}


def _taps(source: int, target: int, *, rows: bool) -> tuple[_Indices, _Indices, Planes, Planes]:
    """Both source rows (or columns) of every target one and their weights, in C's float arithmetic. (resize_image.)"""
    where = np.arange(target, dtype=np.float32) * (np.float32(source - 1) / np.float32(max(target - 1, 1)))
    first = np.minimum(where.astype(np.int64), source - 1)
    share = where - first.astype(np.float32)
    weight = share.copy()
    if rows and target > 1:
        weight[-1] = 0
    else:
        first[-1], share[-1], weight[-1] = source - 1, 0, 0
    return first, np.minimum(first + 1, source - 1), 1 - share, weight


def _transposed(pixels: Pixels) -> Pixels:
    """[H, W, C] as [W, H, C]."""
    height, width, channels = pixels.shape
    return np.asarray(cv2.transpose(pixels), np.uint8).reshape(width, height, channels)


def _rows(pixels: Pixels) -> Planes:
    """uint8 [H, W, C] as float32 [H, W*C]: long rows keep NumPy's loops long."""
    return pixels.reshape(len(pixels), -1).astype(np.float32)


def _middle(have: int, want: int) -> _Indices:
    """`want` indices around the middle of 0..have-1, the ends repeated where it has fewer. (crop_image.)"""
    # C's division rounds toward zero where the cut is larger than the picture.
    first = int((have - want) / 2)
    return np.clip(np.arange(first, first + want), 0, have - 1)
