"""Mini-batches made ahead by threads: OpenCV lets go of the interpreter while it works."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from yoloprune.darknet.data import Labels
from yoloprune.detect.image import Pixels
from yoloprune.train.samples import Samples

_AHEAD = 3
"""Mini-batches being made while one is in use."""


def batches(
    samples: Samples, start: int, stop: int, size: int, workers: int
) -> Generator[tuple[Tensor, Tensor], None, None]:
    """The samples at places start..stop, `size` at a time: uint8 [B, h, w, C] and truths [B, T, 5].

    Rows behind an image's last object have class -1. What they hold does not depend on `workers` (0: none, made when
    asked for). Errors as `Samples.at`, in order.
    """
    if workers == 0:
        for first in range(start, stop, size):
            yield _joined([samples.at(place) for place in range(first, min(first + size, stop))])
        return
    pool = ThreadPoolExecutor(workers, thread_name_prefix="samples")
    queue: deque[list[Future[tuple[Pixels, Labels]]]] = deque()
    try:
        for first in range(start, stop, size):
            queue.append([pool.submit(samples.at, place) for place in range(first, min(first + size, stop))])
            if len(queue) > _AHEAD:
                yield _joined([future.result() for future in queue.popleft()])
        while queue:
            yield _joined([future.result() for future in queue.popleft()])
    finally:
        pool.shutdown(cancel_futures=True)


def network_input(pixels: Tensor, device: torch.device) -> Tensor:
    """uint8 [B, h, w, C] -> float32 [B, C, h, w] in 0..1 on the device, in memory channels last."""
    return pixels.to(device, non_blocking=True).permute(0, 3, 1, 2).float().mul_(1 / 255)


def _joined(made: list[tuple[Pixels, Labels]]) -> tuple[Tensor, Tensor]:
    most = max(len(labels) for _, labels in made)
    truths = np.zeros((len(made), most, 5), np.float32)
    truths[:, :, 0] = -1
    for row, (_, labels) in zip(truths, made, strict=True):
        row[: len(labels)] = labels
    return torch.from_numpy(np.stack([pixels for pixels, _ in made])), torch.from_numpy(truths)
