"""Typed access to a section's values, as Darknet reads them (option_list.c), and errors that locate."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

from yoloprune.darknet.cfg import Cfg, Entry, Section
from yoloprune.darknet.cnumbers import atof, atoi, strtod, strtol
from yoloprune.errors import InputError

_INT_MAX = 2**31 - 1
_FLOAT_MAX = 3e38
_COMMENT = ("#", ";")


class Misread(NamedTuple):
    """A value that Darknet reads as another than is written."""

    section: int
    """Counted from 0 = [net]."""
    key: str
    value: str
    """What it reads, written plainly."""
    line: int
    message: str


Kind = Literal["presence", "number", "list", "text"]


class Asked(NamedTuple):
    """As what a key was asked for."""

    kind: Kind
    """presence: only whether it is there."""
    default: object
    """None: it depends on something else, or there is none."""
    trains: bool
    """Whether it changes nothing but training."""


class Options:
    """One section's values by key; remembers which keys were asked for.

    `index` is the layer's (sections after [net] count from 0), or None for [net]. Numbers are read as atoi/atof do,
    but anything else than a number, apart from a comment behind it, is an error instead of a silent 0 or half a text.
    """

    _trains = False

    def __init__(self, cfg: Cfg, section: Section, index: int | None) -> None:
        self.cfg = cfg
        self.section = section
        self.index = index
        self.misread: list[Misread] = []
        """What Darknet reads otherwise than it is written."""
        self.asked: dict[str, Asked] = {}
        """Keys that were asked for, whether they are there or not."""

    @property
    def training(self) -> Options:
        """The same for keys that change nothing but training: all counts that Darknet reads.

        What is no plain number counts as atoi/atof have it, commas at the end of a list add 0; each is a `Misread`.
        """
        return _AsDarknet(self)

    def error(self, message: str, key: str | None = None) -> InputError:
        """An InputError with file, line, section, layer and key."""
        entry = None if key is None else self.section.get(key)
        line = (entry or self.section).line
        return InputError(f"{self._where(key)} {message}", file=self.cfg.file, line=line)

    def note_misread(self, key: str, why: str, value: str) -> None:
        """Remember what Darknet reads instead of what is written."""
        entry = self.section.get(key)
        message = f"{self._where(key)} {why}: Darknet takes {value}"
        misread = Misread(
            0 if self.index is None else self.index + 1, key, value, (entry or self.section).line, message
        )
        if misread not in self.misread:
            self.misread.append(misread)

    def _where(self, key: str | None) -> str:
        """Section, layer, key and value."""
        entry = None if key is None else self.section.get(key)
        where = f"[{self.section.name}]" + ("" if self.index is None else f" layer {self.index}")
        return f"{where}:" + ("" if key is None else f" {key}" if entry is None else f" {key}={entry.value[:40]}")

    def has(self, key: str) -> bool:
        """Whether the key is there with a value."""
        return self._entry(key, "presence", None) is not None

    def integer(
        self, key: str, default: int, minimum: int | None = None, maximum: int | None = None, when: bool = True
    ) -> int:
        """Value as int; InputError if it is none or out of [minimum, maximum]. when: False, Darknet doesn't look."""
        entry = self._entry(key, "number", default, when)
        if entry is None:
            return default
        (value,) = self._integers(key, [entry.value])
        self._check_range(key, value, minimum, maximum)
        return value

    def flag(self, key: str, when: bool = True) -> bool:
        """Whether an int, 0 by default, is another; InputError if it is none."""
        return self.integer(key, 0, when=when) != 0

    def number(self, key: str, default: float, minimum: float | None = None, maximum: float | None = None) -> float:
        """Value as float; InputError if it is none or out of [minimum, maximum]."""
        entry = self._entry(key, "number", default)
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
        entry = self._entry(key, "text", default)
        return default if entry is None else entry.value

    def choice(self, key: str, default: str, known: Sequence[str], otherwise: str | None = None) -> str:
        """Value, which must be one of `known`; `otherwise`: the word that Darknet takes for any other."""
        value = self.text(key, default)
        if value in known:
            return value
        hint = "; a comment stands on its own line" if "#" in value or ";" in value else ""
        expected = f"expected one of {', '.join(known)}{hint}"
        if otherwise is None:
            raise self.error(expected, key)
        self.note_misread(key, expected, otherwise)
        return otherwise

    def refuse(self, keys: dict[str, float], why: str) -> None:
        """InputError if a key stands there with another value than its neutral one."""
        for key, neutral in keys.items():
            if self.number(key, neutral) != neutral:
                raise self.error(f"{why} (expected {neutral:g}, or no such key)", key)

    def unused(self) -> tuple[Entry, ...]:
        """Entries that nobody asked for, which Darknet calls unused fields."""
        return tuple(entry for entry in self.section.entries if entry.key not in self.asked)

    def _entry(self, key: str, kind: Kind, default: object, when: bool = True) -> Entry | None:
        if when and (kind != "presence" or key not in self.asked):
            self.asked[key] = Asked(kind, default, self._trains)
        return self.section.get(key) if when else None

    def _items(self, key: str) -> list[str]:
        entry = self._entry(key, "list", None)
        commas = "" if self._trains else ","
        return [] if entry is None else _uncommented(entry.value).rstrip(commas).split(",")

    def _integers(self, key: str, texts: Sequence[str]) -> tuple[int, ...]:
        odd = [text for text in texts if not _is_whole(text)]
        values = tuple(atoi(text) for text in texts)
        if odd:
            self._odd(key, f"expected a whole number, found {odd[0][:40]!r}", values)
        return values

    def _numbers(self, key: str, texts: Sequence[str]) -> tuple[float, ...]:
        odd = [text for text in texts if not _is_number(text)]
        values = tuple(atof(text) for text in texts)
        if odd:
            self._odd(key, f"expected a number, found {odd[0][:40]!r}", values)
        return values

    def _odd(self, key: str, message: str, values: Sequence[float]) -> None:
        """There are other texts than plain numbers; `values` is what Darknet reads."""
        raise self.error(message, key)

    def _check_range(self, key: str, value: float, minimum: float | None, maximum: float | None) -> None:
        if (minimum is not None and value < minimum) or (maximum is not None and value > maximum):
            low = "" if minimum is None else f"{minimum:g}"
            high = "" if maximum is None else f"{maximum:g}"
            raise self.error(f"expected a value in {low}..{high}", key)


class _AsDarknet(Options):
    """See `Options.training`."""

    _trains = True

    def __init__(self, strict: Options) -> None:
        super().__init__(strict.cfg, strict.section, strict.index)
        self.misread, self.asked = strict.misread, strict.asked

    def _odd(self, key: str, message: str, values: Sequence[float]) -> None:
        if not all(abs(value) < _FLOAT_MAX for value in values):
            raise self.error(message, key)
        self.note_misread(key, message, ",".join(f"{value:.10g}" for value in values))


def _uncommented(text: str) -> str:
    return re.split("[#;]", text)[0]


def _is_whole(text: str) -> bool:
    """Whether a text is a whole number that an int holds, but for decimals and a comment behind it."""
    value, rest = strtol(text)
    return rest != text and rest[:1] in ("", ".", *_COMMENT) and abs(value) <= _INT_MAX


def _is_number(text: str) -> bool:
    """Whether a text is a number that a float holds, but for a comment behind it."""
    value, rest = strtod(text)
    return rest != text and rest[:1] in ("", *_COMMENT) and abs(value) < _FLOAT_MAX
