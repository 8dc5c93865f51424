"""What a format packs and gives back: a network's files, as Darknet reads them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from yoloprune.darknet.grid import Grid


@dataclass(frozen=True, eq=False)
class Floats:
    """Floats that follow each other in a .weights file."""

    values: NDArray[np.float32]
    """[M], in the order of the file; bits are bits, also of NaN."""
    weights: bool = False
    """Whether it is a layer's weights, or its biases and statistics: numbers of another kind."""


@dataclass(frozen=True, eq=False)
class Codes:
    """The same as codes of a grid."""

    codes: NDArray[np.uint8]
    """[M], in the order of the file."""
    grid: Grid
    """Of its scales as many as the file has filters."""
    by_column: bool = False
    """Whether the matrix is stored transposed: neighbours are of different filters."""


@dataclass(frozen=True, eq=False)
class Files:
    """A network's files before packing."""

    cfg: bytes
    names: bytes | None
    header: bytes
    """Of the .weights file, 16 or 20 bytes."""
    arrays: tuple[Floats | Codes, ...]
    """What is behind it, in order."""


class Unpacked(Protocol):
    """A network's files after packing."""

    @property
    def cfg(self) -> bytes:
        """The .cfg file."""

    @property
    def names(self) -> bytes | None:
        """The .names file, if one was packed."""

    def weights(self) -> Iterator[bytes]:
        """The .weights file, piece by piece. InputError where its values are damaged."""


class Format(Protocol):
    """A module that is a format, both directions side by side."""

    def write(self, path: str | Path, files: Files, *, force: bool = False) -> int:
        """Pack into the file at `path`, whole or not at all. Bytes written."""

    def read(self, path: str | Path) -> Unpacked:
        """What was packed. InputError, with the byte, for a damaged or hostile file."""
