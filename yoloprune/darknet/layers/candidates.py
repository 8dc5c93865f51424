"""What a detection head hands on: boxes that may be objects, before non-maximum suppression."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor


@dataclass(frozen=True)
class Candidates:
    """N boxes over a batch of B images, and M pairs of box and class, each more probable than the head's threshold."""

    image: Tensor
    """[N] int64: index in the batch, 0..B-1."""
    boxes: Tensor
    """[N, 4] float32: centre x, centre y, width, height as fractions of the network's input."""
    box: Tensor
    """[M] int64, ascending: which box, 0..N-1."""
    classes: Tensor
    """[M] int64."""
    probs: Tensor
    """[M] float32: objectness times class probability."""

    @staticmethod
    def join(parts: Sequence[Candidates]) -> Candidates:
        """The candidates of several heads as one, in the order of the heads. At least one part."""
        before = accumulate((len(part.boxes) for part in parts), initial=0)
        return Candidates(
            image=torch.cat([part.image for part in parts]),
            boxes=torch.cat([part.boxes for part in parts]),
            box=torch.cat([part.box + start for part, start in zip(parts, before, strict=False)]),
            classes=torch.cat([part.classes for part in parts]),
            probs=torch.cat([part.probs for part in parts]),
        )
