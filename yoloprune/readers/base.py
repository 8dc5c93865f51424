"""What a reader is: somebody else's program that runs our files, and so says whether they are right."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from yoloprune.errors import ReaderError as ReaderError

Floats = NDArray[np.float32]


class Reader(Protocol):
    """One reader; a module of this package with these functions is one.

    Every call works in a process of its own, so that a crash or an exit() of the reader's library ends that process
    only and becomes a ReaderError. Layers are counted as in the cfg: the first section after [net] is 0.
    """

    def available(self) -> str | None:
        """None, or the reason why this reader cannot be used on this machine."""
        ...

    def loads(self, cfg: Path, weights: Path) -> str | None:
        """None if the reader loads the two files, else its reason."""
        ...

    def head_inputs(self, cfg: Path, weights: Path, inputs: Floats, heads: Sequence[int]) -> dict[int, Floats]:
        """The tensor that enters each of the layers `heads`, so the output of the layer before it, [B, C, H, W].

        inputs: [B, C, H, W], RGB in 0..1. Each image runs alone. A head may be one past the last layer: then it is
        the output of the net. Vectors come as [B, C, 1, 1]. Raises ReaderError.
        """
        ...

    def race(
        self, files: Sequence[Sequence[Path]], images: Sequence[Floats], rounds: int, threads: int = 1
    ) -> list[list[float]]:
        """Seconds of a forward pass of each network (cfg, weights), `rounds` times in turns [n][rounds].

        images: what each takes, [C, H, W]. On one thread of the processor: that is what passes where nothing else
        runs; on several by the clock. Raises ReaderError.
        """
        ...

    def layer_seconds(self, cfgs: Sequence[str], floats: Sequence[int]) -> list[float]:
        """For each cfg text, the time in seconds that its last section takes on one thread; weights are random.

        The least of several turns: what else the machine does only adds. floats: how many each cfg's .weights file
        holds. Raises ReaderError.
        """
        ...
