"""What training looks at: an endless, shuffled row of augmented pictures, each a function of its place in it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from yoloprune.darknet.data import Labels, Split
from yoloprune.darknet.model import Graph
from yoloprune.detect.image import Pixels, read_pixels
from yoloprune.errors import InputError
from yoloprune.train.augment import Augmentation, draw, place_truths, render


@dataclass
class PixelCache:
    """Decoded pictures, as many as fit in `limit` bytes; the first come stay, since every one is as likely again."""

    limit: int
    channels: int
    _kept: dict[Path, Pixels] = field(default_factory=dict)
    _bytes: int = 0
    _lock: Lock = field(default_factory=Lock)

    def read(self, path: Path) -> Pixels:
        """uint8 [H, W, C]. InputError for what can't be decoded."""
        pixels = self._kept.get(path)
        if pixels is None:
            pixels = read_pixels(path, self.channels)
            with self._lock:
                if path not in self._kept and self._bytes + pixels.nbytes <= self.limit:
                    self._kept[path] = pixels
                    self._bytes += pixels.nbytes
        return pixels


@dataclass(frozen=True)
class Samples:
    """The row: every picture once an epoch, each epoch in another order.

    Place and seed decide what comes there, so it does not depend on workers or on where a run was taken up again.
    """

    images: Split
    graph: Graph
    augmentation: Augmentation
    seed: int
    cache: PixelCache

    @classmethod
    def of(cls, images: Split, graph: Graph, augmentation: Augmentation, seed: int, cache_bytes: int) -> Samples:
        """InputError if there are no images or the network is no detector."""
        if not images.images:
            raise InputError("expected images to train on, found none")
        if not graph.detection_heads:
            raise InputError("expected a network with detection heads for images with boxes", file=graph.cfg.file)
        return cls(images, graph, augmentation, seed, PixelCache(cache_bytes, graph.net.input.c))

    @property
    def most_truths(self) -> int:
        """Objects of a picture that count: the last head's `max`."""
        training = getattr(self.graph.detection_heads[-1], "training", None)
        return training.max_truths if training else self.graph.dialect.max_truths

    def at(self, place: int) -> tuple[Pixels, Labels]:
        """Picture uint8 [h, w, C] in RGB, of the network's size, and its objects [T, 5]."""
        count = len(self.images.images)
        number = int(_order(self.seed, place // count, count)[place % count])
        rng = np.random.default_rng((self.seed, 1, place))
        target = self.graph.net.input
        pixels = self.cache.read(self.images.images[number])
        size = (pixels.shape[1], pixels.shape[0])
        view = draw(self.augmentation, size, target, rng)
        truths = place_truths(
            self.images.truths[number],
            view,
            size,
            target,
            dialect=self.graph.dialect,
            most=self.most_truths,
            rng=rng,
        )
        return render(pixels, view, target, grey=self.augmentation.canvas), truths


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """Numbers of the images in the order of an epoch."""
    return np.random.default_rng((seed, 0, epoch)).permutation(count)
