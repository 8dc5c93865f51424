"""Which of a .weights file's floats are weights, and which of them have a grid."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from yoloprune.darknet import weights as weights_file
from yoloprune.darknet.grid import Grid
from yoloprune.darknet.layers.base import Layer, TensorSpec
from yoloprune.darknet.weights import Header
from yoloprune.errors import InputError
from yoloprune.formats.base import Codes, Floats


def arrays_of(
    layers: Sequence[Layer], header: Header, floats: NDArray[np.float32], grids: Mapping[int, Grid]
) -> tuple[Floats | Codes, ...]:
    """The payload of a .weights file, cut into arrays to pack; neighbours of a kind are one.

    Parameters
    ----------
    floats
        What is behind the header, just as many as the layers need.
    grids
        By a layer's index; each value of its `weight` is on the grid, bit by bit, else an InputError.
    """
    for layer in layers:
        if layer.index in grids and not any(_gridded(spec) for spec in layer.tensors()):
            raise ValueError(f"{layer} has no weights for a grid")
    return tuple(_arrays_of(layers, header, floats, grids))


def _arrays_of(
    layers: Sequence[Layer], header: Header, floats: NDArray[np.float32], grids: Mapping[int, Grid]
) -> Iterator[Floats | Codes]:
    def kind(place: tuple[Layer, TensorSpec, slice]) -> tuple[bool, int | None]:
        layer, spec, _ = place
        return spec.decay, layer.index if layer.index in grids and _gridded(spec) else None

    stored = (place for place in weights_file.places(layers) if place[2].start < place[2].stop)
    for (weights, gridded), places in groupby(stored, kind):
        first, *rest = places
        values = floats[first[2].start : (rest[-1] if rest else first)[2].stop]
        if gridded is None:
            yield Floats(values, weights)
        else:
            yield _codes(first[0], first[1], header, values, grids[gridded])


def _gridded(spec: TensorSpec) -> bool:
    return spec.name == "weight" and spec.decay


def _codes(layer: Layer, spec: TensorSpec, header: Header, values: NDArray[np.float32], grid: Grid) -> Codes:
    rows = layer.storage.rows(spec)
    by_column = weights_file.transposed(layer, spec, header)
    weight = values.reshape(-1, rows).T if by_column else values.reshape(rows, -1)
    if grid.scales is not None:
        grid = replace(grid, scales=grid.scales[:rows])
    if not np.isfinite(weight).all():
        raise InputError(f"{layer}, {spec.name}: expected finite values for a grid, found others")
    codes = grid.nearest(weight)
    off = grid.values(codes).view(np.uint32) != np.ascontiguousarray(weight).view(np.uint32)
    if off.any():
        expected = f"expected values on its grid of {grid.bits} bits"
        raise InputError(f"{layer}, {spec.name}: {expected}, found {np.count_nonzero(off)} of {off.size} beside it")
    return Codes(np.ascontiguousarray(codes.T if by_column else codes).ravel(), grid, by_column)
