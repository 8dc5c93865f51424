"""Files between stages: whole or not at all, versioned, and known by their hash."""

from __future__ import annotations

import hashlib
import json
import math
import os
import reprlib
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Final, TypeVar, get_args, get_origin, get_type_hints

from yoloprune.errors import InputError, unreadable

VERSION: Final = 3
"""Of the JSON files between stages; raised when a reader of the old one would go wrong."""
_NAMES: Final = {str: "text", int: "a whole number", float: "a number", bool: "true or false", Path: "a path"}
_Kind = TypeVar("_Kind")


@contextmanager
def atomic_path(path: str | Path, *, force: bool = True) -> Iterator[Path]:
    """A temporary path beside `path` to write to; renamed to `path` when the block ends well, removed when it doesn't.

    Raises InputError if `path` is a folder, exists and `force` is false, or if the folder cannot be written.
    """
    target = Path(path)
    check_free(target, force=force)
    temporary = _made_beside(target)
    try:
        yield temporary
        temporary.chmod(0o644)
        temporary.replace(target)
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror}", file=target) from error
    finally:
        temporary.unlink(missing_ok=True)


def check_free(path: Path, *, force: bool) -> None:
    """InputError if `path` is a folder, or exists and `force` is false."""
    if path.is_dir():
        raise InputError("is a folder, expected a file", file=path)
    if path.exists() and not force:
        raise InputError("exists already; --force replaces it", file=path)


def is_file(path: str | Path) -> bool:
    """Whether there is such a file; False also for a name that no file can have, where Path.is_file raises."""
    return os.path.isfile(path)  # noqa: PTH113


def ready(folder: Path) -> None:
    """Makes a folder. InputError if nothing can be written there."""
    _made_beside(folder / "trial").unlink()


def _made_beside(target: Path) -> Path:
    """A new, empty file of another name. InputError if there can be none."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.stem}-", suffix=target.suffix, dir=target.parent)
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror}", file=target) from error
    os.close(handle)
    return Path(name)


def sha256(path: str | Path) -> str:
    """Hex SHA-256 of a file's bytes. InputError if it cannot be read."""
    try:
        with Path(path).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise unreadable(error, path) from error
    except ValueError as error:  # no file can have that name
        raise InputError(f"cannot be read: {error}", file=path) from error


def read_bytes(path: str | Path) -> bytes:
    """A file's bytes. InputError if it cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise unreadable(error, path) from error


def save_json(path: str | Path, kind: str, payload: Mapping[str, Any], indent: int | None = 1) -> None:
    """Write a stage's result, whole or not at all. indent: None writes one line."""
    text = json.dumps({"yoloprune": kind, "version": VERSION, **payload}, indent=indent, allow_nan=False)
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def load_json(path: str | Path, kind: str, remedy: str = "yoloprune ana --force starts anew") -> dict[str, Any]:
    """What `save_json` was given. InputError if it is no such file, or of another version, with the remedy."""
    try:
        payload = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise unreadable(error, path) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"expected JSON: {error}", file=path) from error
    found = (payload.get("yoloprune"), payload.get("version")) if isinstance(payload, dict) else (None, None)
    if found != (kind, VERSION):
        hint = f"; {remedy}" if found[0] == kind else ""
        raise InputError(
            f"expected {kind} of version {VERSION}, found {found[0]} of version {found[1]}{hint}", file=path
        )
    return {key: value for key, value in payload.items() if key not in ("yoloprune", "version")}


def typed(kind: type[_Kind], value: object, file: str | Path, key: str = "") -> _Kind:
    """What JSON holds of a dataclass, whose fields are text, numbers, dataclasses, and tuples and mappings of these.

    InputError, which names file and key, for what is missing, unknown or of another type. Numbers are finite; a whole
    one will do for any.
    """
    made: _Kind = _typed(kind, value, file, key)
    return made


def _typed(hint: Any, value: Any, file: str | Path, key: str) -> Any:
    def expect(right: bool, expected: str, found: str | None = None) -> None:
        if not right:
            where = f"{key}: " if key else ""
            raise InputError(f"{where}expected {expected}, found {found or reprlib.repr(value)}", file=file)

    def inside(part: Any, name: str) -> Any:
        return _typed(part, value[name], file, f"{key}.{name}".removeprefix("."))

    origin, parts = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin is UnionType:  # ... | None
        return None if value is None else _typed(parts[0], value, file, key)
    if origin is tuple:
        expect(isinstance(value, list), "a list")
        if parts == (float, Ellipsis) and all(type(each) is float and math.isfinite(each) for each in value):
            return tuple(value)  # as below, only faster
        each = parts[:1] * len(value) if parts[-1] is Ellipsis else parts
        expect(len(value) == len(each), f"{len(each)} values")
        return tuple(_typed(part, value[at], file, f"{key}[{at}]") for at, part in enumerate(each))
    if origin is Mapping:
        expect(isinstance(value, dict), "an object")
        return {name: inside(parts[1], name) for name in value}
    if is_dataclass(hint):
        expect(isinstance(value, dict), "an object")
        stored = {field.name for field in fields(hint) if field.metadata.get("stored", True)}
        hints = {name: kind for name, kind in get_type_hints(hint).items() if name in stored}
        needed = (each.name for each in fields(hint) if each.default is each.default_factory is MISSING)
        missing = set(needed).difference(value)
        known = f"the keys {', '.join(hints)}"
        expect(not missing, known, f"no {', '.join(sorted(missing))}")
        expect(value.keys() <= hints.keys(), known, reprlib.repr(sorted(value.keys() - hints.keys())))
        made = {name: inside(hints[name], name) for name in value}
        return hint(**made)  # type: ignore[operator]  # is_dataclass thinks of instances
    if hint is float:
        expect(type(value) in (int, float) and abs(value) <= sys.float_info.max, _NAMES[hint])
    else:
        expect(isinstance(value, hint) and (hint is bool or not isinstance(value, bool)), _NAMES[hint])
    return hint(value)
