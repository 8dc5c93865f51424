"""Whether and where a network's files break or mean something else in other programs.

`profiles`, `converters` and `keys` are what readers do, as data; `text`, `values`, `layers`, `sizes`, `heads` and
`files` are the rules; `zeros` and `bits` count what two of
them tell of.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import replace

from yoloprune.compat import files, heads, layers, sizes, text, values
from yoloprune.compat.base import (
    SEVERITIES,
    Finding,
    Node,
    Remark,
    Severity,
    Subject,
    WeightsFile,
    net_node,
    nodes,
    subject_of,
)
from yoloprune.compat.converters import CONVERTERS, profile_named
from yoloprune.compat.profiles import PROFILES, ReaderProfile
from yoloprune.darknet.cfg import Cfg

__all__ = [
    "CONVERTERS",
    "PROFILES",
    "SEVERITIES",
    "Finding",
    "ReaderProfile",
    "Severity",
    "WeightsFile",
    "check",
    "lost_values",
    "profile_named",
]


def check(cfg: Cfg, readers: Sequence[ReaderProfile], weights: WeightsFile | None = None) -> list[Finding]:
    """What every rule finds for the readers, by line; remarks on the weights file stand at the end."""
    subject = subject_of(cfg, weights)
    found = [finding for reader in readers for finding in _for_reader(reader, subject)]
    if subject.refusal is not None:
        left = len(subject.layers)
        known = subject.input is not None and left + 1 < len(cfg.sections)
        at = Node(readers[0], subject, cfg.sections[left + 1 if known else 0], left if known else None)
        message = f"from here on shapes are unknown, and what depends on them isn't checked: {subject.refusal}"
        found.append(replace(_located(at, Remark("note", message)), reader="yoloprune"))
    return sorted(found, key=lambda finding: (finding.line is None, finding.line or 0))


def _for_reader(reader: ReaderProfile, subject: Subject) -> Iterator[Finding]:
    net = net_node(reader, subject)
    if reader.refuses is not None:
        yield _located(net, Remark("break", reader.refuses))
        return
    for rule in (*text.RULES, *files.RULES, *sizes.FILE_RULES, *heads.FILE_RULES):
        yield from (_located(net, remark) for remark in rule(reader, subject))
    for node in (net, *nodes(reader, subject)):
        unknown = list(values.unknown_section(node))
        yield from (_located(node, remark) for remark in unknown)
        for section_rule in () if unknown else (*values.RULES, *layers.RULES, *sizes.RULES, *heads.RULES):
            yield from (_located(node, remark) for remark in section_rule(node))
    for rule in files.WEIGHTS_RULES:
        yield from (_of_weights(reader, remark) for remark in rule(reader, subject))


def lost_values(cfg: Cfg, readers: Sequence[ReaderProfile], weights: WeightsFile) -> list[Finding]:
    """Values that are no numbers to readers, alone."""
    subject = subject_of(cfg, weights)
    return [_of_weights(reader, remark) for reader in readers for remark in files.weights_values(reader, subject)]


def _of_weights(reader: ReaderProfile, remark: Remark) -> Finding:
    return Finding(None, None, None, reader.name, remark.severity, f"weights: {remark.message}")


def _located(node: Node, remark: Remark) -> Finding:
    line, layer = remark.line, node.index
    if line is None:
        entry = None if remark.key is None else node.reader.entry(node.section, remark.key)
        line = node.section.line if entry is None else entry.line
    elif layer is None:  # a rule on the whole file: the layer is that of the line
        layer = max(bisect_right(node.subject.starts, line) - 2, -1)
    layer = None if layer == -1 else layer
    key = None if remark.key is None else _printable(remark.key)
    return Finding(line, layer, key, node.reader.name, remark.severity, _printable(remark.message))


def _printable(text: str) -> str:
    """Bytes of a file that are no UTF-8, made visible."""
    return text.encode("utf-8", "backslashreplace").decode()
