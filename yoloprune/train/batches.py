"""Mini-batches made ahead by threads: OpenCV lets go of the interpreter while it works."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from yoloprune.train.samples import Sample, Samples

_AHEAD = 3
"""Mini-batches being made while one is in use."""


def batches(
    samples: Samples, firsts: Iterable[int], size: int, workers: int
) -> Generator[tuple[Tensor, Tensor], None, None]:
    """For each first place, the samples at `size` places from there: uint8 [B, h, w, C] and truths (`Samples.join`).

    What they hold does not depend on `workers` (0: none, made when asked for). Errors as `Samples.at`, in order.
    """
    if workers == 0:
        for first in firsts:
            yield _joined(samples, [samples.at(place) for place in range(first, first + size)])
        return
    pool = ThreadPoolExecutor(workers, thread_name_prefix="samples")
    queue: deque[list[Future[Sample]]] = deque()
    try:
        for first in firsts:
            queue.append([pool.submit(samples.at, place) for place in range(first, first + size)])
            if len(queue) > _AHEAD:
                yield _joined(samples, [future.result() for future in queue.popleft()])
        while queue:
            yield _joined(samples, [future.result() for future in queue.popleft()])
    finally:
        pool.shutdown(cancel_futures=True)


def network_input(pixels: Tensor, device: torch.device) -> Tensor:
    """uint8 [B, h, w, C] -> float32 [B, C, h, w] in 0..1 on the device, in memory channels last."""
    return pixels.to(device, non_blocking=True).permute(0, 3, 1, 2).float().mul_(1 / 255)


def _joined(samples: Samples, made: list[Sample]) -> tuple[Tensor, Tensor]:
    pixels, truths = zip(*made, strict=True)
    return torch.from_numpy(np.stack(pixels)), samples.join(truths)
