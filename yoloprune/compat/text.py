"""Rules on the bare text: marks, line ends, comments, blanks, keys that stand in the wrong place."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from yoloprune.compat import keys
from yoloprune.compat.base import FileRule, Remark, Severity, Subject
from yoloprune.compat.profiles import ReaderProfile

_BOM = "\ufeff"
_ENTRY = re.compile(r"[ \t]*([^#= \t]+)[ \t]*=[ \t]*([^#]+)")
"""A line with a value, as hank-ai's Darknet looks for it."""


def marks(reader: ReaderProfile, subject: Subject) -> Iterator[Remark]:
    """A byte order mark; CR at line ends."""
    lines = subject.cfg.lines
    if lines and lines[0].startswith(_BOM) and not reader.reads_bom:
        yield Remark("break", "a byte order mark hides [net], so that its keys stand before any section", line=1)
    cr = [number for number, line in enumerate(lines, 1) if "\r" in line]
    if cr and not reader.reads_cr:
        yield Remark("break", f"{len(cr)} lines end in CR LF; the CR stays in names and values", line=cr[0])


def stray_keys(reader: ReaderProfile, subject: Subject) -> Iterator[Remark]:
    """A key before the first section; a key without `=` or value; a comment that hank-ai takes for a key."""
    first = subject.cfg.sections[0].line
    for number, raw in enumerate(subject.cfg.lines, 1):
        line = raw.removeprefix(_BOM).strip()
        if not line or line[0] in "#[":
            continue
        if line[0] == ";":
            if reader.strict and _ENTRY.match(line):
                yield Remark("break", "a comment that starts with ; is read as a key", line=number)
        elif number < first:
            yield Remark("break", "a key before the first section", line=number)
        elif "=" not in line and reader.bare_key_refused:
            yield Remark("break", "a line without =", line=number)
        elif "=" not in line or not line.partition("=")[2].strip():
            yield Remark("note", "a key without a value counts as absent", line=number)


def section_lines(reader: ReaderProfile, subject: Subject) -> Iterator[Remark]:
    """A comment behind a section's name; blanks around it."""
    for section in subject.cfg.sections:
        line = subject.cfg.lines[section.line - 1].removeprefix(_BOM).rstrip()
        _, _, behind = line.partition("]")
        hidden = {"break": True, "net": section.name == "net", "hash": behind.strip()[:1] != "#"}
        if behind.strip() and not reader.strict and hidden[reader.section_comment]:
            yield Remark(
                "break", f"{behind.strip()[:20]!r} behind a section's name makes it unknown", line=section.line
            )
        within = line.split("]")[0] if reader.section_blanks == "anywhere" else line.split("]")[0].lstrip()
        if reader.section_blanks != "fine" and within != f"[{section.name}":
            yield Remark("break", "blanks before or within [ ] hide the section", line=section.line)


def values(reader: ReaderProfile, subject: Subject) -> Iterator[Remark]:
    """Comments and blanks within values."""
    for section in subject.cfg.sections:
        for entry in section.entries:
            raw = subject.cfg.lines[entry.line - 1].rstrip("\r\n")
            if reader.strict:
                yield from _strict(entry.key, raw, entry.line)
                continue
            at = re.search("[#;]", reader.cut(entry.value))
            if at is None or (reader.exact != "no" and entry.key not in keys.TEXTS):
                continue
            behind = entry.value[at.start() :]
            if entry.key in keys.TEXTS:
                severity: Severity = "break" if reader.unknown_activation_is is None else "differs"
                yield Remark(
                    severity, f"the comment is taken for part of the value {entry.value[:40]!r}", entry.key, entry.line
                )
            elif entry.key in keys.LISTS and "," in behind and not (entry.key in reader.hash_ends and behind[0] == "#"):
                yield Remark("differs", "commas in the comment add items to the list", entry.key, entry.line)


def _strict(key: str, raw: str, line: int) -> Iterator[Remark]:
    found = _ENTRY.match(raw.removeprefix(_BOM))
    if found is None:
        yield Remark("differs", "blanks within the key: the line is passed over", key, line)
        return
    value = found[2].strip()
    if key in keys.LISTS:
        if re.search(r"\d[eE]", value):
            yield Remark("differs", f"expected plain decimals; {value[:40]!r} is read as other numbers", key, line)
        elif ";" in value:
            yield Remark("differs", "numbers in a comment behind ; are added to the list", key, line)
    elif key not in keys.TEXTS and re.search(r"[^-.\d]", value):
        yield Remark("break", f"expected a number of digits, - and ., found {value[:40]!r}", key, line)


def python_lines(reader: ReaderProfile, subject: Subject) -> Iterator[Remark]:
    """What Python doesn't decode or split; a comment that it takes for a line."""
    if not reader.python:
        return
    first = subject.cfg.sections[0].line
    for number, raw in enumerate(subject.cfg.lines, 1):
        line = raw.removeprefix(_BOM).strip()
        two = reader.cut(line).count("=") > 1
        if any("\ud800" <= character <= "\udfff" for character in raw):
            yield Remark("break", "bytes that are no UTF-8", line=number)
        if number < first and reader.brackets_open and re.search(r"(?<!#)\[", line):
            yield Remark("break", "a [ before [net] starts a section", line=number)
        elif line[:1] == ";" and (line.count("=") != 1 or reader.exact == "all"):
            yield Remark("break", "a comment that starts with ; is read as a key", line=number)
        elif line[:1] == "#" and reader.comments == "first column" and raw[0] in " \t" and line.count("=") != 1:
            yield Remark("break", "a comment that is indented is read as a key", line=number)
        elif line[:1] not in ("#", "[") and two:
            yield Remark("break", "a line with two =", line=number)


RULES: Final[tuple[FileRule, ...]] = (marks, stray_keys, section_lines, values, python_lines)
