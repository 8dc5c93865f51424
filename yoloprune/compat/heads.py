"""Rules on heads: what each reads, and what a converter asks of all of them together."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from yoloprune.compat.base import FileRule, Node, Remark, Rule, Severity, Subject, nodes, shown
from yoloprune.compat.profiles import Heads, ReaderProfile, number

_HEADS: Final = {"yolo": 5, "Gaussian_yolo": 9, "region": 1}
"""Values of an anchor beside classes; [region] adds its coords."""


def head_channels(node: Node) -> Iterator[Remark]:
    """Another number of channels before a head than it reads."""
    if node.kind not in _HEADS or node.shape is None:
        return
    classes = node.integer("classes", 20)
    anchors = len(node.items("mask")) or node.integer("num", 1)
    beside = _HEADS[node.kind] + (node.integer("coords", 4) if node.kind == "region" else 0)
    expected = anchors * (classes + beside)
    if node.shape.c != expected:
        found = f"expected {expected} channels before it ({anchors} anchors of {classes} classes and {beside})"
        yield Remark("break", f"{found}, found {node.shape.c}")


def head_lists(node: Node) -> Iterator[Remark]:
    """More or fewer anchors than the head has; a mask beyond them."""
    fate = node.reader.anchors.get(node.kind)
    if fate is None or not node.has("anchors"):
        return
    count, room = len(node.items("anchors")), 2 * node.integer("num", 1)
    if fate == "exact" and count != room:
        yield Remark("break", f"expected {room} numbers for num={room // 2}, found {count}", "anchors")
    elif count > room:
        what: Severity = "break" if fate == "overflow" else "ignored"
        does = "writes past its array" if fate == "overflow" else "passes over the rest"
        yield Remark(what, f"expected at most {room} numbers for num={room // 2}, found {count}; {does}", "anchors")
    elif count < room and fate == "given":
        yield Remark(
            "differs", f"expected {room} numbers for num={room // 2}, found {count}; there are no others", "anchors"
        )
    elif count < room:
        yield Remark("note", f"expected {room} numbers for num={room // 2}, found {count}; the rest are 0.5", "anchors")
    beyond = [value for value in node.integers("mask") if not 0 <= value < room // 2]
    if beyond:
        refuses: Severity = "break" if fate == "exact" else "differs"
        yield Remark(refuses, f"expected anchors 0..{room // 2 - 1}, found {shown(beyond)}", "mask")


def together(reader: ReaderProfile, subject: Subject) -> Iterator[Remark]:
    """How many heads there are, what they share, where they stand."""
    heads = [node for node in nodes(reader, subject) if node.kind == "yolo"]
    asked = reader.heads
    if asked.counts and len(heads) not in asked.counts:
        yield Remark("break", f"expected {' or '.join(map(str, sorted(asked.counts)))} [yolo], found {len(heads)}")
    if asked.needed and not heads:
        yield Remark("break", "gives boxes of [yolo] only, and there is none")
    if not heads:
        return
    first = heads[0]
    for node in heads:
        yield from _beside(node, first, asked)
        yield from _values(node, asked)
    for key in sorted(asked.everywhere):
        without = [node for node in heads if not node.has(key)]
        if without and len(without) < len(heads):
            yield Remark("break", f"{key} stands in another head and not here", line=without[0].section.line)
    yield from _strides(heads, asked, subject)
    if asked.named:
        yield from _named(subject)


def _beside(node: Node, first: Node, asked: Heads) -> Iterator[Remark]:
    """A head against the first."""
    for key in sorted(asked.same | asked.first):
        own, other = (list(map(number, each.items(key))) for each in (node, first))
        if own != other and key in asked.same:
            yield Remark("break", f"{key} is another in the first head: refused", line=_line(node, key))
        elif own != other:
            yield Remark("differs", f"takes {key} of the first head, which has others", line=_line(node, key))
    if asked.same_anchors and len(node.items("mask")) != len(first.items("mask")):
        yield Remark("break", "the first head has another number of anchors: refused", line=_line(node, "mask"))


def _values(node: Node, asked: Heads) -> Iterator[Remark]:
    broken = [item for item in node.items("anchors") if number(item) % 1]
    if asked.whole_anchors and broken:
        yield Remark("differs", f"cuts {broken[0][:40]} to {int(number(broken[0]))}", line=_line(node, "anchors"))
    if asked.shrinks and node.number("scale_x_y", 1) != 1:
        found = "divides width and height of boxes by it, instead of spreading their centres"
        yield Remark("differs", found, line=_line(node, "scale_x_y"))
    if asked.threshold:
        least = min(node.number("ignore_thresh", 0.5), 0.25)
        yield Remark("note", f"finds nothing under {least:g}, by ignore_thresh", line=_line(node, "ignore_thresh"))
    if asked.behind and node.index:
        before = Node(node.reader, node.subject, node.subject.cfg.sections[node.index], node.index - 1)
        if before.kind != "convolutional" or before.text("activation", "") not in asked.behind:
            found = f"expected [convolutional] with {' or '.join(sorted(asked.behind))} before it"
            yield Remark("break", found, line=node.section.line)


def _strides(heads: Sequence[Node], asked: Heads, subject: Subject) -> Iterator[Remark]:
    shapes = [node.shape for node in heads]
    if not asked.strides or subject.input is None or None in shapes:
        return
    across, down = (
        tuple(subject.input[side] / shape[side] for shape in shapes if shape is not None) for side in (2, 1)
    )
    if across not in asked.strides or down not in asked.strides:
        expected = "; ".join(map(shown, asked.strides))
        yield Remark(
            "break", f"expected heads at strides {expected}; found {shown(across)}", line=heads[0].section.line
        )


def _named(subject: Subject) -> Iterator[Remark]:
    """The name of the file, of which little is known: it may be renamed."""
    if subject.input is not None:
        _, h, w = subject.input
        size = f"{w}" if w == h else f"{w}x{h}"
        if not re.search(rf"yolov[34].*-{size}\.cfg$", subject.cfg.file):
            yield Remark(
                "note", f"takes network and size from the name: yolov4-{size}.cfg, yolov3-tiny-{size}.cfg or so"
            )


def _line(node: Node, key: str) -> int:
    entry = node.reader.entry(node.section, key)
    return node.section.line if entry is None else entry.line


RULES: Final[tuple[Rule, ...]] = (head_channels, head_lists)
FILE_RULES: Final[tuple[FileRule, ...]] = (together,)
"""Rules on all heads."""
