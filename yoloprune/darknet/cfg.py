"""`.cfg` text <-> sections, without losing a byte (Darknet: parser.c read_cfg, option_list.c).

The text stays as it was read, line by line; sections only say which line holds which key. So an unchanged file is
written back byte for byte, and an edit touches the lines it must.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from pathlib import Path

from yoloprune.artefacts import atomic_path, read_bytes
from yoloprune.errors import InputError

_BLANK = re.compile(r"[ \t\r\n]")
_EXPONENT = re.compile(r"(?<![\w.])[+-]?(?:\d+(?:\.\d*)?|\.\d+)[eE][+-]?\d{1,3}(?![\w.])")
_BOM = "\ufeff"


@dataclass(frozen=True)
class Entry:
    """One `key=value`, blanks removed as Darknet does (also inside the value)."""

    key: str
    value: str
    line: int
    """1-based line in the file."""


@dataclass(frozen=True)
class Section:
    """One `[name]` and its entries in file order."""

    name: str
    line: int
    entries: tuple[Entry, ...]
    empty: tuple[Entry, ...] = ()
    """Keys without a value, which count as absent."""

    def get(self, key: str) -> Entry | None:
        """The entry that Darknet would read: the first of that key. (OpenCV takes the last.)"""
        return self._first.get(key)

    @cached_property
    def _first(self) -> Mapping[str, Entry]:
        return {entry.key: entry for entry in reversed(self.entries)}


@dataclass(frozen=True)
class Cfg:
    """A parsed cfg: `lines` with their line ends are the truth, `sections` an index into them."""

    file: str
    lines: tuple[str, ...]
    sections: tuple[Section, ...]


def parse(data: bytes, file: str = "<cfg>", *, lenient: bool = False) -> Cfg:
    """Bytes of a cfg -> Cfg. InputError for what no Darknet reads: no [net] first, a key before it, a NUL byte.

    Nor does it read a value where the same key stands without `=` before: that is the first, and counts as absent.
    lenient: passes over a key before [net] and a comment behind `]`, which some readers do too.
    """
    text = data.decode("utf-8", "surrogateescape")
    lines = tuple(re.findall(r"[^\n]*\n|[^\n]+", text))
    sections: list[tuple[str, int, list[Entry], list[Entry]]] = []
    bare: dict[str, int] = {}
    for number, raw in enumerate(lines, 1):
        if "\0" in raw:
            raise InputError("expected text, found a NUL byte", file=file, line=number)
        line = _BLANK.sub("", raw.removeprefix(_BOM) if number == 1 else raw)
        if not line or line[0] in "#;":
            continue
        if line[0] == "[":
            if lenient:
                line = line[: line.find("]") + 1] or line
            if not line.endswith("]"):
                found = f"expected [section] and nothing after it, found {_shown(line)}"
                raise InputError(f"{found}; a comment stands on its own line", file=file, line=number)
            sections.append((line[1:-1], number, [], []))
            bare = {}
            continue
        if not sections:
            if lenient:
                continue
            raise InputError(f"expected [net] first, found {_shown(line)}", file=file, line=number)
        key, equals, value = line.partition("=")
        if equals and value:  # Darknet takes `key` and `key=` for an absent key
            if key in bare:
                found = f"found it without a value in line {bare[key]}, which Darknet takes"
                raise InputError(f"expected {_shown(key)} once, {found}", file=file, line=number)
            sections[-1][2].append(Entry(key, value, number))
            continue
        sections[-1][3].append(Entry(key, "", number))
        if not equals:
            bare.setdefault(key, number)
    if not sections:
        raise InputError("expected [net] first, found no section", file=file)
    name, line_of_first, _, _ = sections[0]
    if name not in ("net", "network"):
        raise InputError(f"expected [net] first, found [{_shown(name)}]", file=file, line=line_of_first)
    made = (Section(name, line, tuple(valued), tuple(empty)) for name, line, valued, empty in sections)
    return Cfg(file, lines, tuple(made))


def dump(cfg: Cfg) -> bytes:
    """Cfg -> bytes; `dump(parse(data)) == data` for every data that parses."""
    return "".join(cfg.lines).encode("utf-8", "surrogateescape")


def read(path: str | Path, *, lenient: bool = False, content: bytes | None = None) -> Cfg:
    """Parse the file at `path`. content: its bytes, where they are at hand."""
    return parse(read_bytes(path) if content is None else content, str(path), lenient=lenient)


def write(path: str | Path, cfg: Cfg, *, force: bool = False) -> None:
    """Dump to the file at `path`, whole or not at all."""
    with atomic_path(path, force=force) as temporary:
        temporary.write_bytes(dump(cfg))


def edit(cfg: Cfg, changes: Mapping[int, Mapping[str, str | None]]) -> Cfg:
    """The cfg with new values: `changes[section number][key] = value`, sections counted from 0 = [net].

    The line of a key is replaced, and any that repeats it, as readers differ in which they take; a missing key is added
    after the section's last entry; None removes a key. A comment behind an old value moves to its own line above. All
    else stays.
    """
    lines = list(cfg.lines)
    inserted: dict[int, list[str]] = {}
    for number, values in changes.items():
        section = cfg.sections[number]
        for key, value in values.items():
            found = [entry.line for entry in section.entries if entry.key == key]
            for line in found:
                raw = lines[line - 1]
                lines[line - 1] = _comment_above(raw) + ("" if value is None else f"{key}={value}{_line_end(raw)}")
            if not found and value is not None:
                last = section.entries[-1].line if section.entries else section.line
                inserted.setdefault(last, []).append(f"{key}={value}")
    out: list[str] = []
    for line_number, raw in enumerate(lines, 1):
        new = inserted.get(line_number, [])
        end = _line_end(cfg.lines[line_number - 1]) or "\n"
        out.append(raw + end if new and raw and not _line_end(raw) else raw)
        out.extend(text + end for text in new)
    return _reparsed(cfg, out)


def without(cfg: Cfg, lines: Collection[int]) -> Cfg:
    """The cfg without these lines, counted from 1."""
    return _reparsed(cfg, [raw for number, raw in enumerate(cfg.lines, 1) if number not in lines])


def renamed(cfg: Cfg, names: Mapping[int, str]) -> Cfg:
    """The cfg with new names of sections: `names[section number]`, counted from 0 = [net]."""
    at = {cfg.sections[number].line: name for number, name in names.items()}
    lines = [f"[{at[number]}]{_line_end(raw)}" if number in at else raw for number, raw in enumerate(cfg.lines, 1)]
    return _reparsed(cfg, lines)


def without_sections(cfg: Cfg, numbers: Collection[int]) -> Cfg:
    """The cfg without these sections, counted from 0 = [net]: their lines from the name to the last entry.

    What stands around them stays: comments and blank lines before the name and after the last entry.
    """
    lines: set[int] = set()
    for number in numbers:
        section = cfg.sections[number]
        lines.update(range(section.line, max([section.line, *(entry.line for entry in section.entries)]) + 1))
    return without(cfg, lines) if lines else cfg


def legal(cfg: Cfg) -> Cfg:
    """The cfg as every reader takes it; only offending lines change.

    No BOM and no CR (pjreddie refuses them), no blanks around section names and `=`, a comment behind a value on
    its own line above (Darknet would read it as value), plain decimals (hank-ai refuses 1e-3), no key without a value
    (OpenCV refuses it), none that repeats another (OpenCV takes the last, hank-ai refuses it), no comment that looks
    like a key (hank-ai takes `;a=b` for one).
    """
    repeated = {entry.line for each in cfg.sections for entry in each.entries if each.get(entry.key) is not entry}
    entries = {entry.line: entry for section in cfg.sections for entry in section.entries}
    sections = {section.line: section for section in cfg.sections}
    out = []
    for number, raw in enumerate(cfg.lines, 1):
        if number in repeated:
            continue
        line = (raw.removeprefix(_BOM) if number == 1 else raw).replace("\r", "")
        text = line.strip()
        if number in entries:
            above = re.sub("^;", "#", _comment_above(line))
            key, _, value = _without_comment(line).partition("=")
            if "," not in value:
                value = _BLANK.sub("", value)
            plain = _EXPONENT.sub(lambda match: _plain(match.group()), value.strip())
            if above or plain != _without_comment(line).partition("=")[2] or key != entries[number].key:
                line = f"{above}{entries[number].key}={plain}{_line_end(line)}"
        elif number in sections:
            line = f"[{sections[number].name}]{_line_end(line)}"
        elif text and line[0] != "#":
            line = f"{text if text[0] == '#' else '# ' + text.lstrip(';').lstrip()}{_line_end(line)}"
        out.append(line)
    return _reparsed(cfg, out)


def _reparsed(cfg: Cfg, lines: Sequence[str]) -> Cfg:
    return parse("".join(lines).encode("utf-8", "surrogateescape"), cfg.file)


def _line_end(raw: str) -> str:
    return raw[len(raw.rstrip("\r\n")) :]


def _without_comment(raw: str) -> str:
    return re.split(r"[#;]", raw.rstrip("\r\n"), maxsplit=1)[0]


def _comment_above(raw: str) -> str:
    """The comment behind a value as a line of its own, or nothing."""
    comment = raw.rstrip("\r\n")[len(_without_comment(raw)) :]
    return comment + (_line_end(raw) or "\n") if comment else ""


def _plain(number: str) -> str:
    return format(Decimal(number), "f")


def _shown(text: str) -> str:
    """Text from a file, cut and printable, for a message."""
    return repr(text if len(text) <= 40 else text[:40] + "...")
