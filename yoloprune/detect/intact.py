"""Whether all pictures of a list can be decoded, found out before hours of work depend on it.

Decoding takes milliseconds a picture, and whoever asks will decode them anyway. So a JPEG or PNG is taken for whole by
how it begins and ends, in a fiftieth of the time: what is a web page or broken off isn't. All others are decoded.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from yoloprune.detect.image import read_pixels
from yoloprune.errors import InputError

_WHOLE: Final = (
    (b"\xff\xd8\xff", b"\xff\xd9"),
    (b"\x89PNG\r\n\x1a\n", b"\x00\x00\x00\x00IEND\xaeB`\x82"),
)
"""First and last bytes of a JPEG (ITU-T T.81, B.1.1.3) and a PNG (PNG specification, 5.2 and 11.2.5)."""
_AT_ONCE: Final = 64
"""Pictures that a thread looks at in one go."""


def check_pictures(
    paths: Sequence[Path], channels: int, told: Callable[[int, int], None] = lambda done, total: None
) -> None:
    """InputError that names every picture that can't be decoded; warns of each that lacks its end.

    channels: 1 or 3, as the network has. told: is given how many are looked at, and how many there are.

    Damage between a file's first and last bytes is not looked for; where it stops decoding, whoever decodes says so.
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
    """Whether the file begins and ends as a JPEG or a PNG; False also where it can't be read."""
    try:
        with path.open("rb") as stream:
            begin = stream.read(8)
            stream.seek(-min(12, os.fstat(stream.fileno()).st_size), os.SEEK_END)
            end = stream.read()
    except OSError:
        return False
    return any(begin.startswith(first) and end.endswith(last) for first, last in _WHOLE)
