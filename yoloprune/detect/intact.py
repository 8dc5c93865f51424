"""Whether all pictures of a list can be decoded, found out before hours of work depend on it.

Decoding takes milliseconds a picture, and whoever asks will decode them anyway. So a JPEG or PNG is taken for whole by
its structure, in a hundredth of the time; what isn't, and every other kind, is decoded.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, Final

from yoloprune.detect.image import read_pixels
from yoloprune.errors import InputError

_PNG: Final = b"\x89PNG\r\n\x1a\n"
_LAST_CHUNK: Final = b"IEND"
_JPEG: Final = b"\xff\xd8"
_JPEG_END: Final = b"\xff\xd9"
_START_OF_SCAN: Final = b"\xda"
_PROGRESSIVE: Final = b"\xc2"
_FRAMES: Final = (b"\xc0", b"\xc1", _PROGRESSIVE)
"""Baseline, extended and progressive: what OpenCV decodes."""
_MARKER: Final = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
"""What ends a scan: not a 0xFF of the coded pixels, nor where decoding can restart."""
_READ_OVER: Final = frozenset(bytes([code]) for code in (*range(0xE0, 0xF0), 0xFE))
"""What applications add, and comments."""
_DC: Final = 0x00
_AC: Final = 0x10
_QUANTIZERS: Final = 0x20
_AT_ONCE: Final = 64
"""Pictures that a thread looks at in one go."""


def check_pictures(
    paths: Sequence[Path], channels: int, told: Callable[[int, int], None] = lambda done, total: None
) -> None:
    """InputError that names every picture that can't be decoded; warns of each that lacks its end.

    channels: 1 or 3, as the network has. told: is given how many are looked at, and how many there are.

    Damage within a JPEG's coded pixels is not found: it doesn't stop decoding.
    """
    paths = tuple(dict.fromkeys(paths))
    parts = [paths[start : start + _AT_ONCE] for start in range(0, len(paths), _AT_ONCE)]
    refused: list[str] = []
    done = 0
    with ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="pictures") as pool:
        for part, found in zip(parts, pool.map(lambda part: _unreadable(part, channels), parts), strict=True):
            refused += found
            done += len(part)
            told(done, len(paths))
    if len(refused) > 1:
        refused.insert(0, f"{len(refused)} of {len(paths)} pictures can't be decoded:")
    if refused:
        raise InputError("\n".join(refused))


def _unreadable(paths: Sequence[Path], channels: int) -> list[str]:
    """What is wrong, of each that can't be decoded."""
    found = []
    for path in paths:
        if not _is_whole(path):
            try:
                read_pixels(path, channels)
            except InputError as error:
                found.append(str(error))
    return found


def _is_whole(path: Path) -> bool:
    """Whether the file is a JPEG or PNG from its first byte to its last; False also where it can't be said."""
    try:
        with path.open("rb") as stream:
            start = stream.read(len(_PNG))
            if start == _PNG:
                return _is_whole_png(stream)
            stream.seek(len(_JPEG))
            return start.startswith(_JPEG) and _is_whole_jpeg(stream)
    except OSError:
        return False


def _is_whole_png(stream: BinaryIO) -> bool:
    """From behind the signature (PNG specification, 5.3): chunks with right checksums up to the last kind of chunk."""
    content = stream.read()
    at, kind = 0, b""
    while kind != _LAST_CHUNK:
        end = at + 8 + int.from_bytes(content[at : at + 4])
        kind = content[at + 4 : at + 8]
        if zlib.crc32(memoryview(content)[at + 4 : end]) != int.from_bytes(content[end : end + 4]) or end >= len(
            content
        ):
            return False
        at = end + 4
    return True


def _is_whole_jpeg(stream: BinaryIO) -> bool:
    """From behind the start (ITU-T T.81, B.1 and B.2): sound segments that join up to the scan; then, last, the end.

    In a progressive one there are more scans, which sound segments stand before, too.
    """
    frame, progressive = b"", False
    tables: set[int] = set()
    while True:
        head = stream.read(4)
        marker, length = head[1:2], int.from_bytes(head[2:]) - 2
        if progressive and head == _JPEG_END:
            return True
        if len(head) < 4 or head[0] != 0xFF or length < 0:
            return False
        body = stream.read(length)
        if marker in _TABLES:
            found = _TABLES[marker](body)
            if found is None:
                return False
            tables |= found
        elif marker in _FRAMES and not frame and _is_sound_frame(body):
            frame, progressive = body, marker == _PROGRESSIVE
        elif marker == _START_OF_SCAN and _is_sound_scan(body, frame, tables, progressive=progressive):
            if not progressive:
                break
            rest = stream.read()
            following = _MARKER.search(rest)
            if following is None:
                return False
            stream.seek(following.start() - len(rest), os.SEEK_CUR)
        elif marker not in _READ_OVER:
            return False
    stream.seek(-len(_JPEG_END), os.SEEK_END)
    return stream.read() == _JPEG_END


def _is_sound_frame(body: bytes) -> bool:
    """8 bits, height and width over 0, as many components as it says, each of a sampling of 1..4 (B.2.2)."""
    if len(body) < 6 or body[0] != 8 or not any(body[1:3]) or not any(body[3:5]) or len(body) != 6 + 3 * body[5]:
        return False
    return {part for both in body[7::3] for part in (both >> 4, both & 15)} <= {1, 2, 3, 4}


def _is_sound_scan(body: bytes, frame: bytes, tables: set[int], *, progressive: bool) -> bool:
    """Which components and coefficients come, and by which tables, of those there are (B.2.3, G.1.1.1)."""
    if not frame or not body or len(body) != 4 + 2 * body[0] or not 0 < body[0] <= 4:
        return False
    start, end, before, now = body[-3], body[-2], body[-1] >> 4, body[-1] & 15
    if progressive:
        parts = end == 0 if start == 0 else start <= end < 64 and body[0] == 1
        if not parts or now > 13 or before not in (0, now + 1):
            return False
    elif body[0] != frame[5]:
        return False
    dc, ac = start == 0 and not (progressive and before), start > 0 or not progressive
    used = {_QUANTIZERS + number for number in frame[8::3]}
    used.update(_DC + (both >> 4) for both in body[2:-3:2] if dc)
    used.update(_AC + (both & 15) for both in body[2:-3:2] if ac)
    return used <= tables and {*body[1:-3:2]} <= {*frame[6::3]}


def _quantizers(body: bytes) -> set[int] | None:
    """Tables of 64 values, each of 1 or 2 bytes (B.2.4.1)."""
    found, at = set(), 0
    while at < len(body):
        wide, number = body[at] >> 4, body[at] & 15
        if wide > 1 or number > 3:
            return None
        found.add(_QUANTIZERS + number)
        at += 65 + 64 * wide
    return found if at == len(body) else None


def _codes(body: bytes) -> set[int] | None:
    """Huffman tables (B.2.4.2): how many codes there are of 1 to 16 bits, none all ones, and what each stands for."""
    found, at = set(), 0
    while at + 17 <= len(body):
        kind, counts = body[at], body[at + 1 : at + 17]
        symbols = body[at + 17 : at + 17 + sum(counts)]
        if kind & 0xEC or len(symbols) < sum(counts) or (kind < _AC and any(each > 15 for each in symbols)):
            return None
        code = 0
        for bits, count in enumerate(counts, start=1):
            code = 2 * code + count
            if count and code >= 1 << bits:
                return None
        found.add(kind)
        at += 17 + len(symbols)
    return found if at == len(body) else None


def _restarts(body: bytes) -> set[int] | None:
    """After how many blocks decoding can restart (B.2.4.4)."""
    return set() if len(body) == 2 else None


_TABLES: Final[Mapping[bytes, Callable[[bytes], set[int] | None]]] = {
    b"\xc4": _codes,
    b"\xdb": _quantizers,
    b"\xdd": _restarts,
}
"""By marker: the tables of a segment, by what `_DC`, `_AC` and `_QUANTIZERS` begin; None if they aren't sound."""
