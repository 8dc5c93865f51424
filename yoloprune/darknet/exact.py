"""The grid that a layer's weights lie on exactly, if there is one: what was quantized is found, whoever did it.

A filter's scale isn't in its values: these are scale * q in float32, of which each says the scale but for its own
rounding. With the right q all of them leave an interval, and a float32 in it gives every value again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from yoloprune.darknet.grid import LEAST_BITS, MOST_BITS, Grid

_MOST: Final = 2 ** (MOST_BITS - 1) - 1
"""The largest q."""
_ROUNDING: Final = 2.0**-22
"""How far, as a share, a value may lie off q times a scale that another value tells: both are rounded by 2^-24."""
_AT_ONCE: Final = 1 << 18
"""Weights that are looked at together."""


def exact_codes(weight: NDArray[np.float32]) -> tuple[Grid, NDArray[np.uint8]] | None:
    """The grid of fewest bytes and the codes [N, D] with `grid.values(codes)` bit by bit `weight`.

    None where there is no such grid, or floats are as small.

    weight: [N, D].
    """
    there = int(np.count_nonzero(weight))
    if not there or not all(np.isfinite(part).all() for part in _parts(weight)):
        return None
    found = [grid for grid in (_uniform(weight), _codebook(weight)) if grid is not None]
    grid = min(found, key=lambda each: _bytes(each, there), default=None)
    if grid is None or _bytes(grid, there) >= 4 * there:
        return None
    codes = _codes(grid, weight)
    return None if codes is None else (grid, codes)


def _bytes(grid: Grid, there: int) -> float:
    """With so many values that aren't 0."""
    entries = 2**grid.bits - 1 if grid.scales is None else len(grid.scales)
    return 4 * entries + grid.bits / 8 * there


def _rows(weight: NDArray[np.float32]) -> Iterator[slice]:
    step = max(1, _AT_ONCE // weight.shape[1])
    return (slice(start, start + step) for start in range(0, len(weight), step))


def _parts(weight: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    return (weight[rows] for rows in _rows(weight))


def _codes(grid: Grid, weight: NDArray[np.float32]) -> NDArray[np.uint8] | None:
    """None unless each value is on the grid; a negative zero is not."""
    codes = np.empty(weight.shape, np.uint8)
    for rows in _rows(weight):
        part = np.ascontiguousarray(weight[rows])
        own = grid if grid.scales is None else replace(grid, scales=grid.scales[rows])
        codes[rows] = own.nearest(part)
        if not np.array_equal(own.values(codes[rows]).view(np.uint32), part.view(np.uint32)):
            return None
    return codes


def _codebook(weight: NDArray[np.float32]) -> Grid | None:
    """Of the values that there are, as few bits as tell them apart."""
    seen = np.zeros(0, np.float32)
    for part in _parts(weight):
        seen = np.union1d(seen, part)
        if len(seen) > 2**MOST_BITS:
            return None
    entries = seen[seen != 0]
    bits = max(LEAST_BITS, len(entries).bit_length())
    if bits > MOST_BITS:
        return None
    book = np.zeros(2**bits, np.float32)
    book[1 : len(entries) + 1] = entries
    return Grid(bits, codebook=book)


def _uniform(weight: NDArray[np.float32]) -> Grid | None:
    """With the largest scales that there can be, so the least q."""
    found = []
    for part in _parts(weight):
        scales = _scales(np.abs(part))
        if scales is None:
            return None
        found.append(scales)
    scales = np.concatenate(found)
    most = max(_largest(np.abs(weight[rows]), scales[rows]) for rows in _rows(weight))
    bits = max(LEAST_BITS, most.bit_length() + 1)
    if (scales > np.finfo(np.float32).max / np.float32(2 ** (bits - 1) - 1)).any():
        return None
    return Grid(bits, scales=scales)


def _largest(sizes: NDArray[np.float32], scales: NDArray[np.float32]) -> int:
    tops = sizes.max(1)
    return int(np.rint(np.divide(tops, scales, out=np.zeros_like(tops), where=scales > 0)).max())


def _scales(sizes: NDArray[np.float32]) -> NDArray[np.float32] | None:
    """For each row [R, D] of sizes a scale of which all are multiples, 0 where all are 0; None if one has none.

    The least size is tried as 1, 2, 3 ... times the scale, as long as the largest can be a multiple, too.
    """
    exact = np.where(sizes > 0, sizes, np.nan).astype(np.float64)
    scales = np.zeros(len(sizes), np.float32)
    left = np.flatnonzero(sizes.any(1))
    least, top = np.nanmin(exact[left], 1), np.nanmax(exact[left], 1)
    for times in range(1, _MOST + 1):
        if not len(left):
            return scales
        trial = (least / times)[:, None]
        q = np.rint(exact[left] / trial)
        near = (np.abs(q * trial - exact[left]) <= _ROUNDING * exact[left]) | np.isnan(q)
        near &= ~(q > _MOST)
        fits = np.flatnonzero(near.all(1))
        scales[left[fits]] = _scale(sizes[left[fits]], q[fits])
        missing = scales[left] == 0
        if (missing & (top * times > (_MOST + 0.5) * least)).any():
            return None
        left, least, top = left[missing], least[missing], top[missing]
    return None if len(left) else scales


def _scale(sizes: NDArray[np.float32], q: NDArray[np.float64]) -> NDArray[np.float32]:
    """For each row the float32 that gives all sizes as its multiples q, NaN where there is none; else 0."""
    exact = sizes.astype(np.float64)
    below = (exact + np.nextafter(sizes, np.float32(0))) / 2
    above = (exact + np.nextafter(sizes, np.float32(np.inf))) / 2
    middle = ((np.nanmax(below / q, 1) + np.nanmin(above / q, 1)) / 2).astype(np.float32)
    multiples = np.nan_to_num(q).astype(np.float32)
    found = np.zeros(len(sizes), np.float32)
    for trial in (middle, np.nextafter(middle, np.float32(0)), np.nextafter(middle, np.float32(np.inf))):
        right = (trial[:, None] * multiples == sizes).all(1) & (trial >= np.finfo(np.float32).tiny)
        found = np.where(right & (found == 0), trial, found)
    return found
