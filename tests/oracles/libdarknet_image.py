"""Stock Darknet's pure functions on images and boxes, called by ctypes; none of them exits on good input."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, Structure, c_float, c_int
from pathlib import Path

import numpy as np
import numpy.typing as npt

Planes = npt.NDArray[np.float32]


class Image(Structure):
    _fields_ = (("w", c_int), ("h", c_int), ("c", c_int), ("data", POINTER(c_float)))


class Box(Structure):
    _fields_ = (("x", c_float), ("y", c_float), ("w", c_float), ("h", c_float))


class Detection(Structure):
    _fields_ = (
        ("bbox", Box),
        ("classes", c_int),
        ("prob", POINTER(c_float)),
        ("mask", POINTER(c_float)),
        ("objectness", c_float),
        ("sort_class", c_int),
    )


class Library:
    """libdarknet.so of Debian's package. Images are float32 [C, H, W]."""

    def __init__(self, path: Path) -> None:
        self._library = library = ctypes.CDLL(str(path))
        for name, numbers in (("resize_image", 2), ("letterbox_image", 2), ("resize_min", 1), ("center_crop_image", 2)):
            function = getattr(library, name)
            function.argtypes = [Image, *[c_int] * numbers]
            function.restype = Image
        library.crop_image.argtypes = [Image, c_int, c_int, c_int, c_int]
        library.crop_image.restype = Image
        library.load_image_color.argtypes = [ctypes.c_char_p, c_int, c_int]
        library.load_image_color.restype = Image
        library.free_image.argtypes = [Image]
        library.do_nms_sort.argtypes = [POINTER(Detection), c_int, c_int, c_float]
        library.do_nms_sort.restype = None
        library.top_k.argtypes = [POINTER(c_float), c_int, c_int, POINTER(c_int)]
        library.top_k.restype = None

    def resize(self, image: Planes, width: int, height: int) -> Planes:
        return self._taken(self._library.resize_image(_given(image), width, height))

    def letterbox(self, image: Planes, width: int, height: int) -> Planes:
        return self._taken(self._library.letterbox_image(_given(image), width, height))

    def resize_min(self, image: Planes, side: int) -> Planes:
        given = _given(image)
        result = self._library.resize_min(given, side)
        # An image of that size already comes back itself.
        same = ctypes.addressof(result.data.contents) == ctypes.addressof(given.data.contents)
        return image.copy() if same else self._taken(result)

    def crop(self, image: Planes, x: int, y: int, width: int, height: int) -> Planes:
        return self._taken(self._library.crop_image(_given(image), x, y, width, height))

    def center_crop(self, image: Planes, width: int, height: int) -> Planes:
        return self._taken(self._library.center_crop_image(_given(image), width, height))

    def load(self, path: Path) -> Planes:
        return self._taken(self._library.load_image_color(str(path).encode(), 0, 0))

    def top_k(self, scores: Planes, k: int) -> list[int]:
        best = (c_int * k)()
        self._library.top_k(np.ascontiguousarray(scores).ctypes.data_as(POINTER(c_float)), len(scores), k, best)
        return list(best)

    def nms(self, boxes: Planes, probs: Planes, thresh: float) -> Planes:
        """Probabilities [M, K] after do_nms_sort; the suppressed are 0."""
        probs = np.ascontiguousarray(probs).copy()
        count, classes = probs.shape
        detections = (Detection * count)()
        for detection, box, row in zip(detections, boxes, probs, strict=True):
            detection.bbox = Box(*map(float, box))
            detection.classes = classes
            detection.prob = row.ctypes.data_as(POINTER(c_float))
            detection.objectness = 1
        self._library.do_nms_sort(detections, count, classes, thresh)
        return probs

    def _taken(self, image: Image) -> Planes:
        result = np.ctypeslib.as_array(image.data, (image.c, image.h, image.w)).copy()
        self._library.free_image(image)
        return result


def _given(image: Planes) -> Image:
    channels, height, width = image.shape
    assert image.flags.c_contiguous
    assert image.dtype == np.float32
    return Image(width, height, channels, image.ctypes.data_as(POINTER(c_float)))
