"""Rules on maps: windows that start or end elsewhere, and sizes that a converter follows by rules of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from yoloprune.compat.base import FileRule, Node, Remark, Rule, Subject, nodes
from yoloprune.compat.profiles import ReaderProfile
from yoloprune.darknet.cnumbers import atoi

_Size = tuple[int, int]
"""Height and width of a map."""


def windows(node: Node) -> Iterator[Remark]:
    """Convolutions and pools that pad otherwise than Darknet."""
    if node.shape is None or node.kind not in ("convolutional", "maxpool"):
        return
    compare = _convolution if node.kind == "convolutional" else _pool
    size, stride = node.integer("size", 1), node.integer("stride", 1)
    if node.kind == "maxpool" and not node.has("size") and ("maxpool", "size") not in node.reader.defaults:
        size = stride
    if min(size, stride) < 1:
        return
    for side in dict.fromkeys((node.shape.w, node.shape.h)):
        (start, places), (own_start, own_places) = compare(node, side, size, stride)
        if (own_start, own_places) != (start, places):
            own = f"windows start {own_start} before a side of {side} and have {own_places} places"
            key = next((key for key in ("padding", "pad", "size") if node.has(key)), None)
            yield Remark("differs", f"{own}; Darknet's start {start} before it and have {places}", key)
            return


def _convolution(node: Node, side: int, size: int, stride: int) -> tuple[_Size, _Size]:
    """How far windows start before the map and how many there are: in Darknet, and in the reader."""
    pad = size // 2 if _written(node, "pad", 0) else _written(node, "padding", 0)
    dilation = max(node.integer("dilation", 1), 1)
    reach = dilation * (size - 1) + 1
    darknet = pad * dilation, (side + 2 * pad * dilation - reach) // stride + 1
    match node.reader.conv_padding:
        case "undilated":
            return darknet, (pad, (side + 2 * pad - reach) // stride + 1)
        case "half":
            own = (size - 1) // 2 if _written(node, "pad", 0) else 0
            return darknet, (own, (side + 2 * own - size) // stride + 1)
        case "same":
            places, total = _same(side, size, stride)
            return darknet, (total - total // 2, places)
        case _:
            return darknet, darknet


def _pool(node: Node, side: int, size: int, stride: int) -> tuple[_Size, _Size]:
    """As `_convolution`. What is padded is never the largest, so nothing hangs on the end."""
    padding = _written(node, "padding", size - 1)
    darknet = padding // 2, (side + padding - size) // stride + 1
    match node.reader.pool_padding:
        case "sides":
            own = node.integer("padding", stride * ((size - 1) // 2))
            return darknet, (own, (side + 2 * own - size) // stride + 1)
        case "same":
            places, total = _same(side, size, stride)
            return darknet, (total // 2, places)
        case "torch":
            return darknet, _torch_pool(side, size, stride)
        case _:
            return darknet, darknet


def _same(side: int, size: int, stride: int) -> _Size:
    """Places, and cells that are padded on both sides together (ONNX auto_pad)."""
    places = -(-side // stride)
    return places, max((places - 1) * stride + size - side, 0)


def _torch_pool(side: int, size: int, stride: int) -> _Size:
    """darknet2pytorch.py: MaxPool2d where that will do, else MaxPoolDark."""
    if stride == 1 and size % 2:
        return size // 2, side
    if stride == size:
        return 0, (side - size) // stride + 1
    before = (size - 1) // 2
    after = before + ((side - 1) // stride != (side + 2 * (size // 2) - size) // stride)
    return before, (side + before + after - size) // stride + 1


def _written(node: Node, key: str, default: int) -> int:
    """What the file says, whether the reader knows the key or not."""
    entry = node.reader.entry(node.section, key)
    return default if entry is None else atoi(entry.value)


def upsample(node: Node) -> Iterator[Remark]:
    """Always by 2."""
    if node.kind == "upsample" and node.reader.doubles and _written(node, "stride", 2) != 2:
        yield Remark("differs", "the map is doubled, whatever the stride", "stride")


def tracked(reader: ReaderProfile, subject: Subject) -> Iterator[Remark]:
    """Where a size or stride that the converter has followed from layer to layer is not the map's."""
    follow = {"sizes": _sizes, "strides": _strides}.get(reader.tracks)
    if follow is not None and subject.input is not None:
        yield from follow(nodes(reader, subject), subject)


def _sizes(layers: list[Node], subject: Subject) -> Iterator[Remark]:
    """darknet2ncnn.cpp parse_cfg: a convolution divides by its stride, a pool counts its padding once."""
    assert subject.input is not None
    sizes: list[_Size] = [subject.input[1:]]
    for node in layers:
        before, line = sizes[-1], node.section.line
        sources = [sizes[at + 1] for at in node.sources if 0 <= at + 1 < len(sizes)]
        stride = max(node.integer("stride", 1), 1)
        now = before
        if node.kind == "convolutional":
            now = before[0] // stride, before[1] // stride
        elif node.kind == "maxpool":
            size = node.integer("size", 1)
            reach = node.integer("padding", stride * ((size - 1) // 2)) - size
            now = (before[0] + reach) // stride + 1, (before[1] + reach) // stride + 1
        elif node.kind == "avgpool":
            now = 1, 1
        elif node.kind == "upsample":
            now = before[0] * stride, before[1] * stride
        elif node.kind in ("route", "scale_channels") and sources:
            now = sources[-1]
        elif node.kind == "shortcut" and sources and sources[0] != before:
            yield Remark("break", f"takes the maps for {_shown(before)} and {_shown(sources[0])}: refused", line=line)
        shape = node.subject.shapes.get(node.index or 0)
        cropped = node.kind == "route" and len(sources) == 1 and node.integer("groups", 1) > 1
        if shape is not None and shape[1:] != now and (cropped or node.kind == "yolo"):
            what = "and cuts it to that" if cropped else "and scales boxes by it"
            yield Remark("differs", f"takes the map of {_shown(shape[1:])} for {_shown(now)}, {what}", line=line)
        sizes.append(now)


def _strides(layers: list[Node], subject: Subject) -> Iterator[Remark]:
    """darknet2pytorch.py create_network: anchors are divided by the stride, which `groups` of [route] divide too."""
    assert subject.input is not None
    strides: list[int] = [1]
    for node in layers:
        before = strides[-1]
        sources = [strides[at + 1] for at in node.sources if 0 <= at + 1 < len(strides)]
        now = before
        if node.kind in ("convolutional", "maxpool", "reorg"):
            now = before * max(node.integer("stride", 1), 1)
        elif node.kind == "upsample":
            now = before // max(node.integer("stride", 2), 1)
        elif node.kind == "route" and sources:
            now = sources[0] // (max(node.integer("groups", 1), 1) if len(sources) == 1 else 1)
        elif node.kind == "yolo" and node.shape is not None:
            _, h, w = node.shape
            if (now * h, now * w) != subject.input[1:]:
                wide, high = subject.input[2] / max(now * w, 1), subject.input[1] / max(now * h, 1)
                found = f"takes the stride for {now}: boxes are {wide:g} times as wide and {high:g} times as high"
                yield Remark("differs", f"{found} as Darknet's", line=node.section.line)
        strides.append(now)


def _shown(size: _Size) -> str:
    return f"{size[0]}x{size[1]}"


RULES: Final[tuple[Rule, ...]] = (windows, upsample)
FILE_RULES: Final[tuple[FileRule, ...]] = (tracked,)
"""Rules on all layers in their order."""
