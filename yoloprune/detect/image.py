"""Picture files to pixels and back.

Pixels: uint8 [H, W, C] as OpenCV decodes them (blue, green, red, or one grey channel). Darknet reads by OpenCV, too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from yoloprune.errors import InputError, unreadable, warn

Pixels = npt.NDArray[np.uint8]

_DECODE: Final = {1: cv2.IMREAD_GRAYSCALE, 3: cv2.IMREAD_COLOR}
_WRITTEN: Final = frozenset(
    {*(".bmp", ".dib", ".jpe", ".jpeg", ".jpg", ".png", ".pnm", ".ppm", ".ras", ".sr", ".tif", ".tiff", ".webp")}
)
ENDINGS: Final = _WRITTEN | {".avif", ".exr", ".gif", ".hdr", ".jp2", ".pbm", ".pfm", ".pgm", ".pic", ".pxm"}
"""Of files that can be pictures, in small letters."""
_JPEG: Final = b"\xff\xd8"
_QUALITY: Final = 78
"""Of thumbnails, in percent."""
_ENDS: Final = np.frombuffer(b"\xff\xd9" * (1 << 16), np.uint8)
"""End markers of a JPEG, more bytes than a segment holds."""


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


def thumbnail(pixels: Pixels, side: int) -> bytes:
    """A picture as a small JPEG whose longer side has at most so many pixels."""
    scale = side / max(pixels.shape[:2])
    if scale < 1:
        size = (max(round(pixels.shape[1] * scale), 1), max(round(pixels.shape[0] * scale), 1))
        pixels = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
    return bytes(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1])
