"""Streams of bytes, each compressed for itself: raw LZMA1 of a small dictionary, or stored where that gains nothing."""

from __future__ import annotations

import lzma
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from yoloprune.errors import InputError

Bytes = NDArray[np.uint8]

STORED: Final = 255
"""In place of LZMA's byte of settings."""
MOST_LC: Final = 3
MOST_PB: Final = 2
"""Settings that a decoder must know: lc up to 3, lp 0, pb up to 2."""
_DICTIONARY: Final = 1 << 15
_SETTINGS: Final[tuple[dict[str, int], ...]] = (
    {"lc": 0, "pb": 0, "mf": lzma.MF_HC4, "nice_len": 8, "depth": 1},
    {"lc": 0, "pb": 0, "mf": lzma.MF_BT4, "nice_len": 64},
    {"lc": 3, "pb": 2, "mf": lzma.MF_BT4, "nice_len": 273},
)
"""Numbers that know nothing of each other, patterns, and text."""
_TRIAL: Final = 1 << 18
"""Bytes on which the settings are tried."""
_PART: Final = 1 << 16
"""Bytes whose entropy is taken together, and that are decompressed at a time."""
_WORTH: Final = 0.99
"""Entropy, as a share of the bytes, over which a stream is stored."""


@dataclass(frozen=True)
class Stream:
    """A compressed stream."""

    coding: int
    """`STORED`, or lc + 9 * (lp + 5 * pb)."""
    size: int
    """Bytes before."""
    data: bytes | memoryview


def encode(made: BinaryIO, parts: Callable[[], Iterable[Bytes]]) -> tuple[int, int]:
    """Write what `parts` gives, the same at each call, compressed to the end of `made`: its coding, and bytes before.

    Nothing is held: a stream can be a quarter of the network.
    """
    size, entropy = 0, 0.0
    for part in parts():
        size += part.size
        entropy += sum(_entropy(part[at : at + _PART]) for at in range(0, part.size, _PART))
    start = made.tell()
    if entropy <= _WORTH * size:
        trial = list(_first(parts(), _TRIAL))
        settings = min(_SETTINGS, key=lambda each: sum(map(len, _compressed(trial, each))))
        made.writelines(_compressed(parts(), settings))
        if made.tell() - start < size:
            return _coding(settings), size
        made.seek(start)
        made.truncate()
    made.writelines(part.data for part in parts())
    return STORED, size


def compressed_size(part: Bytes) -> int:
    """Bytes that these take where patterns are looked for."""
    return sum(map(len, _compressed([part], _SETTINGS[1])))


class Decoder:
    """Gives a stream's bytes, one piece after the other. InputError where it is damaged."""

    def __init__(self, stream: Stream, where: str, file: str) -> None:
        """Where it is in which file, for errors. InputError where its coding can't be."""
        self._where = where
        self._file = file
        self._left = stream.size
        """Bytes still to be given."""
        self._ready = np.zeros(0, np.uint8)
        self._data = memoryview(stream.data)
        self._lzma: lzma.LZMADecompressor | None = None
        if stream.coding == STORED:
            if len(stream.data) != stream.size:
                raise self.error(f"expected {stream.size} stored bytes, found {len(stream.data)}")
            return
        coding = stream.coding
        lc, lp, pb = coding % 9, coding // 9 % 5, coding // 45
        if lc > MOST_LC or lp or pb > MOST_PB:
            raise self.error(f"expected lc up to {MOST_LC}, lp 0, pb up to {MOST_PB}, found {lc}, {lp}, {pb}")
        self._lzma = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[_filter({"lc": lc, "pb": pb})])

    def error(self, reason: str) -> InputError:
        """What to raise where the bytes mean nothing."""
        return InputError(f"{self._where}: {reason}", file=self._file)

    def take(self, count: int) -> Bytes:
        """The next `count` bytes."""
        taken = self.peek(count)
        if taken.size < count:
            raise self.error(f"expected {count} bytes, found {taken.size}")
        self.skip(count)
        return taken

    def peek(self, count: int) -> Bytes:
        """The next `count` bytes, or those that are left; they aren't taken."""
        count = min(count, self._left)
        if self._ready.size < count:
            pieces, have = [self._ready], self._ready.size
            while have < count:
                pieces.append(self._more(count - have))
                have += pieces[-1].size
            self._ready = np.concatenate(pieces)
        return self._ready[:count]

    def skip(self, count: int) -> None:
        """Take bytes that were seen."""
        self._ready = self._ready[count:]
        self._left -= count

    def finish(self) -> None:
        """StreamError unless the stream ends here."""
        if self._left:
            raise self.error(f"{self._left} bytes more than the arrays take")
        if self._lzma is not None:
            while not self._lzma.eof:
                if self._step(1):
                    raise self.error("more bytes than declared")
            if self._data or self._lzma.unused_data:
                raise self.error("bytes behind its end")

    def _more(self, count: int) -> Bytes:
        """At least a byte, at most `count`."""
        if self._lzma is None:
            given, self._data = self._data[:count], self._data[count:]
            return np.frombuffer(given, np.uint8)
        found = b""
        while not found:
            if self._lzma.eof:
                raise self.error("fewer bytes than declared")
            found = self._step(count)
        return np.frombuffer(found, np.uint8)

    def _step(self, count: int) -> bytes:
        """Up to `count` bytes more; none where input was only read."""
        assert self._lzma is not None
        given = b""
        if self._lzma.needs_input:
            given, self._data = bytes(self._data[:_PART]), self._data[_PART:]
            if not given:
                raise self.error("ends within its data")
        try:
            return self._lzma.decompress(given, count)
        except (lzma.LZMAError, EOFError) as error:
            raise self.error(f"damaged LZMA data ({error})") from error


def _first(parts: Iterable[Bytes], size: int) -> Iterator[Bytes]:
    """No more than the first `size` bytes."""
    for part in parts:
        yield part[:size]
        size -= part.size
        if size <= 0:
            return


def _entropy(part: Bytes) -> float:
    """Bytes that they would take if each were coded for itself."""
    counts = np.bincount(part, minlength=1)
    shares = counts[counts > 0] / max(part.size, 1)
    return float(-(shares * np.log2(shares)).sum() * part.size / 8)


def _compressed(parts: Iterable[Bytes], settings: dict[str, int]) -> Iterator[bytes]:
    compressor = lzma.LZMACompressor(lzma.FORMAT_RAW, filters=[_filter(settings)])
    for part in parts:
        yield compressor.compress(part.data)
    yield compressor.flush()


def _coding(settings: dict[str, int]) -> int:
    return settings["lc"] + 45 * settings["pb"]


def _filter(settings: dict[str, int]) -> dict[str, Any]:
    return {"id": lzma.FILTER_LZMA1, "dict_size": _DICTIONARY, "lp": 0, "mode": lzma.MODE_NORMAL, **settings}
