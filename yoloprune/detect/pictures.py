"""A list of pictures as a network's input, batch by batch."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor

from yoloprune.darknet.layers.base import Shape
from yoloprune.darknet.model import Graph
from yoloprune.detect.image import read_pixels
from yoloprune.detect.resize import Fit, Planes, fit_into

PIXELS: Final = 16 * 320 * 320
"""Of a batch's input on a CPU: larger ones fall out of the cache, smaller ones wait for each layer's start."""
ALIVE: Final = 1 << 30
"""Bytes of a batch's outputs on other devices, which is less than any GPU has and enough to keep it at work."""
MEMORY: Final = 2 << 30
"""Bytes of decoded input that a CPU keeps for the next measurement; pictures beyond that are decoded anew."""


_AHEAD: Final = 2
"""Batches being decoded while one is in use."""


@dataclass(frozen=True)
class Batch:
    """Network input of some pictures."""

    inputs: Tensor
    """[B, C, H, W], 0..1."""
    numbers: Sequence[int]
    """Which of the list's pictures these are."""
    sizes: Sequence[tuple[int, int]]
    """Width and height of each picture before it was resized."""


class Pictures:
    """Pictures as network input; decoded once, as many of the first ones as fit in memory."""

    def __init__(
        self,
        paths: Sequence[Path],
        graph: Graph,
        fit: Fit,
        device: str | torch.device = "cpu",
        batch: int | None = None,
    ) -> None:
        self.paths = tuple(paths)
        self.fit = fit
        self._shape = graph.net.input
        self.device = torch.device(device)
        self.part = max(len(paths) // 4, 1)
        """A quarter, after which a measurement may be given up: no batch is larger, and no `Measure` waits for more."""
        self._batch = batch or min(batch_for(graph, device), self.part)
        self._numbers: Sequence[int] = range(len(paths))
        self._picture = 4 * self._shape.size
        """Bytes of one as network input."""
        self._room = room_on(self.device, MEMORY)
        self._kept: list[Batch] = []

    def __len__(self) -> int:
        return len(self.paths)

    def select(self, order: Sequence[int]) -> Pictures:
        """These of the pictures, in this order; what is kept in memory goes to them. Batches keep their numbers."""
        pictures = copy(self)
        pictures.paths = tuple(self.paths[number] for number in order)
        pictures._numbers = [self._numbers[number] for number in order]
        pictures._kept = self._kept_in(order)
        self._kept = []
        return pictures

    def _kept_in(self, order: Sequence[int]) -> list[Batch]:
        """What is kept, in another order, unless it isn't all or there is no room for both."""
        inputs = [each for batch in self._kept for each in batch.inputs]
        if len(inputs) < len(self) or 2 * len(inputs) * self._picture > self._room:
            return []
        sizes = [size for batch in self._kept for size in batch.sizes]
        batches = []
        for start in range(0, len(order), self._batch):
            some = order[start : start + self._batch]
            together = torch.stack([inputs[number] for number in some])
            together = together.contiguous(memory_format=torch.channels_last)
            numbers = [self._numbers[number] for number in some]
            batches.append(Batch(together, numbers, [sizes[number] for number in some]))
        return batches

    def __iter__(self) -> Iterator[Batch]:
        yield from self._kept
        number = len(self._kept)
        left = self.paths[number * self._batch :]
        for inputs, sizes in load_batches(left, self._shape, self.fit, self._batch):
            numbers = self._numbers[number * self._batch :][: len(sizes)]
            batch = Batch(inputs.to(self.device, memory_format=torch.channels_last), numbers, sizes)
            number += 1
            # Of two passes at a time the one that is ahead keeps.
            if number > len(self._kept) and number * self._batch * self._picture <= self._room:
                self._kept.append(batch)
            yield batch


def batch_for(graph: Graph, device: str | torch.device) -> int:
    """How many pictures are best run at a time: a power of two up to 64."""
    _, h, w = graph.net.input
    fitting = PIXELS // (h * w) if torch.device(device).type == "cpu" else ALIVE // (4 * graph.peak_activations)
    return 1 << min(max(fitting, 1).bit_length() - 1, 6)


def room_on(device: str | torch.device, of_cpu: int) -> int:
    """Bytes that may be kept there only to save time: `of_cpu` on a CPU, a sixteenth of a GPU's memory."""
    if torch.device(device).type != "cuda":
        return of_cpu
    return torch.cuda.get_device_properties(device).total_memory // 16


def load_batches(
    paths: Sequence[Path], shape: Shape, fit: Fit, batch: int
) -> Iterator[tuple[Tensor, list[tuple[int, int]]]]:
    """Pictures as float32 tensors [B, *shape], `batch` at a time, in order, and their own (width, height).

    The next ones are decoded while one is in use, by a thread a core. Errors as `read_pixels`; the first picture's
    comes first.
    """

    def load(path: Path, out: Planes) -> tuple[int, int]:
        pixels = read_pixels(path, shape.c)
        fit_into(out, pixels, fit)
        return pixels.shape[1], pixels.shape[0]

    # OpenCV and NumPy let go of the interpreter while they work, so threads are enough.
    pool = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="pictures")
    pending: deque[tuple[Planes, list[Future[tuple[int, int]]]]] = deque()
    try:
        for start in range(0, len(paths) + _AHEAD * batch, batch):
            some = paths[start : start + batch]
            if some:
                inputs = np.empty((len(some), *shape), np.float32)
                pending.append((inputs, [pool.submit(load, path, out) for path, out in zip(some, inputs, strict=True)]))
            if start >= _AHEAD * batch:
                inputs, sizes = pending.popleft()
                yield torch.from_numpy(inputs), [size.result() for size in sizes]
    finally:
        pool.shutdown(cancel_futures=True)
