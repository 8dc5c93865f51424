"""How a command ends early: the one exception for a user's mistake or a broken file, and what Ctrl-C is answered."""

from __future__ import annotations

from pathlib import Path
from typing import Final

INTERRUPTED: Final = "interrupted; the same command, without --force, goes on from what is done"
INTERRUPTED_STATUS: Final = 130


class InputError(Exception):
    """Bad input or use. Its text is the one or two lines the user reads; the exit status is 2.

    A good message says where (file and line or byte, layer index, key), what was expected and what was found.
    """

    def __init__(self, message: str, *, file: str | Path | None = None, line: int | None = None) -> None:
        where = "" if file is None else f"{file}: " if line is None else f"{file}:{line}: "
        super().__init__(where + message)
