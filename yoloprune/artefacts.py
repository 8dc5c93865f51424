"""Files between stages: whole or not at all, versioned, and known by their hash."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from yoloprune.errors import InputError

VERSION: Final = 1
"""Of the JSON files between stages; raised when a reader of the old one would go wrong."""


@contextmanager
def atomic_path(path: str | Path, *, force: bool = True) -> Iterator[Path]:
    """A temporary path beside `path` to write to; renamed to `path` when the block ends well, removed when it doesn't.

    Raises InputError if `path` exists and `force` is false, or if the folder cannot be written.
    """
    target = Path(path)
    if target.exists() and not force:
        raise InputError("exists already; --force replaces it", file=target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.stem}-", suffix=target.suffix, dir=target.parent)
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror}", file=target) from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        temporary.replace(target)
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror}", file=target) from error
    finally:
        temporary.unlink(missing_ok=True)


def ready(folder: Path) -> None:
    """Makes a folder. InputError if nothing can be written there."""
    with atomic_path(folder / ".trial"):
        pass
    (folder / ".trial").unlink()


def sha256(path: str | Path) -> str:
    """Hex SHA-256 of a file's bytes. InputError if it cannot be read."""
    try:
        with Path(path).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", file=path) from error


def read_bytes(path: str | Path) -> bytes:
    """A file's bytes. InputError if it cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", file=path) from error


def save_json(path: str | Path, kind: str, payload: Mapping[str, Any]) -> None:
    """Write a stage's result, whole or not at all."""
    text = json.dumps({"yoloprune": kind, "version": VERSION, **payload}, indent=1, allow_nan=False)
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def load_json(path: str | Path, kind: str) -> dict[str, Any]:
    """Read a stage's result. InputError if it is no such file or of another version."""
    try:
        payload = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", file=path) from error
    except ValueError as error:
        raise InputError(f"expected JSON: {error}", file=path) from error
    found = (payload.get("yoloprune"), payload.get("version")) if isinstance(payload, dict) else (None, None)
    if found != (kind, VERSION):
        raise InputError(f"expected {kind} of version {VERSION}, found {found[0]} of version {found[1]}", file=path)
    return dict(payload)
