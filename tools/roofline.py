"""How fast a device could run a network at best: by its arithmetic or its memory, whichever takes a layer longer.

Both rates are measured: a product of large float32 matrices, and a copy of a large array, bytes read and written. What
stays in a cache from layer to layer, as small networks do on a CPU, can be faster than that.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch

from yoloprune.darknet.layers.join import Route
from yoloprune.darknet.model import Graph

_SIDE: Final = {"cpu": 2048, "cuda": 8192}
_COPIED: Final = {"cpu": 1 << 28, "cuda": 1 << 32}
"""Rows of a matrix, bytes of an array: far beyond any cache."""
_SECONDS: Final = 0.5
"""For which each is repeated."""


@dataclass(frozen=True)
class Roofline:
    """What a device does a second."""

    flops: float
    bytes: float

    @classmethod
    def of(cls, device: str) -> Roofline:
        """Measured, with as many threads as PyTorch has."""
        kind = torch.device(device).type
        side = _SIDE[kind]
        a, b = torch.randn(2, side, side, device=device)
        product = torch.empty_like(a)
        array = torch.randn(_COPIED[kind] // 4, device=device)
        copy = torch.empty_like(array)
        return cls(
            2 * side**3 / seconds(lambda: torch.mm(a, b, out=product), device),
            2 * _COPIED[kind] / seconds(lambda: copy.copy_(array), device),
        )

    def images(self, graph: Graph) -> float:
        """Images a second of a network: each layer reads its sources once and writes its output once, in float32.

        A route costs nothing, as what is joined could have been written side by side; nor do weights, in large batches.
        """
        return 1 / sum(
            max(
                layer.flops / self.flops,
                4 * (sum(shape.size for shape in layer.source_shapes) + layer.out.size) / self.bytes,
            )
            for layer in graph.layers
            if not isinstance(layer, Route)
        )


def seconds(work: Callable[[], object], device: str) -> float:
    """What it takes once, on average, after one to warm up."""
    work()
    done = 0
    _finish(device)
    started = time.perf_counter()
    while (taken := time.perf_counter() - started) < _SECONDS:
        work()
        _finish(device)
        done += 1
    return taken / done


def _finish(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
