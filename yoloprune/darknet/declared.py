"""Options declared as dataclass fields: a field says the key, default and range of its value, and the dialect's say.

A key is the field's name unless said. `extended`: only AlexeyAB's dialect knows it; elsewhere `otherwise` counts, or
the default. `trains`: it changes nothing but training, so all counts that Darknet reads (`Options.training`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field, fields
from typing import Any, TypedDict, Unpack

from yoloprune.darknet.dialect import Dialect
from yoloprune.darknet.options import Options

Read = Callable[[Options, Dialect, str], Any]
"""Value of a field, of its section's options, the dialect and the field's name."""


class How(TypedDict, total=False):
    """What all declarations may say."""

    key: str
    extended: bool
    otherwise: Any
    trains: bool


def declared(read: Read) -> Any:
    """A field whose value `read` gets."""
    return field(metadata={"read": read})


def integer(
    default: int | Callable[[Dialect], int], minimum: int | None = None, maximum: int | None = None, **how: Unpack[How]
) -> Any:
    """An int in minimum..maximum."""
    return _declared(default, lambda options, key, value: options.integer(key, value, minimum, maximum), how)


def number(
    default: float | Callable[[Dialect], float],
    minimum: float | None = None,
    maximum: float | None = None,
    **how: Unpack[How],
) -> Any:
    """A float in minimum..maximum."""
    return _declared(default, lambda options, key, value: options.number(key, value, minimum, maximum), how)


def flag(**how: Unpack[How]) -> Any:
    """Whether an int, 0 by default, is another."""
    return _declared(False, lambda options, key, value: options.flag(key), how)


def choice(default: str, **how: Unpack[How]) -> Any:
    """One of the words that the dialect has for the key; any other counts as the dialect says."""

    def read(options: Options, dialect: Dialect, name: str) -> str:
        key = how.get("key", name)
        if how.get("extended", False) and not dialect.extended:
            return default
        return (options.training if how.get("trains") else options).choice(key, default, *dialect.words[key])

    return declared(read)


def _declared(default: Any, ask: Callable[[Options, str, Any], Any], how: How) -> Any:
    def read(options: Options, dialect: Dialect, name: str) -> Any:
        value = default(dialect) if callable(default) else default
        if how.get("extended", False) and not dialect.extended:
            return how.get("otherwise", value)
        return ask(options.training if how.get("trains") else options, how.get("key", name), value)

    return declared(read)


def read_declared(cls: type, options: Options, dialect: Dialect) -> dict[str, Any]:
    """The values of a class's declared fields by name, asked for in their order."""
    return {
        each.name: each.metadata["read"](options, dialect, each.name) for each in fields(cls) if "read" in each.metadata
    }
