"""Arrays of numbers <-> bytes of streams: where values are not 0, and the values themselves.

An array is coded in blocks of 2^20 values, each for itself. A value of which every bit is 0 can be left out: its place
is known by a mask or by gaps. The others are codes, or floats, whose bits are turned left by one, so that the exponent
is the highest byte and the sign the lowest bit, and split into four planes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from yoloprune.darknet.grid import Grid
from yoloprune.formats.base import Codes, Floats
from yoloprune.formats.streams import Bytes, Decoder, compressed_size

_Coded = NDArray[np.unsignedinteger[Any]]
"""Bits of floats, or codes."""
HEAD, MASK, GAPS, CODES, PARAMETERS, WEIGHTS = 0, 1, 2, 3, 4, 8
"""Streams; of the last two, planes of floats, there are four each, the lowest byte first."""
STREAMS: Final = 12
BLOCK: Final = 1 << 20
_ESCAPE: Final = 255
"""A gap of so many zeros, that goes on."""
_INFINITY: Final = 0x7F800000
_NORMAL: Final = 0x00800000
"""Bits of the least float that is no finite number of at least 0."""
_FEW: Final = 100
"""Zeros are left out where at least one in so many values is one."""

ALL, BY_MASK, BY_GAPS = 0, 1, 2
"""Which values are there: all; those of the mask; those behind the gaps."""
PLAIN, WEIGHT, UNIFORM, UNIFORM_BY_COLUMN, CODEBOOK = 0, 1, 2, 3, 4
"""What values are: floats, as parameters or as weights; codes, with a scale for each filter or a codebook."""


@dataclass(frozen=True)
class Entry:
    """How an array is stored."""

    form: int
    where: int
    bits: int
    """Of a code; 0 for floats."""
    size: int
    """Values."""
    filters: int
    """Scales; 0 where there are none."""

    @property
    def reason(self) -> str | None:
        """What can't be, if anything."""
        coded = self.form >= UNIFORM
        if self.form > CODEBOOK or self.where > BY_GAPS:
            return f"expected form 0 to 4 and places 0 to 2, found {self.form} and {self.where}"
        if not (2 <= self.bits <= 8 if coded else self.bits == 0):
            return f"expected {'2 to 8' if coded else 'no'} bits, found {self.bits}"
        scaled = self.form in (UNIFORM, UNIFORM_BY_COLUMN)
        if scaled != bool(self.filters) or (scaled and (not self.size or self.size % self.filters)):
            return f"{self.filters} filters don't divide {self.size} values"
        return None


def entry_of(array: Floats | Codes) -> Entry:
    """How to store an array: places in whichever way is shorter."""
    data = _data(array)
    zeros = data.size - int(np.count_nonzero(data))
    where = _shorter(data) if zeros * _FEW >= data.size > 0 else ALL
    if isinstance(array, Floats):
        return Entry(WEIGHT if array.weights else PLAIN, where, 0, data.size, 0)
    if array.grid.scales is None:
        return Entry(CODEBOOK, where, array.grid.bits, data.size, 0)
    form = UNIFORM_BY_COLUMN if array.by_column else UNIFORM
    return Entry(form, where, array.grid.bits, data.size, len(array.grid.scales))


def coded(array: Floats | Codes, entry: Entry, stream: int) -> Iterator[Bytes]:
    """What an array adds to a stream."""
    if isinstance(array, Codes) and PARAMETERS <= stream < WEIGHTS:
        yield _plane(_table(array.grid).view("<u4"), stream - PARAMETERS)
    planes = WEIGHTS if entry.form == WEIGHT else PARAMETERS
    for block in _blocks(_data(array)):
        kept = block != 0
        if stream == MASK and entry.where == BY_MASK:
            yield np.packbits(kept)
        elif stream == GAPS and entry.where == BY_GAPS:
            yield _gaps(kept)
        elif stream == CODES and entry.bits:
            yield _bytes_of_codes(_chosen(block, kept, entry), entry.bits)
        elif not entry.bits and planes <= stream < planes + 4:
            yield _plane(_chosen(block, kept, entry), stream - planes)


def decoded(entry: Entry, streams: Sequence[Decoder]) -> Iterator[NDArray[np.float32]]:
    """An array, block by block. InputError where a stream is damaged."""
    parameters = streams[PARAMETERS:WEIGHTS]
    table = _read_table(entry, parameters) if entry.bits else None
    for start in range(0, entry.size, BLOCK):
        count = min(BLOCK, entry.size - start)
        kept = _kept(entry.where, count, streams)
        taken = count if kept is None else int(np.count_nonzero(kept))
        if table is None:
            values = _floats(taken, streams[WEIGHTS:STREAMS] if entry.form == WEIGHT else parameters)
        else:
            codes = _codes(taken, entry.bits, streams[CODES])
            filters = _filters(entry, start, count, kept)
            values = _values(codes, filters, table, entry.bits)
        if kept is not None:
            block = np.zeros(count, np.float32)
            block[kept] = values
            values = block
        yield values


def _data(array: Floats | Codes) -> _Coded:
    return array.values.view(np.uint32) if isinstance(array, Floats) else array.codes


def _blocks(data: _Coded) -> Iterator[_Coded]:
    return (data[at : at + BLOCK] for at in range(0, data.size, BLOCK))


def _chosen(block: _Coded, kept: NDArray[np.bool_], entry: Entry) -> _Coded:
    return block if entry.where == ALL else block[kept]


def _shorter(data: _Coded) -> int:
    """Mask or gaps."""
    kept = [block != 0 for block in _blocks(data)]
    mask = compressed_size(np.concatenate([np.packbits(each) for each in kept]))
    gaps = compressed_size(np.concatenate([_gaps(each) for each in kept]))
    return BY_MASK if mask <= gaps else BY_GAPS


def _gaps(kept: NDArray[np.bool_]) -> Bytes:
    """Zeros in front of each value that is kept, and of the block's end: g is g // 255 times 255, then g % 255."""
    ends = np.append(np.flatnonzero(kept), kept.size)
    gaps = np.diff(ends, prepend=-1) - 1
    last = np.cumsum(gaps // _ESCAPE + 1) - 1
    coded = np.full(int(last[-1]) + 1, _ESCAPE, np.uint8)
    coded[last] = gaps % _ESCAPE
    return coded


def _kept(where: int, count: int, streams: Sequence[Decoder]) -> NDArray[np.bool_] | None:
    """Which of a block's values are there; None for all."""
    if where == ALL:
        return None
    if where == BY_MASK:
        return np.unpackbits(streams[MASK].take(-(-count // 8)), count=count).astype(np.bool_)
    coded = streams[GAPS].peek(count + 1 + count // _ESCAPE)
    ends = coded != _ESCAPE
    reached = np.cumsum(coded + ends.astype(np.int64))  # values behind each byte
    length = int(np.searchsorted(reached, count + 1)) + 1
    if length > coded.size or reached[length - 1] != count + 1 or not ends[length - 1]:
        raise streams[GAPS].error(f"gaps don't end with a block of {count} values")
    streams[GAPS].skip(length)
    kept = np.zeros(count + 1, np.bool_)
    kept[reached[:length][ends[:length]] - 1] = True
    return kept[:count]


def _plane(bits: _Coded, number: int) -> Bytes:
    """One of the four bytes of each float, 0 the lowest."""
    return (((bits << 1) | (bits >> 31)) >> (8 * number)).astype(np.uint8)


def _floats(count: int, planes: Sequence[Decoder]) -> NDArray[np.float32]:
    turned = np.zeros(count, np.uint32)
    for number, plane in enumerate(planes):
        turned |= plane.take(count).astype(np.uint32) << np.uint32(8 * number)
    return ((turned >> 1) | (turned << 31)).view(np.float32)


def _bytes_of_codes(codes: _Coded, bits: int) -> Bytes:
    """As many in a byte as fit, the first the highest; the last byte is filled up with zeros."""
    each = 8 // bits
    rows = np.pad(codes, (0, -codes.size % each)).reshape(-1, each)
    shifts = np.arange(each - 1, -1, -1, dtype=np.uint8) * np.uint8(bits)
    packed: Bytes = np.bitwise_or.reduce(rows << shifts, axis=1).astype(np.uint8)
    return packed


def _codes(count: int, bits: int, stream: Decoder) -> NDArray[np.uint8]:
    each = 8 // bits
    packed = stream.take(-(-count // each))
    shifts = np.arange(each - 1, -1, -1, dtype=np.uint8) * np.uint8(bits)
    return ((packed[:, None] >> shifts) & np.uint8(2**bits - 1)).ravel()[:count]


def _table(grid: Grid) -> NDArray[np.float32]:
    """Scales, or the codebook without its first, which is 0."""
    if grid.scales is not None:
        return grid.scales
    assert grid.codebook is not None
    return grid.codebook[1:]


def _read_table(entry: Entry, planes: Sequence[Decoder]) -> NDArray[np.float32]:
    """The scales, or the whole codebook."""
    if entry.form == CODEBOOK:
        return np.append(np.float32(0), _floats(2**entry.bits - 1, planes))
    scales = _floats(entry.filters, planes)
    bits = scales.view(np.uint32)
    if ((bits >= _INFINITY) | ((bits > 0) & (bits < _NORMAL))).any():
        raise planes[-1].error("expected scales of 0, or at least 2^-126, found others")
    return scales


def _filters(entry: Entry, start: int, count: int, kept: NDArray[np.bool_] | None) -> NDArray[np.int64] | None:
    """The filter of each value that is there; None where there are no scales."""
    if entry.form == CODEBOOK:
        return None
    places = start + (np.arange(count) if kept is None else np.flatnonzero(kept))
    if entry.form == UNIFORM_BY_COLUMN:
        return places % entry.filters
    return places // (entry.size // entry.filters)


def _values(
    codes: NDArray[np.uint8], filters: NDArray[np.int64] | None, table: NDArray[np.float32], bits: int
) -> NDArray[np.float32]:
    if filters is None:
        return table[codes]
    q = codes.astype(np.float32)
    q[codes >= 2 ** (bits - 1)] -= 2**bits
    with np.errstate(over="ignore", under="ignore"):
        return table[filters] * q
