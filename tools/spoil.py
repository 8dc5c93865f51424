"""Ways in which files are spoilt, by accident or on purpose; `fuzz.py` uses them."""

from __future__ import annotations

import hashlib
import random
import struct
from collections.abc import Callable
from typing import Final

TOKENS: Final = [
    *("0", "-1", "1", "2", "3", "255", "65536", "2147483647", "2147483648", "-2147483648", "4294967297", "1000000000"),
    *("99999999999999999999", "1e9", "1e-3", "1e300", "1e999", "nan", "inf", "-inf", "0x10", "3.9", ".5", "1_0"),
    *(",", ",,", "=", "==", "[", "]", "[]", "#", ";", "%", "\0", "\r", " ", "\ufeff", "\ufffd", "\u0660", "é", "none"),
    *("leaky", "mish", "images", "labels", ".jpg", ".txt", "classes=1000000", "filters=1000000000", "size=1024"),
    *("groups=7", "stride=0", "num=1000", "width=65536", "layers=-1,-2", "[net]", "[convolutional]\n", "[route]\n"),
    *("[yolo]\n", "[shortcut]\nfrom=-2\n", "[upsample]\nstride=64\n"),
]


def spoil(rng: random.Random, data: bytes, others: list[bytes]) -> bytes:
    """One to eight changes at random."""
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        data = rng.choice(_CHANGES)(rng, data, others)
    return data


def signed(data: bytes) -> bytes:
    """A packed network whose head has the size and hash of what is there."""
    return data[:12] + struct.pack("<Q", len(data)) + hashlib.sha256(data[52:]).digest() + data[52:]


def _place(rng: random.Random, data: bytes) -> tuple[int, int]:
    start = rng.randint(0, len(data))
    return start, min(len(data), start + rng.choice((1, 1, 4, 16, 64, 1024)))


def _flip(rng: random.Random, data: bytes, others: list[bytes]) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 4, 32)) if data else 0):
        changed[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(changed)


def _cut(rng: random.Random, data: bytes, others: list[bytes]) -> bytes:
    return data[: rng.randint(0, len(data))]


def _lose(rng: random.Random, data: bytes, others: list[bytes]) -> bytes:
    start, end = _place(rng, data)
    return data[:start] + data[end:]


def _repeat(rng: random.Random, data: bytes, others: list[bytes]) -> bytes:
    start, end = _place(rng, data)
    return data[:end] + data[start:end] * rng.choice((1, 2, 50)) + data[end:]


def _insert(rng: random.Random, data: bytes, others: list[bytes]) -> bytes:
    start, end = _place(rng, data)
    return data[:start] + rng.choice(TOKENS).encode() + data[rng.choice((start, end)) :]


def _splice(rng: random.Random, data: bytes, others: list[bytes]) -> bytes:
    other = rng.choice(others)
    (start, _), (begin, end) = _place(rng, data), _place(rng, other)
    return data[:start] + other[begin:end] + data[start:]


def _new_value(rng: random.Random, data: bytes, others: list[bytes]) -> bytes:
    """Another value behind one of the = signs."""
    lines = data.split(b"\n")
    keyed = [number for number, line in enumerate(lines) if b"=" in line]
    if keyed:
        number = rng.choice(keyed)
        lines[number] = lines[number].partition(b"=")[0] + b"=" + rng.choice(TOKENS).encode()
    return b"\n".join(lines)


def _move_lines(rng: random.Random, data: bytes, others: list[bytes]) -> bytes:
    lines = data.split(b"\n")
    one, two = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[one], lines[two] = lines[two], lines[one]
    return b"\n".join(lines)


def _edited_as_text(rng: random.Random, data: bytes, others: list[bytes]) -> bytes:
    """What an editor leaves of bytes over 0x7f, or of line ends."""
    if rng.random() < 0.3:
        return data.replace(b"\n", b"\r\n")
    return data.decode("ascii", "replace").encode() if rng.random() < 0.5 else bytes(b if b < 128 else 63 for b in data)


def _zeros(rng: random.Random, data: bytes, others: list[bytes]) -> bytes:
    return b"" if rng.random() < 0.2 else bytes(len(data)) if rng.random() < 0.5 else data + bytes(rng.randint(1, 64))


def _another(rng: random.Random, data: bytes, others: list[bytes]) -> bytes:
    return rng.choice(others)


Change = Callable[[random.Random, bytes, list[bytes]], bytes]
_CHANGES: Final[tuple[Change, ...]] = (
    *(_flip, _cut, _lose, _repeat, _insert, _insert, _splice, _new_value, _new_value, _new_value, _move_lines),
    *(_edited_as_text, _zeros, _another),
)
