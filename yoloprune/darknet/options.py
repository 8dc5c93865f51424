"""Typed access to a section's values, as Darknet reads them (option_list.c), and errors that locate."""

from __future__ import annotations

import re
from collections.abc import Sequence

from yoloprune.darknet.cfg import Cfg, Entry, Section
from yoloprune.errors import InputError

_INTEGER = re.compile(r"[+-]?\d{1,10}(?=$|[.#;])")
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?(?=$|[#;])")
_INT_MAX = 2**31 - 1


class Options:
    """Reader of one section that remembers which keys were asked for.

    `index` is the layer's (sections after [net] count from 0), or None for [net]. Numbers are read as atoi/atof do,
    but anything else than a number, apart from a comment behind it, is an error instead of a silent 0 or half a text.
    """

    def __init__(self, cfg: Cfg, section: Section, index: int | None) -> None:
        self.cfg = cfg
        self.section = section
        self.index = index
        self._asked: set[str] = set()

    def error(self, message: str, key: str | None = None) -> InputError:
        """An InputError with file, line, section, layer and key."""
        entry = None if key is None else self.section.get(key)
        where = f"[{self.section.name}]" + ("" if self.index is None else f" layer {self.index}")
        what = "" if key is None else f" {key}" if entry is None else f" {key}={entry.value[:40]}"
        return InputError(f"{where}:{what} {message}", file=self.cfg.file, line=(entry or self.section).line)

    def has(self, key: str) -> bool:
        """Whether the key is there with a value."""
        return self._entry(key) is not None

    def integer(self, key: str, default: int, minimum: int | None = None, maximum: int | None = None) -> int:
        """Value as int; InputError if it is none or out of [minimum, maximum]."""
        entry = self._entry(key)
        if entry is None:
            return default
        (value,) = self._integers(key, [entry.value])
        self._check_range(key, value, minimum, maximum)
        return value

    def number(self, key: str, default: float, minimum: float | None = None, maximum: float | None = None) -> float:
        """Value as float; InputError if it is none or out of [minimum, maximum]."""
        entry = self._entry(key)
        if entry is None:
            return default
        (value,) = self._numbers(key, [entry.value])
        self._check_range(key, value, minimum, maximum)
        return value

    def integers(self, key: str) -> tuple[int, ...]:
        """Comma-separated ints; empty if the key is absent. A trailing comma adds nothing."""
        return self._integers(key, self._items(key))

    def numbers(self, key: str) -> tuple[float, ...]:
        """Comma-separated floats; empty if the key is absent. A trailing comma adds nothing."""
        return self._numbers(key, self._items(key))

    def text(self, key: str, default: str) -> str:
        """Value as text, blanks removed."""
        entry = self._entry(key)
        return default if entry is None else entry.value

    def choice(self, key: str, default: str, known: Sequence[str]) -> str:
        """Value, which must be one of `known`."""
        value = self.text(key, default)
        if value not in known:
            hint = "; a comment stands on its own line" if "#" in value or ";" in value else ""
            raise self.error(f"expected one of {', '.join(known)}{hint}", key)
        return value

    def refuse(self, keys: dict[str, float], why: str) -> None:
        """InputError if a key stands there with another value than its neutral one."""
        for key, neutral in keys.items():
            if self.number(key, neutral) != neutral:
                raise self.error(f"{why} (expected {neutral:g}, or no such key)", key)

    def unused(self) -> tuple[Entry, ...]:
        """Entries that nobody asked for, which Darknet calls unused fields."""
        return tuple(entry for entry in self.section.entries if entry.key not in self._asked)

    def _entry(self, key: str) -> Entry | None:
        self._asked.add(key)
        return self.section.get(key)

    def _items(self, key: str) -> list[str]:
        entry = self._entry(key)
        return [] if entry is None else re.split("[#;]", entry.value)[0].rstrip(",").split(",")

    def _integers(self, key: str, texts: Sequence[str]) -> tuple[int, ...]:
        values = []
        for text in texts:
            match = _INTEGER.match(text)
            if match is None or abs(int(match.group())) > _INT_MAX:
                raise self.error(f"expected a whole number, found {text[:40]!r}", key)
            values.append(int(match.group()))
        return tuple(values)

    def _numbers(self, key: str, texts: Sequence[str]) -> tuple[float, ...]:
        values = []
        for text in texts:
            match = _NUMBER.match(text)
            if match is None or not abs(float(match.group())) < 3e38:
                raise self.error(f"expected a number, found {text[:40]!r}", key)
            values.append(float(match.group()))
        return tuple(values)

    def _check_range(self, key: str, value: float, minimum: float | None, maximum: float | None) -> None:
        if (minimum is not None and value < minimum) or (maximum is not None and value > maximum):
            low = "" if minimum is None else f"{minimum:g}"
            high = "" if maximum is None else f"{maximum:g}"
            raise self.error(f"expected a value in {low}..{high}", key)
