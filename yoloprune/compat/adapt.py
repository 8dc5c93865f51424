"""A cfg written anew for one reader: the same network in words that it takes."""

from __future__ import annotations

from collections.abc import Iterator

from yoloprune.compat import check, keys
from yoloprune.compat.base import REFERENCES, Node, Subject, net_node, nodes
from yoloprune.compat.profiles import ReaderProfile, number
from yoloprune.compat.values import has_effect, out_of_season, readable, words
from yoloprune.darknet import cfg as cfg_file
from yoloprune.darknet.cfg import Cfg, Entry
from yoloprune.darknet.cnumbers import atoi
from yoloprune.darknet.keys import full_name
from yoloprune.darknet.options import Options


def adapted(cfg: Cfg, reader: ReaderProfile) -> Cfg:
    """The cfg with notation, names and keys that the reader knows, and its defaults spelt out.

    Lines go that change nothing: keys that the reader would refuse and that don't matter to what is computed.
    InputError, with the line, for what can't be said in the reader's words.
    """
    names = {at: full_name(section.name) for at, section in enumerate(cfg.sections)}
    known = {at: name for at, name in names.items() if reader.kind(cfg.sections[at].name) is None}
    result = cfg_file.renamed(cfg_file.legal(cfg), known)
    result = cfg_file.without(result, {entry.line for node in _nodes(result, reader) for entry in _needless(node)})
    spelt_out = {0 if node.index is None else node.index + 1: dict(_spelt_out(node)) for node in _nodes(result, reader)}
    result = cfg_file.edit(result, spelt_out)
    for finding in check(result, [reader]):
        if finding.severity in ("break", "differs"):
            section = cfg.sections[0 if finding.layer is None else finding.layer + 1]
            raise Options(cfg, section, finding.layer).error(
                f"can't be written for {reader.title}: {finding.message}", finding.key
            )
    return result


def _nodes(cfg: Cfg, reader: ReaderProfile) -> list[Node]:
    """The sections that the reader has; what it lacks is found by the check afterwards."""
    subject = Subject(cfg, None, None, None)
    every = (net_node(reader, subject), *nodes(reader, subject))
    return [node for node in every if reader.kind(node.section.name) is not None]


def _needless(node: Node) -> Iterator[Entry]:
    for entry in node.section.entries:
        unknown = not node.reader.knows(node.kind, entry.key) or any(out_of_season(node, entry))
        strange = unknown and (node.reader.unknown_key_refused or not readable(node, entry))
        neutral = entry.key in ("alpha", "beta") and node.kind == "shortcut"
        if (strange or neutral) and not has_effect(node, entry):
            yield entry


def _spelt_out(node: Node) -> Iterator[tuple[str, str]]:
    """Keys that must be there for this reader, and lists of the length it wants."""
    wanted = {key for kind, key in node.reader.defaults if kind == node.kind} | {*node.reader.needed.get(node.kind, ())}
    if node.reader.default_activation != "logistic" and node.kind in ("convolutional", "connected"):
        wanted.add("activation")
    if node.kind == "yolo":
        wanted |= node.reader.heads.everywhere
    if node.reader.group_id_needed != "no" and node.has("groups"):
        wanted.add("group_id")
    for key, value in keys.defaults(node.kind).items():
        if key in wanted and not node.has(key):
            other = node.section.get(value[1:])
            yield key, value if not value.startswith(keys.SAME_AS) else "1" if other is None else other.value
    for remark in words(node):
        if remark.key is not None:
            yield remark.key, node.reader.dialect.words[remark.key].otherwise
    for entry in node.section.entries:
        if entry.key in keys.LISTS and entry.value.endswith(","):
            yield entry.key, entry.value.rstrip(",")
    yield from _padding(node)
    yield from _indexes(node)
    if node.kind in node.reader.anchors:
        num = node.section.get("num")
        count = 1 if num is None else int(number(num.value))
        anchors = node.section.get("anchors")
        given = [] if anchors is None else anchors.value.rstrip(",").split(",")
        if len(given) != 2 * count:
            yield "anchors", ",".join((given + ["0.5"] * (2 * count))[: 2 * count])
        if "mask" in wanted and not node.has("mask"):
            yield "mask", ",".join(map(str, range(count)))


def _padding(node: Node) -> Iterator[tuple[str, str]]:
    """`padding` that is size / 2 as `pad`, for a reader that knows that key only."""
    if node.kind != "convolutional" or node.reader.knows(node.kind, "padding") or node.integer("pad", 0):
        return
    padding, size = (0 if entry is None else atoi(entry.value) for entry in map(node.section.get, ("padding", "size")))
    if padding and padding == size // 2:
        yield "pad", "1"


def _indexes(node: Node) -> Iterator[tuple[str, str]]:
    """Relative indexes, for a reader that takes absolute ones for other layers."""
    key = REFERENCES.get(node.kind)
    if key is None or node.index is None or not (node.reader.zero_refused or key in node.reader.misread_indexes):
        return
    values = node.integers(key)
    if any(value >= 0 for value in values):
        yield key, ",".join(str(value if value < 0 else value - node.index) for value in values)
