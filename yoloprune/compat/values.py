"""Rules on one section's name, keys and values, whatever stands around it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from yoloprune.compat import keys
from yoloprune.compat.base import Node, Remark, Rule, shown
from yoloprune.compat.profiles import PROFILES, ReaderProfile, number
from yoloprune.darknet.cfg import Entry
from yoloprune.darknet.cnumbers import strtod
from yoloprune.darknet.layers import REGISTRY

_WHOLE: Final = re.compile(r"[+-]?\d+")
_NUMBER: Final = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_MANY: Final = 200
"""Keys of a section over which nobody is helped by guesses at each."""


def unknown_section(node: Node) -> Iterator[Remark]:
    """A section that the reader doesn't have, or not by that name, or that it fails on."""
    if node.reader.kind(node.section.name) is not None:
        if node.kind in node.reader.refused:
            yield Remark("break", node.reader.refused[node.kind])
        return
    name = node.section.name
    alias = node.kind not in (name, "net") and node.reader.keys(node.kind) is not None
    close = None if node.kind in REGISTRY else _nearest(name, frozenset(kind.names[0] for kind in REGISTRY.values()))
    hint = f"; is it [{close}]?" if close else f"; the full name [{node.kind}] is known" if alias else ""
    yield Remark("break", f"unknown section [{name[:40]}]{hint}")


def unknown_keys(node: Node) -> Iterator[Remark]:
    """A key that the reader doesn't have, or that it reads under another policy only."""
    for entry in node.reader.counting(node.section).values():
        if node.reader.knows(node.kind, entry.key):
            yield from out_of_season(node, entry)
        elif node.reader.unknown_key_refused:
            yield Remark("break", f"unknown key {entry.key[:40]}{_hint(node, entry.key)}", entry.key, entry.line)
        elif has_effect(node, entry):
            fatal = (node.kind, entry.key) in node.reader.fatal
            what = "and other weights are read" if fatal else "passed over where it has an effect"
            yield Remark("break" if fatal else "differs", f"unknown key {entry.key}, {what}", entry.key, entry.line)
        elif node.reader.trains or not _known_to(node.kind, entry.key):
            yield Remark("ignored", f"unknown key {entry.key[:40]}{_hint(node, entry.key)}", entry.key, entry.line)


def repeated_keys(node: Node) -> Iterator[Remark]:
    """A key that stands twice in a section."""
    seen: dict[str, Entry] = {}
    for entry in node.section.entries:
        first = seen.setdefault(entry.key, entry)
        if first is entry:
            continue
        if node.reader.repeated == "refused":
            yield Remark("break", f"repeats line {first.line}", entry.key, entry.line)
        elif node.reader.repeated == "first":
            yield Remark("ignored", f"repeats line {first.line}, which counts", entry.key, entry.line)
        elif entry.value != first.value and node.reader.knows(node.kind, entry.key):
            yield Remark(
                "differs", f"repeats line {first.line}; this one counts, elsewhere the first", entry.key, entry.line
            )


def numbers(node: Node) -> Iterator[Remark]:
    """A value that is no number, or no whole one, where a number is read."""
    for entry in node.reader.counting(node.section).values():
        exact = node.reader.strict or node.reader.exact != "no"
        if entry.key in keys.TEXTS or exact or not node.reader.knows(node.kind, entry.key):
            continue
        items = node.reader.items(entry) if entry.key in keys.LISTS else [entry.value]
        if "" in items[:-1] and node.reader.trains:
            yield Remark("differs", "an empty item of the list counts as 0", entry.key, entry.line)
        for item in items:
            if item and not re.match(r"[+-]?\.?\d", item):
                found = f"expected a number, found {item[:40]!r}"
                yield (
                    Remark("break", found, entry.key, entry.line)
                    if node.reader.no_number_refused
                    else Remark("differs", f"{found}, which counts as 0", entry.key, entry.line)
                )
            elif strtod(item)[1][:1] not in ("", ".", "#", ";"):
                yield Remark("note", f"the number that {item[:40]!r} starts with counts", entry.key, entry.line)


def exact_numbers(node: Node) -> Iterator[Remark]:
    """A value that isn't a number as a whole, for Python's int() and float()."""
    if node.reader.exact == "no":
        return
    for entry in node.reader.counting(node.section).values():
        if not readable(node, entry):
            found = f"expected a number and nothing else, found {entry.value[:40]!r}"
            yield Remark("break", found, entry.key, entry.line)


def readable(node: Node, entry: Entry) -> bool:
    """Whether a reader that wants exact numbers takes the entry, known to it or not."""
    reads_all = node.reader.exact == "all" and node.kind not in ("yolo", "region")
    known = node.reader.knows(node.kind, entry.key)
    if not known and not reads_all:
        return True
    if entry.key in keys.TEXTS and (known or node.reader.cut(entry.value).isalpha()):
        return True
    several = known and entry.key in keys.LISTS and entry.key != "from"
    items = node.reader.items(entry) if several else [node.reader.cut(entry.value)]
    number = _NUMBER if reads_all or entry.key in ("anchors", "scale_x_y", "steps", "scales") else _WHOLE
    return all(number.fullmatch(item) or (reads_all and not known and item.isalpha()) for item in items)


def trailing_comma(node: Node) -> Iterator[Remark]:
    """A comma at the end of a list."""
    for entry in node.reader.counting(node.section).values():
        if (
            entry.key not in keys.LISTS
            or not re.search(r",(#|;|$)", entry.value)
            or not node.reader.knows(node.kind, entry.key)
        ):
            continue
        if node.reader.trailing_comma_adds and not (
            entry.key == "anchors" and node.reader.anchors.get(node.kind) == "cut"
        ):
            yield Remark("differs", "a comma at the end adds a 0 to the list", entry.key, entry.line)


def activation(node: Node) -> Iterator[Remark]:
    """An activation that is unknown, gives zeros, or is another where none is written."""
    entry = node.reader.entry(node.section, "activation")
    if not node.reader.knows(node.kind, "activation"):
        return
    if entry is None:
        if node.kind in ("convolutional", "connected") and node.reader.default_activation != "logistic":
            yield Remark("differs", f"without activation= it takes {node.reader.default_activation}; Darknet logistic")
        return
    name = node.text("activation", "")
    if re.search("[#;]", name):
        return  # said of its comment
    if name not in node.reader.own_activations.get(node.kind, node.reader.activations):
        instead = node.reader.unknown_activation_is
        if instead is None:
            where = f" in [{node.kind}]" if name in node.reader.activations else ""
            yield Remark("break", f"unknown activation {name[:40]}{where}", "activation")
        else:
            yield Remark("differs", f"{instead} instead of {name[:40]}", "activation")
    elif name in node.reader.mute.get("", ()) or name in node.reader.mute.get(node.kind, ()):
        yield Remark("differs", f"{name} gives zeros on a CPU in [{node.kind}]", "activation")


def words(node: Node) -> Iterator[Remark]:
    """A word that Darknet takes for another, and hank-ai's refuses."""
    for key, words in node.reader.dialect.words.items():
        entry = node.reader.entry(node.section, key)
        if entry is None or not node.reader.knows(node.kind, key):
            continue
        word = node.text(key, "")
        if word in words.known or word in node.reader.more_words.get(key, ()) or re.search("[#;]", word):
            continue  # of its comment something else is said
        found = f"unknown {key} {word[:40]}"
        yield (
            Remark("break", found, key)
            if node.reader.strict
            else Remark("differs", f"{found}: {words.otherwise} is taken", key)
        )


def other_defaults(node: Node) -> Iterator[Remark]:
    """A key that is left out and has another default in this reader, or that it needs."""
    for key in node.reader.needed.get(node.kind, ()):
        if not node.has(key):
            yield Remark("break", f"needs {key}=")
    for (kind, key), default in node.reader.defaults.items():
        if kind == node.kind and not node.has(key) and key not in node.reader.needed.get(kind, ()):
            if (kind, key) == ("maxpool", "size") and node.number("stride", 1) == default:
                continue  # Darknet's default is the stride
            yield Remark("differs", f"without {key}= it takes {default:g}; Darknet another value")


def out_of_season(node: Node, entry: Entry) -> Iterator[Remark]:
    """A reader that refuses keys which nobody asked for asks for some under one policy only."""
    if node.kind != "net" or not node.reader.unknown_key_refused:
        return
    policy = node.text("policy", "constant")
    if entry.key in keys.POLICY_KEYS and entry.key not in keys.POLICIES.get(policy, keys.POLICY_KEYS):
        yield Remark("break", f"{entry.key} is unknown under policy={policy}", entry.key, entry.line)
    if entry.key in keys.ADAM_KEYS and not node.integer("adam", 0):
        yield Remark("break", f"{entry.key} is unknown without adam=1", entry.key, entry.line)


def has_effect(node: Node, entry: Entry) -> bool:
    """Whether the entry changes what a network computes: a key that does, with another value than its neutral one."""
    neutral = keys.effects(node.kind).get(entry.key)
    if neutral is None:
        return False
    if neutral == keys.ANY:
        return True
    if neutral.startswith(keys.SAME_AS):
        other = node.reader.entry(node.section, neutral[1:])
        neutral = "1" if other is None else other.value
    if entry.key == "dilation" and node.number("size", 1) == 1:
        return False
    if re.match(r"[-+.\d]", neutral):
        return number(entry.value) != number(neutral)
    return entry.value != neutral


def _known_to(kind: str, key: str) -> list[ReaderProfile]:
    return [reader for reader in PROFILES.values() if reader.knows(kind, key)]


def _hint(node: Node, key: str) -> str:
    """Who knows the key; if nobody does, which one may be meant."""
    if node.reader.unknown_key_refused:
        return ""
    known = _known_to(node.kind, key)
    if known:
        return f", known to {shown([reader.name for reader in known])}"
    close = None if len(node.section.entries) > _MANY else _nearest(key, _all_keys(node.kind))
    return f"; is it {close}?" if close else ", known to no reader"


def _all_keys(kind: str) -> frozenset[str]:
    return frozenset().union(*(reader.keys(kind) or () for reader in PROFILES.values()))


@lru_cache(1024)
def _nearest(word: str, known: frozenset[str]) -> str | None:
    close = difflib.get_close_matches(word, known, 1, 0.8) if len(word) <= 40 else []
    return close[0] if close else None


RULES: Final[tuple[Rule, ...]] = (
    unknown_keys,
    repeated_keys,
    numbers,
    exact_numbers,
    trailing_comma,
    activation,
    words,
    other_defaults,
)
"""Rules on a section whose name is known."""
