"""Which keys Darknet's parser knows in a section, for each dialect: what its layer class asks for, and its notes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from functools import cache

from yoloprune.darknet.cfg import Entry, parse
from yoloprune.darknet.dialect import DIALECTS, Dialect
from yoloprune.darknet.layers.base import REGISTRY, Context, KeyNotes, Layer, Shape, known_to
from yoloprune.darknet.layers.reading import read_storage
from yoloprune.darknet.net import Net, Updates
from yoloprune.darknet.options import Asked, Kind, Options
from yoloprune.errors import InputError

_ANY = Shape(1, 1, 1)


class _Recorder(Options):
    """Of an empty section: notes also the keys that are only looked at when others say so."""

    def _entry(self, key: str, kind: Kind, default: object, when: bool = True) -> Entry | None:
        return super()._entry(key, kind, default)


def _recorded(text: str, read: Callable[[Options], object]) -> Mapping[str, Asked]:
    cfg = parse(text.encode(), "<keys>")
    options = _Recorder(cfg, cfg.sections[-1], 1)
    with suppress(InputError):
        read(options)
    return options.asked


@cache
def asked(kind: type[Layer], dialect: Dialect) -> Mapping[str, Asked]:
    """Keys that the class asks for in an empty section; none where the dialect doesn't have it."""

    def read(options: Options) -> None:
        layer = kind.read(options, Context(1, {-1: _ANY, 0: _ANY}, dialect, 1, 1))
        if layer.tensors():
            read_storage(options, dialect, layer.tensors())

    known = _recorded(f"[net]\n[{kind.names[0]}]\n", read) if known_to(kind, dialect) else {}
    return _known(known, kind.key_notes, dialect)


def asked_of_net(dialect: Dialect) -> Mapping[str, Asked]:
    """Keys that are asked for in [net]."""
    known = _recorded("[net]\nwidth=1\nheight=1\nchannels=1\n", lambda options: Net.read(options, dialect))
    return _known(known, Net.key_notes, dialect)


@cache
def layer_keys(kind: type[Layer], dialect: Dialect) -> frozenset[str]:
    """Keys of such a section that the dialect's Darknet reads, those of every section included."""
    updates = _recorded("[net]\n[any]\n", lambda options: Updates.read(options, dialect))
    return _with_unread(asked(kind, dialect), kind.key_notes, dialect) | _with_unread(
        updates, Updates.key_notes, dialect
    )


@cache
def net_keys(dialect: Dialect) -> frozenset[str]:
    """Keys of [net] that the dialect's Darknet reads."""
    return _with_unread(asked_of_net(dialect), Net.key_notes, dialect)


def _known(found: Mapping[str, Asked], notes: KeyNotes, dialect: Dialect) -> Mapping[str, Asked]:
    unknown = notes.unknown_extended if dialect.extended else notes.unknown_classic
    return {key: each for key, each in found.items() if key not in unknown.split()}


def _with_unread(known: Collection[str], notes: KeyNotes, dialect: Dialect) -> frozenset[str]:
    more = notes.unread_extended if dialect.extended else notes.unread_classic
    return frozenset({*known, *notes.unread.split(), *more.split()})


def keys_of(section: str, dialect: Dialect) -> frozenset[str] | None:
    """Keys of a section, by its full name, that the dialect's Darknet reads; None: it has no such section."""
    if section == "net":
        return net_keys(dialect)
    kind = REGISTRY.get(section)
    return layer_keys(kind, dialect) if kind is not None and known_to(kind, dialect) else None


def full_name(section: str) -> str:
    """The name of which `section` is an alias, whoever knows it; else itself."""
    kind = REGISTRY.get(section)
    return kind.names[0] if kind is not None else {"network": "net"}.get(section, section)


def asked_as(kind: Kind) -> frozenset[str]:
    """Keys that any section's values are asked for as such, in any dialect."""
    every = [
        *(asked(layer, dialect) for dialect in DIALECTS.values() for layer in {*REGISTRY.values()}),
        *(asked_of_net(dialect) for dialect in DIALECTS.values()),
    ]
    return frozenset(key for known in every for key, each in known.items() if each.kind == kind)
