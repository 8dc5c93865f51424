"""Pictures in, network input out: decoding and Darknet's own resizing.

Pixels: uint8 [H, W, C] as OpenCV decodes them (blue, green, red, or one grey channel).
Input: float32 [C, H, W], red, green, blue, 0..1.

Sources: Darknet's image.c (resize_image, letterbox_image, resize_min, crop_image, center_crop_image) and its OpenCV
reader. All of its bilinear resizing pins the corners: output i reads at i * (in - 1) / (out - 1), which no OpenCV
interpolation does.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final, Literal

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from yoloprune.errors import InputError, unreadable, warn

Pixels = npt.NDArray[np.uint8]
Planes = npt.NDArray[np.float32]
_Indices = npt.NDArray[np.int64]
_Pending = tuple[Planes, list[Future[tuple[int, int]]]]
Fit = Literal["stretch", "letterbox", "short_side", "centre_square"]
"""How a picture becomes the network's size: `stretch` and `letterbox` for detectors; for classifiers `short_side` (the
short side scaled to the width, then the middle cut out; AlexeyAB) or `centre_square` (the middle square, stretched;
pjreddie)."""

_DECODE: Final = {1: cv2.IMREAD_GRAYSCALE, 3: cv2.IMREAD_COLOR}
_WRITTEN: Final = frozenset(
    {*(".bmp", ".dib", ".jpe", ".jpeg", ".jpg", ".png", ".pnm", ".ppm", ".ras", ".sr", ".tif", ".tiff", ".webp")}
)
ENDINGS: Final = _WRITTEN | {".avif", ".exr", ".gif", ".hdr", ".jp2", ".pbm", ".pfm", ".pgm", ".pic", ".pxm"}
"""Of files that can be pictures, in small letters."""
_JPEG: Final = b"\xff\xd8"
_ENDS: Final = np.frombuffer(b"\xff\xd9" * (1 << 16), np.uint8)
"""End markers of a JPEG, more bytes than a segment holds."""
_GREY: Final = 0.5
_UNIT: Final = np.float32(1 / 255)
_BLOCK: Final = 48 * 1024
"""Output floats resized at a time: what they need stays in the cache, and no large memory is asked for and given back
over and over, which can cost more than the arithmetic."""
_AHEAD: Final = 2
"""Batches being decoded while one is in use."""


def read_pixels(path: str | Path, channels: int = 3) -> Pixels:
    """Decode a picture to uint8 [H, W, channels]; alpha is dropped, grey and colour become each other as needed.

    A JPEG that lacks its end is warned of; what it lacks is grey, as `cv2.imread` and Darknet have it. InputError if
    `channels` is neither 1 nor 3, or the file is missing or no picture OpenCV can decode.
    """
    if channels not in _DECODE:
        raise InputError(f"pictures have 1 or 3 channels, the network wants {channels}", file=path)
    try:
        content = np.fromfile(path, np.uint8)
    except OSError as error:
        raise unreadable(error, path) from error
    decoded = _decoded(content, channels)
    if decoded is None and content[:2].tobytes() == _JPEG:
        # Where a file ends, libjpeg reads end markers (jdatasrc.c: fill_input_buffer). OpenCV gives up at the end of
        # memory instead.
        decoded = _decoded(np.concatenate([content, _ENDS]), channels)
        if decoded is not None:
            warn("ends early, as a broken download does: decoded as far as it goes, as Darknet does", file=path)
    if decoded is None:
        raise InputError("not a picture that can be decoded", file=path)
    return decoded


def _decoded(content: Pixels, channels: int) -> Pixels | None:
    """Bytes of a file to uint8 [H, W, channels]; None if they are no picture."""
    try:
        decoded = cv2.imdecode(content, _DECODE[channels])
    except cv2.error:  # nothing to decode, or a size that is too large
        return None
    return None if decoded is None else np.asarray(decoded, np.uint8).reshape(*decoded.shape[:2], channels)


def is_written(ending: str) -> bool:
    """Whether OpenCV writes colour pictures of 8 bits by this ending, to be looked at."""
    return ending.lower() in _WRITTEN and cv2.haveImageWriter(ending.lower())


def encoded(pixels: Pixels, path: Path) -> bytes:
    """A picture as the file `path` is to hold it, by its ending. InputError if it can't be such."""
    done, content = cv2.imencode(path.suffix, pixels)
    if not done:
        raise InputError(f"a picture of this size can't be written as {path.suffix}", file=path)
    return content.tobytes()


def read_image(path: str | Path, channels: int = 3) -> Planes:
    """A picture as float32 [channels, H, W], RGB, 0..1. Errors as `read_pixels`. (Darknet: load_image_color.)"""
    return planes(read_pixels(path, channels))


def planes(pixels: Pixels) -> Planes:
    """uint8 [H, W, C] BGR as float32 [C, H, W] RGB, 0..1."""
    return np.multiply(pixels[:, :, ::-1].transpose(2, 0, 1), _UNIT, dtype=np.float32, order="C")


def stretch(pixels: Pixels, width: int, height: int) -> Planes:
    """Resize to float32 [C, height, width], 0..1, aspect ignored. (resize_image.)

    Darknet's rounding is kept: the last row reads at (h-1) * scale in float32, which may come out just under the last
    source row; Darknet then drops the other tap and the row is nearly black. Height 1, undefined there, is the last
    row, as width 1 is the last column.
    """
    return _new(pixels, width, height, _stretch)


def letterbox(pixels: Pixels, width: int, height: int) -> Planes:
    """Resize to fit float32 [C, height, width], 0..1, aspect kept, centred on grey. (letterbox_image.)"""
    return _new(pixels, width, height, _letterbox)


def letterbox_size(source_width: int, source_height: int, width: int, height: int) -> tuple[int, int]:
    """Width and height of the picture inside its letterbox, rounded down (at least 1, where Darknet gets none)."""
    if np.float32(width) / np.float32(source_width) < np.float32(height) / np.float32(source_height):
        return width, max(source_height * width // source_width, 1)
    return max(source_width * height // source_height, 1), height


def short_side(pixels: Pixels, width: int, height: int) -> Planes:
    """Scale the short side to `width` and cut out the middle, float32 [C, height, width], 0..1; edges repeat where the
    network is higher than wide. (AlexeyAB classifier.c: validate_classifier_single; resize_min, crop_image.)
    """
    return _new(pixels, width, height, _short_side)


def centre_square(pixels: Pixels, width: int, height: int) -> Planes:
    """The middle square stretched to float32 [C, height, width], 0..1. (pjreddie: center_crop_image.)"""
    return _new(pixels, width, height, _centre_square)


def network_input(pixels: Pixels, width: int, height: int, fit: Fit) -> Planes:
    """A picture as a network of that size takes it, float32 [C, height, width], 0..1."""
    return _new(pixels, width, height, _FITS[fit])


def load_batch(
    paths: Sequence[str | Path], width: int, height: int, channels: int, fit: Fit, workers: int | None = None
) -> tuple[Tensor, list[tuple[int, int]]]:
    """Pictures as one float32 tensor [B, channels, height, width], and their own (width, height).

    Decoded by `workers` threads, one a core by default. Errors as `read_pixels`; the first picture's comes first.
    """
    return next(load_batches(paths, width, height, channels, fit, batch=len(paths), workers=workers))


def load_batches(
    paths: Sequence[str | Path],
    width: int,
    height: int,
    channels: int,
    fit: Fit,
    *,
    batch: int,
    workers: int | None = None,
) -> Iterator[tuple[Tensor, list[tuple[int, int]]]]:
    """`load_batch` over a list of pictures, `batch` at a time, in order; the next ones decode while one is in use."""
    # OpenCV and NumPy let go of the interpreter while they work, so threads are enough.
    pool = ThreadPoolExecutor(workers or os.cpu_count() or 1, thread_name_prefix="pictures")

    def load(path: str | Path, out: Planes) -> tuple[int, int]:
        pixels = read_pixels(path, channels)
        _FITS[fit](pixels, out)
        return pixels.shape[1], pixels.shape[0]

    def begin(some: Sequence[str | Path]) -> _Pending:
        inputs = np.empty((len(some), channels, height, width), np.float32)
        return inputs, [pool.submit(load, path, out) for path, out in zip(some, inputs, strict=True)]

    def finish(pending: _Pending) -> tuple[Tensor, list[tuple[int, int]]]:
        inputs, futures = pending
        return torch.from_numpy(inputs), [future.result() for future in futures]

    try:
        queue: deque[_Pending] = deque()
        for start in range(0, len(paths), batch):
            queue.append(begin(paths[start : start + batch]))
            if len(queue) > _AHEAD:
                yield finish(queue.popleft())
        while queue:
            yield finish(queue.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


def _new(pixels: Pixels, width: int, height: int, fit: Callable[[Pixels, Planes], None]) -> Planes:
    out = np.empty((pixels.shape[2], height, width), np.float32)
    fit(pixels, out)
    return out


def _stretch(pixels: Pixels, out: Planes) -> None:
    channels, height, width = out.shape
    if pixels.shape[:2] == (height, width):
        np.multiply(pixels[:, :, ::-1].transpose(2, 0, 1), _UNIT, out=out)
        return
    top, bottom, weight_top, weight_bottom = _row_taps(pixels.shape[0], height)
    left, right, weight_left, weight_right = _column_taps(pixels.shape[1], width)
    weight_left, weight_right = np.repeat(weight_left, channels), np.repeat(weight_right, channels)
    block = max(_BLOCK // (width * channels), 1)
    for start in range(0, height, block):
        rows = slice(start, start + block)
        # Columns are gathered as rows of the transposed block: whole rows copy ten times faster than single pixels.
        columns = _transposed(pixels[np.concatenate((top[rows], bottom[rows]))])
        part = _rows(_transposed(columns[left])) * weight_left
        part += _rows(_transposed(columns[right])) * weight_right
        upper, lower = np.split(part, 2)
        upper *= weight_top[rows, None]
        lower *= weight_bottom[rows, None]
        upper += lower
        out[:, rows] = upper.reshape(-1, width, channels)[:, :, ::-1].transpose(2, 0, 1)


def _letterbox(pixels: Pixels, out: Planes) -> None:
    _, height, width = out.shape
    inner_width, inner_height = letterbox_size(pixels.shape[1], pixels.shape[0], width, height)
    x, y = (width - inner_width) // 2, (height - inner_height) // 2
    out[...] = _GREY
    _stretch(pixels, out[:, y : y + inner_height, x : x + inner_width])


def _short_side(pixels: Pixels, out: Planes) -> None:
    source_height, source_width, _ = pixels.shape
    _, height, width = out.shape
    if source_width < source_height:
        resized = stretch(pixels, width, source_height * width // source_width)
    else:
        resized = stretch(pixels, source_width * width // source_height, width)
    rows, columns = _middle(resized.shape[1], height), _middle(resized.shape[2], width)
    out[...] = resized[:, rows][:, :, columns]


def _centre_square(pixels: Pixels, out: Planes) -> None:
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


def _row_taps(source: int, target: int) -> tuple[_Indices, _Indices, Planes, Planes]:
    """Both source rows of every target row and their weights, to 0..1. (resize_image, second half.)"""
    where = _positions(source, target)
    first = np.minimum(where.astype(np.int64), source - 1)
    share = where - first.astype(np.float32)
    weight = share.copy()
    weight[-1] = 0
    if target == 1:
        first[-1], share[-1] = source - 1, 0
    return first, np.minimum(first + 1, source - 1), (1 - share) * _UNIT, weight * _UNIT


def _column_taps(source: int, target: int) -> tuple[_Indices, _Indices, Planes, Planes]:
    """Both source columns of every target column and their weights. (resize_image, first half.)"""
    where = _positions(source, target)
    first = where.astype(np.int64)
    share = where - first.astype(np.float32)
    first[-1], share[-1] = source - 1, 0
    return first, np.minimum(first + 1, source - 1), 1 - share, share


def _positions(source: int, target: int) -> Planes:
    """Where each of `target` samples falls among `source`, in C's float arithmetic."""
    scale = np.float32(source - 1) / np.float32(max(target - 1, 1))
    return np.arange(target, dtype=np.float32) * scale


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
