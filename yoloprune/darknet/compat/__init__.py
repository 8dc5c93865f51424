"""Whether and where a network's files break or mean something else in other programs.

`facts` and `keys` are what readers do, as data; `text`, `values`, `layers` and `files` are the rules.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from yoloprune.darknet.cfg import Cfg
from yoloprune.darknet.compat import files, layers, text, values
from yoloprune.darknet.compat.base import SEVERITIES, Finding, Node, Remark, Severity, Subject, WeightsFile, understood
from yoloprune.darknet.compat.facts import READERS, Reader, reader_named

__all__ = ["READERS", "SEVERITIES", "Finding", "Reader", "Severity", "WeightsFile", "check", "reader_named"]


def check(cfg: Cfg, readers: Sequence[Reader], weights: WeightsFile | None = None) -> list[Finding]:
    """What every rule finds for the readers, by line; remarks on the weights file stand at the end."""
    subject = understood(cfg, weights)
    found = [finding for reader in readers for finding in _for_reader(reader, subject)]
    if subject.refusal is not None and subject.graph is not None:
        left = len(subject.layers)
        message = f"from here on shapes are unknown, and what depends on them isn't checked: {subject.refusal}"
        found.append(Finding(cfg.sections[left + 1].line, left, None, "yoloprune", "note", message))
    elif subject.refusal is not None:
        message = f"shapes are unknown, and what depends on them isn't checked: {subject.refusal}"
        found.append(Finding(cfg.sections[0].line, None, None, "yoloprune", "note", message))
    return sorted(found, key=lambda finding: (finding.line is None, finding.line or 0))


def _for_reader(reader: Reader, subject: Subject) -> Iterator[Finding]:
    net = Node(reader, subject, subject.cfg.sections[0], None)
    for rule in (*text.RULES, *files.RULES):
        yield from (_located(net, remark) for remark in rule(reader, subject))
    for number, section in enumerate(subject.cfg.sections):
        node = Node(reader, subject, section, number - 1 if number else None)
        unknown = list(values.unknown_section(node))
        yield from (_located(node, remark) for remark in unknown)
        for section_rule in () if unknown else (*values.RULES, *layers.RULES):
            yield from (_located(node, remark) for remark in section_rule(node))
    for rule in files.WEIGHTS_RULES:
        for remark in rule(reader, subject):
            yield Finding(None, None, None, reader.name, remark.severity, f"weights: {remark.message}")


def _located(node: Node, remark: Remark) -> Finding:
    line = remark.line
    layer = node.index
    if line is None:
        entry = None if remark.key is None else node.reader.entry(node.section, remark.key)
        line = node.section.line if entry is None else entry.line
    elif node.index is None:  # a rule on the whole file: the layer is that of the line
        layer = sum(section.line <= line for section in node.subject.cfg.sections) - 2
    return Finding(
        line,
        layer if layer is not None and layer >= 0 else None,
        remark.key,
        node.reader.name,
        remark.severity,
        remark.message,
    )
