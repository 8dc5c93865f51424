"""Networks' files to pack, and what they unpack to; files that are damaged on purpose."""

from __future__ import annotations

import hashlib
import random
import struct
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from yoloprune.darknet.grid import Grid
from yoloprune.formats import Codes, Files, Floats, ypz

HEADER = bytes(range(20))
ODD = np.array(
    [0, 0x80000000, 1, 0x80000001, 0x007FFFFF, 0x7F800000, 0xFF800000, 0x7FC00000, 0x7F800001, 0xFFFFFFFF], np.uint32
)
"""Zeros, denormals, infinities and not-a-numbers, by their bits."""


def sparse(rng: np.random.Generator, size: int, sparsity: float) -> NDArray[np.float32]:
    """Normal values, of which some are 0."""
    values = rng.normal(0, 0.05, size).astype(np.float32)
    values[rng.random(size) < sparsity] = 0
    return values


def uniform(rng: np.random.Generator, bits: int, filters: int) -> Grid:
    """One filter is 0, and one the smallest that there is."""
    scales = rng.uniform(0.01, 0.1, filters).astype(np.float32)
    scales[:2] = 0, np.finfo(np.float32).tiny
    return Grid(bits, scales)


def codebook(rng: np.random.Generator, bits: int) -> Grid:
    values = rng.normal(size=2**bits).astype(np.float32)
    values[0] = 0
    return Grid(bits, codebook=values)


def codes(rng: np.random.Generator, grid: Grid, shape: tuple[int, int], sparsity: float, *, by_column: bool) -> Codes:
    """Random ones; -2^(bits-1) is none of a uniform grid."""
    most = 2**grid.bits if grid.scales is None else grid.largest
    drawn = rng.integers(1 if grid.scales is None else -most, most, shape)
    drawn[rng.random(shape) < sparsity] = 0
    stored = (drawn % 2**grid.bits).astype(np.uint8)
    return Codes(np.ascontiguousarray(stored.T if by_column else stored).ravel(), grid, by_column)


def values_of(array: Floats | Codes, rows: int) -> bytes:
    """What an array of so many filters unpacks to."""
    if isinstance(array, Floats):
        return array.values.tobytes()
    matrix = array.codes.reshape(-1, rows).T if array.by_column else array.codes.reshape(rows, -1)
    values = array.grid.values(matrix)
    return (values.T if array.by_column else values).tobytes()


def sample(seed: int) -> tuple[Files, bytes]:
    """Arrays of every kind, and their .weights file."""
    rng = np.random.default_rng(seed)
    arrays: list[tuple[Floats | Codes, int]] = [
        (Floats(sparse(rng, 37, 0)), 1),
        (Floats(ODD[rng.integers(0, len(ODD), 99)].view(np.float32), weights=True), 1),
        (Floats(np.zeros(301, np.float32), weights=True), 1),
        (Floats(np.full(77, 0.25, np.float32), weights=True), 1),
        (Floats(np.array([-0.0], np.float32)), 1),
    ]
    for sparsity in (0, 0.02, 0.5, 0.9, 0.98):
        arrays.append((Floats(sparse(rng, int(rng.integers(1, 3000)), sparsity), weights=bool(rng.random() < 0.8)), 1))
        for bits in range(2, 9):
            rows, inner = (int(each) for each in rng.integers(2, 30, 2))
            by_column = bool(rng.random() < 0.3)
            grid = uniform(rng, bits, rows)
            arrays.append((codes(rng, grid, (rows, inner), sparsity, by_column=by_column), rows))
            arrays.append((codes(rng, codebook(rng, bits), (rows, inner), sparsity, by_column=False), rows))
    arrays = [arrays[number] for number in rng.permutation(len(arrays))]
    names = (None, b"", b"a\nb\n\xff")[seed % 3]
    files = Files(b"[net]\r\n# \xc3\xa9\n" * 20, names, HEADER[: (16, 20)[seed % 2]], tuple(each for each, _ in arrays))
    return files, files.header + b"".join(values_of(*each) for each in arrays)


def large(seed: int) -> tuple[Files, bytes]:
    """Arrays of several blocks, whose places are known by a mask, by gaps with long ones, and not at all."""
    rng = np.random.default_rng(seed)
    gaps = sparse(rng, (1 << 20) + 777, 0.97)
    gaps[1000:3000] = gaps[(1 << 20) - 600 : (1 << 20) + 300] = gaps[-255:] = 0
    grid = uniform(rng, 3, 5)
    coded = codes(rng, grid, (5, 230_001), 0.5, by_column=True)
    arrays = (Floats(gaps, weights=True), coded)
    files = Files(b"[net]", None, HEADER, arrays)
    return files, HEADER + gaps.tobytes() + values_of(coded, 5)


def signed(body: bytes) -> bytes:
    """A file of these streams."""
    return struct.pack("<8sIQ32s", ypz.MAGIC, 1, 52 + len(body), hashlib.sha256(body).digest()) + body


def stored(number: int, data: bytes) -> bytes:
    """A stream as it is."""
    return struct.pack("<BBII", number, 255, len(data), len(data)) + data


def head(floats: int, entries: Sequence[tuple[int, ...]], cfg: bytes = b"[net]\n") -> bytes:
    """The stream of that name, without names."""
    text = struct.pack("<I", len(cfg)) + cfg + b"\0" + b"\x10" + HEADER[:16]
    table = b"".join(struct.pack("<BBBII", *entry) for entry in entries)
    return stored(0, text + struct.pack("<II", floats, len(entries)) + table)


def spoilt(rng: random.Random, good: bytes) -> bytes:
    """Bytes changed, lost or repeated behind the hash, which is right again; sometimes in front, too."""
    body = bytearray(good[52:])
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(min(len(body), rng.choice((40, 400, 1 << 30))))
        match rng.randrange(5):
            case 0 | 1:
                body[at] = rng.randrange(256)
            case 2:
                del body[at : at + rng.choice((1, 4, 100))]
            case 3:
                body[at:at] = body[at : at + rng.choice((1, 4, 100))]
            case _:
                body[at : at + 4] = rng.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", b"\0\0\xf0\x0e", b"\1\0\0\0"))
        body = body or bytearray(b"\0")
    made = bytearray(signed(bytes(body)))
    if rng.random() < 0.1:
        made[rng.randrange(len(made))] ^= 1 << rng.randrange(8)
    return bytes(made[: rng.randrange(len(made))] if rng.random() < 0.05 else made)
