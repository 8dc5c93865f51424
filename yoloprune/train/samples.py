"""What training looks at: an endless, shuffled sequence of augmented pictures, each a function of its index."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from mmap import mmap
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from yoloprune.darknet.data import ClassSplit, Labels, Split
from yoloprune.darknet.layers.base import Shape
from yoloprune.darknet.model import Graph
from yoloprune.detect.image import Pixels, read_pixels
from yoloprune.errors import InputError
from yoloprune.train.augment import View, draw, place_truths, render
from yoloprune.train.compose import blur_and_noise, cornered, mixup, mosaic_centre, place_quarter
from yoloprune.train.crops import crop
from yoloprune.train.recipe import Recipe

Sample = tuple[Pixels, NDArray[np.float32]]
"""Picture uint8 [h, w, C] in RGB, and its objects [T, 5], or what its classes are to be [K]."""


CAN_FORK = hasattr(os, "fork")


class PixelCache:
    """Decoded pictures, as many as fit in `limit` bytes; the first come stay, since every one is as likely again.

    They lie in memory that processes forked later share, so that the limit holds for all of them together.
    """

    def __init__(self, paths: Sequence[Path], channels: int, limit: int) -> None:
        self._paths, self._channels, self._limit = paths, channels, limit
        self._pixels = shared_bytes(limit)
        self._where = shared_bytes(len(paths) * 3 * 8).view(np.int64).reshape(-1, 3)
        """[pictures, 3] where its pixels end, height and width; 0 where it isn't kept."""
        self._used = shared_bytes(8).view(np.int64)
        self._lock = get_context("fork" if CAN_FORK else None).Lock()

    def emptied(self) -> PixelCache:
        """Another for the same pictures, for processes that follow ones which were ended, maybe while they wrote."""
        return PixelCache(self._paths, self._channels, self._limit)

    def read(self, number: int) -> Pixels:
        """Picture `number` as uint8 [H, W, C]. InputError for what can't be decoded."""
        with self._lock:
            end, h, w = (int(value) for value in self._where[number])
        if end:
            return self._pixels[end - h * w * self._channels : end].reshape(h, w, self._channels)
        pixels = read_pixels(self._paths[number], self._channels)
        with self._lock:
            end = int(self._used[0]) + pixels.nbytes
            if end <= len(self._pixels) and not self._where[number, 0]:
                self._pixels[end - pixels.nbytes : end] = pixels.reshape(-1)
                self._where[number] = end, *pixels.shape[:2]
                self._used[0] = end
        return pixels


def shared_bytes(size: int) -> NDArray[np.uint8]:
    """[size] of 0, shared with processes forked later; what is never written takes no memory."""
    return np.frombuffer(mmap(-1, max(size, 1)), np.uint8)[:size]


@dataclass(frozen=True)
class Samples(ABC):
    """The sequence: every picture once an epoch, each epoch in another order.

    Index and seed decide what comes there, so it does not depend on workers, processes or where a run was resumed.
    """

    images: Any
    graph: Graph
    recipe: Recipe
    seed: int
    cache: PixelCache

    @staticmethod
    def of(images: Split | ClassSplit, graph: Graph, recipe: Recipe, seed: int, cache_bytes: int) -> Samples:
        """InputError if there are no images, or not such as the network learns from."""
        if not images.images:
            raise InputError("expected images to train on, found none")
        if isinstance(images, Split) != bool(graph.detection_heads):
            what = "detection heads for images with boxes" if isinstance(images, Split) else "an output of classes"
            raise InputError(f"expected a network with {what}", file=graph.cfg.file)
        cache = PixelCache(images.images, graph.net.input.c, cache_bytes)
        if isinstance(images, Split):
            return DetectionSamples(images, graph, recipe, seed, cache)
        return ClassSamples(images, graph, recipe, seed, cache)

    @property
    def count(self) -> int:
        """Pictures of an epoch."""
        return len(self.images.images)

    def at(self, index: int) -> Sample:
        """The sample at an index, of the size of its update."""
        number = _order(self.seed, index // self.count, self.count)[index % self.count]
        size = self.recipe.sizes.at(self.graph.net.input, index // self.recipe.images + 1, self.seed)
        return self._drawn(int(number), size, np.random.default_rng((self.seed, 1, index)))

    @abstractmethod
    def _drawn(self, number: int, target: Shape, rng: np.random.Generator) -> Sample:
        """A sample from picture `number`, perhaps from others too."""

    @abstractmethod
    def collate(self, truths: Sequence[NDArray[np.float32]]) -> Tensor:
        """Truths of a mini-batch as losses take them."""

    @property
    @abstractmethod
    def _truths(self) -> Iterable[bytes]:
        """Of each picture, for a hash."""

    def hashed(self) -> Iterable[bytes]:
        """What is learnt from, for a hash: paths, however they are written, and truths."""
        for image, truths in zip(self.images.images, self._truths, strict=True):
            yield str(image.resolve()).encode("utf-8", "surrogateescape")
            yield truths


@dataclass(frozen=True)
class DetectionSamples(Samples):
    """Pictures with boxes."""

    images: Split

    @property
    def most_truths(self) -> int:
        """Objects of a picture that count: the last head's `max`."""
        training = getattr(self.graph.detection_heads[-1], "training", None)
        return training.max_truths if training else self.graph.dialect.max_truths

    def _drawn(self, number: int, target: Shape, rng: np.random.Generator) -> Sample:
        """One picture, or several put together."""
        rule = self.recipe.augmentation
        several = (rule.mosaic or rule.mixup) and bool(rng.integers(2))
        if several and rule.mosaic:
            return self._mosaic(number, target, rng)
        pixels, truths, _, _ = self._one(number, target, rng)
        if several:
            other, more, _, _ = self._one(int(rng.integers(self.count)), target, rng)
            return mixup(pixels, other), np.concatenate([truths, more])[: self.most_truths]
        return pixels, truths

    def _mosaic(self, number: int, target: Shape, rng: np.random.Generator) -> Sample:
        centre = mosaic_centre(target, rng)
        canvas = np.empty((target.h, target.w, target.c), np.uint8)
        found: list[Labels] = []
        for quarter in range(4):
            one = number if quarter == 0 else int(rng.integers(self.count))
            moved = quarter if rng.integers(2) else None
            placed = self._one(one, target, rng, moved)
            found.append(place_quarter(canvas, quarter, centre, *placed, bound=self.recipe.augmentation.mosaic_bound))
        return canvas, np.concatenate(found)[: self.most_truths]

    def _one(
        self, number: int, target: Shape, rng: np.random.Generator, quarter: int | None = None
    ) -> tuple[Pixels, Labels, View, tuple[int, int]]:
        """A picture through a view, its objects, the view and the picture's size."""
        rule, pixels, truths = self.recipe.augmentation, self.cache.read(number), self.images.truths[number]
        size = (pixels.shape[1], pixels.shape[0])
        view = draw(rule, size, target, rng)
        if quarter is not None:
            view = cornered(view, size, quarter)
        dialect, most = self.graph.dialect, self.most_truths
        truths = place_truths(truths, view, size, target, dialect=dialect, most=most, rng=rng)
        shown = render(pixels, view, target, grey=rule.canvas)
        if rule.blur or rule.noise:
            shown = blur_and_noise(rule, shown, truths, rng)
        return shown, truths, view, size

    def collate(self, truths: Sequence[NDArray[np.float32]]) -> Tensor:
        """[B, T, 5]; rows behind an image's last object have class -1."""
        rows = np.zeros((len(truths), max(map(len, truths)), 5), np.float32)
        rows[:, :, 0] = -1
        for row, labels in zip(rows, truths, strict=True):
            row[: len(labels)] = labels
        return torch.from_numpy(rows)

    @property
    def _truths(self) -> Iterable[bytes]:
        return (truths.tobytes() for truths in self.images.truths)


@dataclass(frozen=True)
class ClassSamples(Samples):
    """Pictures of one class each."""

    images: ClassSplit

    def _drawn(self, number: int, target: Shape, rng: np.random.Generator) -> Sample:
        """A crop, and what its classes are to be (data.c fill_truth_smooth); a picture without a class has zeros.

        Of several classes whose labels a path holds, as `caterpillar` holds `cat`, the first in the list is taught, by
        which accuracy is measured, too. Darknet teaches all of them, and says "Too many or too few labels".
        """
        rule, classes = self.recipe.augmentation, len(self.images.names)
        truth = np.zeros(classes, np.float32)
        kind = self.images.classes[number]
        if kind >= 0:
            truth[:] = rule.smooth / max(classes - 1, 1)
            truth[kind] = 1 - rule.smooth
        return crop(rule, self.cache.read(number), target, rng), truth

    def collate(self, truths: Sequence[NDArray[np.float32]]) -> Tensor:
        """[B, K]."""
        return torch.from_numpy(np.stack(truths))

    @property
    def _truths(self) -> Iterable[bytes]:
        return (kind.to_bytes(4, "little", signed=True) for kind in self.images.classes)


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """Numbers of the images in the order of an epoch."""
    return np.random.default_rng((seed, 0, epoch)).permutation(count)
