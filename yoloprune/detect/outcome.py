"""What a measurement found, image by image, and how sure a loss is that was measured on so many images.

Paired bootstrap (Efron 1979): the same images drawn with replacement for both networks, the interval between two
quantiles of the difference. What is common to both, such as hard pictures, cancels out.
"""

from __future__ import annotations

from typing import Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

RESAMPLES: Final = 1000
LEVEL: Final = 0.90
"""Share of the resamples whose loss lies within an interval."""

MISSED: Final = 0.3
"""Of what a network misses in an image, the share that another like it might find."""


class Outcome(Protocol):
    """A network's results on I images, from which accuracy can be counted over any of them."""

    @property
    def accuracy(self) -> float:
        """The figure that steers pruning, on every image once."""

    @property
    def contributions(self) -> NDArray[np.float64]:
        """[I]: what each image adds to the accuracy, and `MISSED` of what it could add but doesn't."""

    def resampled(self, counts: Tensor) -> NDArray[np.float64]:
        """[R]: that figure on each of the `resamples`, computed on the device where these are."""


def resamples(images: int, seed: int) -> Tensor:
    """[R, I]: how often each of R draws of as many images as there are, with replacement, has drawn image i."""
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.multinomial(images, np.full(images, 1 / images), RESAMPLES).astype(np.float32))


def interval(losses: NDArray[np.float64]) -> tuple[float, float]:
    """Lower and upper end of the middle `LEVEL` of resampled losses [R]."""
    low, high = np.quantile(losses, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
