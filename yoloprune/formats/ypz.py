"""`.ypz` bytes <-> a network's files (docs/format.md has the layout, ypz.c decodes it, too)."""

from __future__ import annotations

import hashlib
import io
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np

from yoloprune.artefacts import atomic_path, read_bytes
from yoloprune.errors import InputError, unreadable
from yoloprune.formats.arrays import HEAD, STREAMS, Entry, coded, decoded, entry_of
from yoloprune.formats.base import Files
from yoloprune.formats.streams import STORED, Bytes, Decoder, Stream, encode

MAGIC: Final = b"\x89YPZ\r\n\x1a\n"
VERSION: Final = 1
MOST_TEXT: Final = 1 << 24
"""Bytes of a .cfg or .names file."""
MOST_FLOATS: Final = 15 << 24
"""Of a .weights file, which then has less than 1 GiB."""
MOST_BYTES: Final = 1 << 30
"""Of a packed file."""
_HEAD: Final = struct.Struct("<8sIQ32s")
"""Magic, version, bytes of the file, SHA-256 of what is behind it."""
_STREAM: Final = struct.Struct("<BBII")
"""Which it is, coding, bytes before and after compression."""
_ENTRY: Final = struct.Struct("<BBBII")
"""The fields of an `Entry`."""
_U32: Final = struct.Struct("<I")
_READ: Final = 1 << 20
"""Bytes that are hashed at once."""
_PLANES: Final = tuple(f"{what} {number}" for what in ("parameters", "weights") for number in range(4))
_NAMES: Final = ("head", "mask", "gaps", "codes", *_PLANES)
"""Of the streams."""


@dataclass(frozen=True)
class Packed:
    """A packed network, whose values are not yet decoded."""

    cfg: bytes
    names: bytes | None
    header: bytes
    entries: tuple[Entry, ...]
    streams: tuple[tuple[Stream, int], ...]
    """For each number its stream, and the byte where its data begin."""
    file: str

    def weights(self) -> Iterator[bytes]:
        """The .weights file, piece by piece. InputError where a stream is damaged, or longer than the arrays."""
        decoders = [_decoder(self.streams, number, self.file) for number in range(STREAMS)]
        yield self.header
        for entry in self.entries:
            for block in decoded(entry, decoders):
                yield block.astype("<f4", copy=False).tobytes()
        for decoder in decoders[HEAD + 1 :]:
            decoder.finish()


def dump(files: Files) -> bytes:
    """A network's files -> bytes. InputError for what is too large."""
    made = io.BytesIO()
    _dump_to(made, files)
    return made.getvalue()


def parse(data: bytes, file: str = "<ypz>") -> Packed:
    """Bytes -> a network's files; without a grid `b"".join(parse(dump(files)).weights())` is what was packed.

    InputError, with the byte, for what is damaged or hostile; for damaged values only once they are decoded, a block
    at a time.
    """
    _check_head(data, file)
    streams = _streams(data, file)
    head = _decoder(streams, HEAD, file)
    cfg = head.take(_size(head, "bytes of cfg", MOST_TEXT)).tobytes()
    named = bool(head.take(1)[0])
    names = head.take(_size(head, "bytes of names", MOST_TEXT)).tobytes() if named else None
    size = int(head.take(1)[0])
    if size not in (16, 20):
        raise head.error(f"expected a .weights header of 16 or 20 bytes, found {size}")
    header = head.take(size).tobytes()
    floats = _size(head, "floats", MOST_FLOATS)
    table = head.take(_ENTRY.size * _size(head, "arrays", MOST_TEXT // _ENTRY.size))
    head.finish()
    entries = tuple(Entry(*fields) for fields in _ENTRY.iter_unpack(table.tobytes()))
    for number, entry in enumerate(entries):
        if entry.reason is not None:
            raise head.error(f"array {number}: {entry.reason}")
    if floats != sum(entry.size for entry in entries):
        raise head.error(f"expected arrays of {floats} floats, found {sum(entry.size for entry in entries)}")
    return Packed(cfg, names, header, entries, streams, file)


def write(path: str | Path, files: Files, *, force: bool = False) -> int:
    """Dump to the file at `path`, whole or not at all. Bytes written."""
    with atomic_path(path, force=force) as temporary, temporary.open("w+b") as made:
        return _dump_to(made, files)


def read(path: str | Path) -> Packed:
    """Parse the file at `path`."""
    try:
        size = Path(path).stat().st_size
    except OSError as error:
        raise unreadable(error, path) from error
    if size > MOST_BYTES:
        raise InputError(f"expected at most {MOST_BYTES} bytes, found {size}", file=path)
    return parse(read_bytes(path), str(path))


def _dump_to(made: BinaryIO, files: Files) -> int:
    """Bytes written. What is said of others, their sizes and their hash, is written behind them."""
    entries = [entry_of(array) for array in files.arrays]
    head = np.frombuffer(_head(files, entries), np.uint8)
    made.write(bytes(_HEAD.size))
    for number in range(STREAMS):

        def parts(number: int = number) -> Iterator[Bytes]:
            if number == HEAD:
                yield head
                return
            for array, entry in zip(files.arrays, entries, strict=True):
                yield from coded(array, entry, number)

        _write_stream(made, number, parts)
    size = made.tell()
    made.seek(_HEAD.size)
    digest = hashlib.sha256()
    while part := made.read(_READ):
        digest.update(part)
    made.seek(0)
    made.write(_HEAD.pack(MAGIC, VERSION, size, digest.digest()))
    return size


def _write_stream(made: BinaryIO, number: int, parts: Callable[[], Iterator[Bytes]]) -> None:
    """To the end of `made`; nothing for one that is empty."""
    start = made.tell()
    made.write(bytes(_STREAM.size))
    coding, size = encode(made, parts)
    end = made.tell() if size else start
    made.seek(start)
    made.write(_STREAM.pack(number, coding, size, end - start - _STREAM.size) if size else b"")
    made.seek(end)
    made.truncate()


def _head(files: Files, entries: Sequence[Entry]) -> bytes:
    """The stream of that name. InputError for what is too large."""
    floats = sum(entry.size for entry in entries)
    for what, size, most in (
        ("bytes of cfg", len(files.cfg), MOST_TEXT),
        ("bytes of names", len(files.names or b""), MOST_TEXT),
        ("floats of weights", floats, MOST_FLOATS),
    ):
        if size > most:
            raise InputError(f"expected at most {most} {what}, found {size}")
    parts = [_U32.pack(len(files.cfg)), files.cfg, bytes([files.names is not None])]
    if files.names is not None:
        parts += [_U32.pack(len(files.names)), files.names]
    parts += [bytes([len(files.header)]), files.header, _U32.pack(floats), _U32.pack(len(entries))]
    return b"".join([*parts, *(_ENTRY.pack(*astuple(entry)) for entry in entries)])


def _check_head(data: bytes, file: str) -> None:
    """InputError unless these are all bytes of such a file."""
    if len(data) < _HEAD.size:
        raise InputError(f"byte {len(data)}: expected a head of {_HEAD.size} bytes, found the end", file=file)
    magic, version, size, digest = _HEAD.unpack_from(data)
    if magic != MAGIC:
        raise InputError(f"byte 0: expected {MAGIC!r}, found {magic!r}", file=file)
    if version != VERSION:
        raise InputError(f"byte 8: expected version {VERSION}, found {version}", file=file)
    if size != len(data):
        raise InputError(f"byte 12: expected {size} bytes, found {len(data)}", file=file)
    if hashlib.sha256(memoryview(data)[_HEAD.size :]).digest() != digest:
        raise InputError("byte 20: what follows has another SHA-256: the file is damaged", file=file)


def _streams(data: bytes, file: str) -> tuple[tuple[Stream, int], ...]:
    """For each number the stream, an empty one where there is none, and where its data begin."""
    found: dict[int, tuple[Stream, int]] = {}
    at, last = _HEAD.size, -1
    while at < len(data):
        if len(data) - at < _STREAM.size:
            raise InputError(f"byte {at}: expected {_STREAM.size} bytes before a stream, found the end", file=file)
        number, coding, size, length = _STREAM.unpack_from(data, at)
        if not last < number < STREAMS:
            raise InputError(f"byte {at}: expected stream {last + 1} to {STREAMS - 1}, found {number}", file=file)
        start = at + _STREAM.size
        if length > len(data) - start:
            raise InputError(f"byte {at}: expected {length} bytes of stream {number}, found the end", file=file)
        found[number] = Stream(coding, size, memoryview(data)[start : start + length]), start
        at, last = start + length, number
    return tuple(found.get(number, (Stream(STORED, 0, b""), len(data))) for number in range(STREAMS))


def _decoder(streams: Sequence[tuple[Stream, int]], number: int, file: str) -> Decoder:
    stream, start = streams[number]
    return Decoder(stream, f"byte {start}: stream {number} ({_NAMES[number]})", file)


def _size(head: Decoder, what: str, most: int) -> int:
    """A number that says how much follows."""
    (size,) = _U32.unpack(head.take(_U32.size).tobytes())
    if size > most:
        raise head.error(f"expected at most {most} {what}, found {size}")
    return int(size)
