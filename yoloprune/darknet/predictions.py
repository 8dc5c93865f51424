"""What networks say of images: flat tables, one row a detection (or an image), each column one tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Self, TypeVar

import torch
from torch import Tensor


@dataclass(frozen=True)
class Predictions:
    """M rows; every field of a subclass, too, is a column of M rows, all on one device."""

    image: Tensor
    """[M] int64: number of the image, in its batch or its list."""

    def rows(self, which: Tensor) -> Self:
        """Rows number `which` [N] int64, in that order."""
        return self._mapped(lambda column: column.index_select(0, which))

    def by_image(self) -> Self:
        """In order of the images; rows of one image stay as they are."""
        return self.rows(self.image.argsort(stable=True))

    def replaced(self, images: Sequence[int], by: Self) -> Self:
        """The rows of all other images, and behind them those of `by`."""
        others = torch.isin(self.image, torch.tensor(images), invert=True).nonzero().squeeze(1)
        return join([self.rows(others), by])

    def cpu(self) -> Self:
        """On the CPU."""
        return self._mapped(Tensor.cpu)

    def _mapped(self, change: Callable[[Tensor], Tensor]) -> Self:
        return replace(self, **{name: change(column) for name, column in vars(self).items()})


_Table = TypeVar("_Table", bound=Predictions)


def join(parts: Iterable[_Table]) -> _Table:
    """The rows of all tables, at least one, as one."""
    first, *others = parts
    columns = ((name, [column, *(vars(each)[name] for each in others)]) for name, column in vars(first).items())
    return replace(first, **{name: torch.cat(column) for name, column in columns})


@dataclass(frozen=True)
class Detections(Predictions):
    """M boxes, each of one class: a box of a head that may be several stands in as many rows, one behind the other."""

    classes: Tensor
    """[M] int64, of one box ascending."""
    probs: Tensor
    """[M] float32: objectness times class probability."""
    boxes: Tensor
    """[M, 4] float32: centre x, centre y, width, height as fractions of the network's input; after `postprocess`, of
    the image."""

    def over(self, thresh: float) -> Self:
        """Those more probable than `thresh`, as float32."""
        return self.rows((self.probs > thresh).nonzero().squeeze(1))
