"""Packed files: what comes back, their layout by hand, their size, and hostile ones."""

from __future__ import annotations

import gzip
import lzma
import random
import re
import struct
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.formats.samples import HEADER, head, large, sample, signed, sparse, spoilt, stored
from yoloprune.errors import InputError
from yoloprune.formats import FORMATS, Files, Floats, ypz


def unpacked(data: bytes) -> bytes:
    return b"".join(ypz.parse(data, "net.ypz").weights())


@pytest.mark.parametrize("seed", range(6))
def test_what_is_packed_comes_back(seed: int) -> None:
    files, weights = sample(seed)
    found = ypz.parse(ypz.dump(files))
    assert (found.cfg, found.names, found.header) == (files.cfg, files.names, files.header)
    assert b"".join(found.weights()) == weights
    assert b"".join(found.weights()) == weights  # and once more


def test_arrays_of_several_blocks_come_back() -> None:
    files, weights = large(1)
    data = ypz.dump(files)
    assert unpacked(data) == weights
    assert {entry.where for entry in ypz.parse(data).entries} == {1, 2}


def test_nothing_comes_back() -> None:
    found = ypz.parse(ypz.dump(Files(b"", None, HEADER, ())))
    assert (found.cfg, found.names, b"".join(found.weights())) == (b"", None, HEADER)


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_goes_both_ways(tmp_path: Path, suffix: str) -> None:
    files, weights = sample(2)
    path = tmp_path / f"net.{suffix}"
    assert FORMATS[suffix].write(path, files) == path.stat().st_size
    found = FORMATS[suffix].read(path)
    assert (found.cfg, found.names, b"".join(found.weights())) == (files.cfg, files.names, weights)
    with pytest.raises(InputError, match="--force"):
        FORMATS[suffix].write(path, files)


def bits(*values: float) -> NDArray[np.uint32]:
    return np.array(values, np.float32).view(np.uint32)


def plane(number: int, *values: float) -> bytes:
    """By docs/format.md: bits turned left by one, the bytes of one place."""
    return bytes((((int(each) << 1) | (int(each) >> 31)) >> 8 * number) & 255 for each in bits(*values))


HAND_MADE = signed(
    head(
        25,
        [
            (0, 0, 0, 2, 0),  # two parameters
            (1, 1, 0, 9, 0),  # nine weights by a mask
            (1, 2, 0, 3, 0),  # three weights by gaps
            (2, 0, 4, 6, 2),  # six codes of 4 bits, two filters
            (3, 0, 8, 2, 2),  # two of 8 bits, by column
            (4, 1, 3, 3, 0),  # three of 3 bits with a codebook, by a mask
        ],
    )
    + stored(1, bytes([0b10000001, 0b10000000, 0b01100000]))
    + stored(2, bytes([1, 0, 0]))
    + stored(3, bytes([0x1F, 0x70, 0x92, 0x80, 0xFF, 0b00001010]))
    + b"".join(
        stored(4 + number, plane(number, 1.5, -2, 0.5, 0.25, 2, 3, 10, 20, 30, 40, 50, 60, 70)) for number in range(4)
    )
    + b"".join(stored(8 + number, plane(number, 7, -8, 9, 10, 11)) for number in range(4))
)
EXPECTED = [
    *(1.5, -2),
    *(7, 0, 0, 0, 0, 0, 0, -8, 9),
    *(0, 10, 11),
    *(0.5, -0.5, 3.5, 0, -1.75, 0.5),  # 1, -1, 7 times 0.5 and 0, -7, 2 times 0.25
    *(-256, -3),  # -128 times 2 and -1 times 3
    *(0, 10, 20),
]


def test_a_file_made_by_hand() -> None:
    found = ypz.parse(HAND_MADE)
    assert (found.cfg, found.names, found.header) == (b"[net]\n", None, HEADER[:16])
    assert b"".join(found.weights()) == HEADER[:16] + np.array(EXPECTED, np.float32).tobytes()


def test_the_bytes_of_a_small_file() -> None:
    """The layout shall not change unnoticed."""
    data = ypz.dump(Files(b"[net]\n", b"a\n", HEADER, (Floats(np.array([1, -2], np.float32)),)))
    assert data[:20] == b"\x89YPZ\r\n\x1a\n" + struct.pack("<IQ", 1, len(data))
    text = b"\x06\0\0\0[net]\n\x01\x02\0\0\0a\n\x14" + HEADER + struct.pack("<IIBBBII", 2, 1, 0, 0, 0, 2, 0)
    number, coding, size, length = struct.unpack_from("<BBII", data, 52)
    assert (number, size) == (0, len(text))
    settings = {"id": lzma.FILTER_LZMA1, "lc": coding % 9, "lp": coding // 9 % 5, "pb": coding // 45}
    filters = [settings | {"dict_size": 1 << 15}]
    found = data[62 : 62 + length]
    assert (found if coding == 255 else lzma.decompress(found, lzma.FORMAT_RAW, filters=filters)) == text
    planes = [b"\0\1", b"\0\0", b"\0\0", b"\x7f\x80"]
    assert data[62 + length :] == b"".join(stored(4 + number, each) for number, each in enumerate(planes))


def entropy(counts: NDArray[np.integer]) -> float:
    """Bits of all together."""
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log2(shares)).sum() * counts.sum())


@pytest.mark.parametrize(("sparsity", "under"), [(0.0, 0.07), (0.9, 0.15), (0.95, 0.19), (0.98, 0.26)])
def test_size_beside_what_others_make_of_it(sparsity: float, under: float) -> None:
    """Nothing that takes values for themselves can be under the entropy; xz and gzip know nothing of floats."""
    size = 150_000
    values = sparse(np.random.default_rng(5), size, sparsity)
    packed = len(ypz.dump(Files(b"", None, HEADER, (Floats(values, weights=True),))))
    there = values[values != 0]
    exponents = np.bincount(there.view(np.uint32) >> 23 & 255)
    least = (entropy(np.array([there.size, size - there.size])) + entropy(exponents) + 24 * there.size) / 8
    assert 0.99 * least < packed < 1.03 * least + 300
    assert packed < (1 - under) * len(lzma.compress(values.tobytes(), preset=9))
    assert packed < (1 - under) * len(gzip.compress(values.tobytes(), 9))


@pytest.mark.parametrize(("bits_", "sparsity"), [(8, 0.9), (4, 0.9), (4, 0.98), (3, 0.0)])
def test_size_of_codes_beside_their_entropy(bits_: int, sparsity: float) -> None:
    from yoloprune.darknet.grid import Grid
    from yoloprune.formats import Codes

    rng = np.random.default_rng(6)
    grid = Grid(bits_, np.full(100, 3 / 2 ** (bits_ - 1), np.float32))
    coded = grid.nearest(rng.normal(size=(100, 2000)).astype(np.float32)).ravel()
    coded[rng.random(coded.size) < sparsity] = 0
    packed = len(ypz.dump(Files(b"", None, HEADER, (Codes(coded, grid),))))
    least = entropy(np.bincount(coded)) / 8
    assert 0.99 * least < packed < 1.06 * least + 400  # 100 scales


def test_zeros_cost_nothing() -> None:
    files = Files(b"", None, HEADER, (Floats(np.zeros(3_000_000, np.float32), weights=True),))
    assert len(ypz.dump(files)) < 500


FLOATS = [stored(4 + number, bytes(8)) for number in range(4)]
GOOD = head(2, [(0, 0, 0, 2, 0)])
LZMA = lzma.compress(bytes(1000), lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA1, "lc": 0, "pb": 0}])
HOSTILE = {
    "empty": (b"", "byte 0: expected a head of 52 bytes"),
    "short": (HAND_MADE[:51], "byte 51: expected a head"),
    "cut": (HAND_MADE[:-1], "byte 12: expected 358 bytes, found 357"),
    "longer": (HAND_MADE + b"\0", "byte 12: expected 358 bytes, found 359"),
    "another file": (b"GIF89a" + HAND_MADE[6:], "byte 0: expected"),
    "edited as text": (HAND_MADE.replace(b"\r\n", b"\n"), "byte 0: expected"),
    "later version": (HAND_MADE[:8] + b"\2" + HAND_MADE[9:], "byte 8: expected version 1, found 2"),
    "a bit": (HAND_MADE[:-9] + b"\1" + HAND_MADE[-8:], "byte 20: .* SHA-256"),
    "no streams": (signed(b""), r"stream 0 \(head\): expected 4 bytes, found 0"),
    "half a stream": (signed(GOOD + b"\4\0\0"), "byte 109: expected 10 bytes before a stream"),
    "a stream over the end": (signed(GOOD + struct.pack("<BBII", 4, 255, 9, 9)), "byte 109: expected 9 bytes of"),
    "wrong order": (signed(GOOD + FLOATS[1] + FLOATS[0]), "byte 127: expected stream 6 to 11, found 4"),
    "a stream twice": (signed(GOOD + FLOATS[0] + FLOATS[0]), "byte 127: expected stream 5 to 11, found 4"),
    "unknown stream": (signed(GOOD + stored(12, b"")), "byte 109: expected stream 1 to 11, found 12"),
    "stored size": (signed(GOOD + struct.pack("<BBII", 4, 255, 9, 1) + b"\0"), "byte 119: .* expected 9 stored bytes"),
    "huge cfg": (signed(stored(0, b"\xff\xff\xff\xff")), "byte 62: .* expected at most 16777216 bytes of cfg"),
    "huge floats": (signed(head(2**31, [(0, 0, 0, 2**31, 0)])), "byte 62: .* expected at most 251658240 floats"),
    "many arrays": (signed(stored(0, b"\0\0\0\0\0\x10" + bytes(20) + b"\xff\xff\xff\x7f")), "at most .* arrays"),
    "header": (signed(stored(0, b"\0\0\0\0\0\x11" + bytes(30))), "header of 16 or 20 bytes, found 17"),
    "form": (signed(head(2, [(5, 0, 0, 2, 0)])), "array 0: expected form 0 to 4"),
    "places": (signed(head(2, [(0, 3, 0, 2, 0)])), "array 0: .* places 0 to 2, found 0 and 3"),
    "bits": (signed(head(2, [(2, 0, 9, 2, 1)])), "array 0: expected 2 to 8 bits, found 9"),
    "bits of floats": (signed(head(2, [(0, 0, 8, 2, 0)])), "array 0: expected no bits, found 8"),
    "no filters": (signed(head(2, [(2, 0, 8, 2, 0)])), "array 0: 0 filters don't divide 2 values"),
    "odd filters": (signed(head(3, [(2, 0, 8, 3, 2)])), "array 0: 2 filters don't divide 3 values"),
    "filters of floats": (signed(head(2, [(0, 0, 0, 2, 1)])), "array 0: 1 filters"),
    "more floats": (signed(head(1, [(0, 0, 0, 2, 0)])), "expected arrays of 1 floats, found 2"),
    "fewer floats": (signed(head(3, [(0, 0, 0, 2, 0)])), "expected arrays of 3 floats, found 2"),
    "behind the arrays": (signed(stored(0, GOOD[10:] + b"\0")), "1 bytes more"),
    "no values": (signed(GOOD), r"stream 4 \(parameters 0\): expected 2 bytes, found 0"),
    "too many values": (signed(GOOD + b"".join(FLOATS)), "byte 119: .* 6 bytes more than the arrays take"),
    "no mask": (signed(head(9, [(0, 1, 0, 9, 0)])), r"stream 1 \(mask\): expected 2 bytes, found 0"),
    "gaps over the end": (signed(head(3, [(0, 2, 0, 3, 0)]) + stored(2, b"\4")), "gaps don't end with a block of 3"),
    "gaps that stop": (signed(head(300, [(0, 2, 0, 300, 0)]) + stored(2, b"\xff")), "gaps don't end .* 300 values"),
    "gaps and more": (signed(head(3, [(0, 2, 0, 3, 0)]) + stored(2, b"\3\0")), "1 bytes more"),
    "a scale": (
        signed(head(1, [(2, 0, 8, 1, 1)]) + stored(3, b"\1") + b"".join(stored(4 + n, b"\1") for n in range(4))),
        r"stream 7 \(parameters 3\): expected scales of 0, or at least",
    ),
    "lp": (signed(GOOD + struct.pack("<BBII", 4, 9, 1000, 5) + bytes(5)), "expected lc up to 3, lp 0"),
    "lc": (signed(GOOD + struct.pack("<BBII", 4, 4, 1000, 5) + bytes(5)), "expected lc up to 3, lp 0"),
    "lzma that stops": (signed(GOOD + struct.pack("<BBII", 4, 0, 2, 3) + bytes(3)), "stream 4 .* ends within its data"),
    "lzma over": (
        signed(head(250, [(0, 0, 0, 250, 0)]) + struct.pack("<BBII", 4, 0, 250, len(LZMA)) + LZMA
               + b"".join(stored(4 + n, bytes(250)) for n in (1, 2, 3))),
        "stream 4 .* more bytes than declared",
    ),
    "lzma under": (
        signed(head(2000, [(0, 0, 0, 2000, 0)]) + struct.pack("<BBII", 4, 0, 2000, len(LZMA)) + LZMA
               + b"".join(stored(4 + n, bytes(2000)) for n in (1, 2, 3))),
        "stream 4 .* fewer bytes than declared",
    ),
    "lzma and more": (
        signed(head(1000, [(0, 0, 0, 1000, 0)]) + struct.pack("<BBII", 4, 0, 1000, len(LZMA) + 1) + LZMA + b"\0"
               + b"".join(stored(4 + n, bytes(1000)) for n in (1, 2, 3))),
        "stream 4 .* bytes behind its end",
    ),
}  # fmt: skip
"""Files, and what is said of them."""


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files(name: str) -> None:
    data, expected = HOSTILE[name]
    with pytest.raises(InputError) as caught:
        unpacked(data)
    assert re.match(r"net\.ypz: byte \d+: ", str(caught.value))
    assert re.search(expected, str(caught.value)), caught.value


def test_a_large_file_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "net.ypz"
    with path.open("wb") as stream:
        stream.truncate((1 << 30) + 1)  # a hole
    with pytest.raises(InputError, match="expected at most 1073741824 bytes"):
        ypz.read(path)


def test_damage_is_found_or_decoded() -> None:
    """Hundreds of spoilt files whose hash is right: our own error, or as many floats as declared."""
    rng = random.Random(7)
    goods = [ypz.dump(sample(seed)[0]) for seed in range(3)] + [HAND_MADE]
    read = 0
    for _ in range(400):
        data = spoilt(rng, rng.choice(goods))
        try:
            found = ypz.parse(data)
            size = sum(map(len, found.weights()))
        except InputError:
            continue
        assert size == len(found.header) + 4 * sum(entry.size for entry in found.entries)
        read += 1
    assert 5 < read < 395


def test_what_is_too_large_is_not_packed() -> None:
    with pytest.raises(InputError, match="expected at most 16777216 bytes of cfg"):
        ypz.dump(Files(bytes((1 << 24) + 1), None, HEADER, ()))
