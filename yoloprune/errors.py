"""What users are told of their files: the error that ends a command, the warning that doesn't; what Ctrl-C is answered.

Library code raises the one and warns with the other; only the command line shows them.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Final

INTERRUPTED: Final = "interrupted; the same command, without --force, goes on from what is done"
INTERRUPTED_STATUS: Final = 130


class InputError(Exception):
    """Bad input or use. Its text is the one or two lines the user reads; the exit status is 2.

    A good message says where (file and line or byte, layer index, key), what was expected and what was found.
    """

    def __init__(self, message: str, *, file: str | Path | None = None, line: int | None = None) -> None:
        super().__init__(_located(message, file, line))


class NothingGoesError(InputError):
    """Nothing can be pruned within what is allowed, or not as much as is asked for."""


class ReaderError(Exception):
    """A reader is missing, refused the files or crashed on them. Its text is one line, in the reader's own words."""


class InputWarning(UserWarning):
    """Something odd in a user's file, or in what came of it, that stops nothing. Its text is as an InputError's."""


def warn(message: str, *, file: str | Path | None = None, line: int | None = None) -> None:
    """Tell of something odd by an InputWarning; commands show each once, on stderr."""
    warnings.warn(InputWarning(_located(message, file, line)), stacklevel=3)


def unreadable(error: OSError, file: str | Path) -> InputError:
    """What to raise where a file can't be read."""
    folder = isinstance(error, IsADirectoryError)
    return InputError("is a folder, expected a file" if folder else f"cannot be read: {error.strerror}", file=file)


def _located(message: str, file: str | Path | None, line: int | None) -> str:
    where = "" if file is None else f"{file}: " if line is None else f"{file}:{line}: "
    return where + message
