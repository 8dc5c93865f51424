"""Mini-batches made ahead by processes (torch's DataLoader)."""

from __future__ import annotations

import math
import signal
import warnings
from collections.abc import Generator, Iterable
from itertools import count

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from yoloprune.detect.image import Pixels
from yoloprune.errors import InputError
from yoloprune.train.samples import CAN_FORK, Samples, shared_bytes

_AHEAD = 2
"""Mini-batches that each process makes while one is in use."""
_Made = tuple[tuple[int, ...], tuple[NDArray[np.float32], ...]] | InputError
"""Shape of the pixels and truths."""


def batches(
    samples: Samples, starts: Iterable[int], size: int, workers: int
) -> Generator[tuple[Tensor, Tensor], None, None]:
    """For each start, the samples at `size` indexes from there: uint8 [B, h, w, C] and truths (`Samples.collate`).

    The pixels are good until the next are asked for. What they hold does not depend on `workers`, the processes that
    make them (0: none, made when asked for). Errors as `Samples.at`, in order; InputError too if a process dies.

    The processes are forked, which takes hundredths of a second where starting Python anew would take seconds. They end
    with the generator, and some seconds after this process if it is killed. Systems that can't fork do without.
    """
    workers = workers if CAN_FORK else 0
    dataset = _MiniBatches(samples, size, max(workers * _AHEAD, 1) + 1)
    with warnings.catch_warnings():  # of more processes than cores, and of forking beside threads: see _begin_worker
        warnings.filterwarnings("ignore", "This DataLoader will create")
        warnings.filterwarnings("ignore", "This process .* is multi-threaded")
        made = iter(
            DataLoader(
                dataset,
                batch_size=None,
                sampler=enumerate(starts),
                num_workers=workers,
                multiprocessing_context="fork" if workers else None,
                prefetch_factor=_AHEAD if workers else None,
                worker_init_fn=_begin_worker,
                collate_fn=lambda made: made,
            )
        )
    try:
        for number in count():
            try:
                found: _Made = next(made)
            except StopIteration:
                return
            except RuntimeError as error:  # torch's, and its text names the signal
                found = InputError(f"a process that prepares pictures ended ({error}); --workers 0 does without")
            if isinstance(found, InputError):
                raise found
            shape, truths = found
            yield torch.from_numpy(dataset.pixels(number, shape)), samples.collate(truths)
    finally:
        del made  # which ends the processes, also where an error that is kept would keep it


def network_input(pixels: Tensor, device: torch.device) -> Tensor:
    """uint8 [B, h, w, C] -> float32 [B, C, h, w] in 0..1 on the device, in memory channels last."""
    if device.type == "cuda":
        pixels = pixels.pin_memory()  # from there it goes over while the GPU is still at work
    return pixels.to(device, non_blocking=True).permute(0, 3, 1, 2).float().mul_(1 / 255)


class _MiniBatches(Dataset[_Made]):
    """By number and first index. Pixels lie in memory that processes forked later share, `slots` mini-batches in turn.

    DataLoader itself would make, map and clear new memory in /dev/shm for each, which takes a fifth of the time of
    making it, and breaks off where that folder is as small as containers often have it.
    """

    def __init__(self, samples: Samples, size: int, slots: int) -> None:
        self._samples, self._size = samples, size
        largest = samples.recipe.sizes.largest(samples.graph.net.input)
        self._slots = shared_bytes(slots * size * largest.size).reshape(slots, -1)

    def pixels(self, number: int, shape: tuple[int, ...]) -> Pixels:
        """Where those of mini-batch `number` lie: uint8 [B, h, w, C]."""
        return self._slots[number % len(self._slots), : math.prod(shape)].reshape(shape)

    def __getitem__(self, asked: tuple[int, int]) -> _Made:
        number, first = asked
        try:
            made = [self._samples.at(index) for index in range(first, first + self._size)]
        except InputError as error:
            return error  # raised here, its text would reach the user within a traceback
        pixels, truths = zip(*made, strict=True)
        shape = (self._size, *pixels[0].shape)
        np.stack(pixels, out=self.pixels(number, shape))
        return shape, truths


def _begin_worker(number: int) -> None:
    """Threads do not outlive a fork. OpenCV's are the only ones that making pictures would use."""
    cv2.setNumThreads(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all, and who trains finishes its update first
