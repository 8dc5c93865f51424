"""Darknet's files in ncnn's form, as ncnn's own converter writes them (tools/darknet/darknet2ncnn.cpp).

Nobody packages that converter, so this one makes the same layers with the same parameters. Where it departs from
Darknet (the windows of [maxpool], [shortcut] of two widths and so on, see docs/check.md), so does this: what is seen
here is what its users get. To be timed, a network has Darknet's windows: with others its maps would be smaller, or of
two sizes where they meet, which ncnn doesn't survive. Heads end the graph: what enters them is an output.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from yoloprune.readers.process import RefusalError

_ACTIVATIONS: Final[Mapping[str, tuple[str, str]]] = {
    "relu": ("ReLU", "0=0"),
    "leaky": ("ReLU", "0=0.1"),
    "mish": ("Mish", ""),
    "logistic": ("Sigmoid", ""),
    "swish": ("Swish", ""),
}
_NUMBER: Final = re.compile(r"[+-]?\d+")


@dataclass(frozen=True)
class Converted:
    """A network as ncnn reads it."""

    param: str
    """Text of the .param file."""
    model: bytes
    """The .bin file."""
    blobs: Sequence[str | None]
    """For each layer of the cfg, the blob that holds its output; None for a head."""
    ends: Sequence[str]
    """Blobs that no layer reads."""
    input: tuple[int, int, int]
    """Channels, height and width that the network takes."""


@dataclass(frozen=True)
class _Map:
    """A layer's output, of the size that the converter takes it for."""

    blob: str | None
    c: int
    h: int
    w: int


@dataclass(frozen=True)
class _Section:
    name: str
    values: Mapping[str, str]

    def integer(self, key: str, default: int) -> int:
        """As std::stoi."""
        return _whole(self.values[key], key) if key in self.values else default

    def integers(self, key: str) -> list[int]:
        """A list of them."""
        return [_whole(item, key) for item in self.values.get(key, "").split(",") if item]

    def activation(self, known: Mapping[str, tuple[str, str]]) -> tuple[str, str] | None:
        """ncnn's layer for it and that layer's parameters; None for a linear one."""
        name = self.values.get("activation", "linear")
        if name != "linear" and name not in known:
            raise RefusalError(f"[{self.name}]: unsupported activation {name[:40]}")
        return known.get(name)


@dataclass
class _Writer:
    """The graph so far, and how much of the weights is used up."""

    floats: np.ndarray[tuple[int], np.dtype[np.float32]]
    own_windows: bool = True
    """Of [maxpool], the converter's; else Darknet's."""
    maps: list[_Map] = field(default_factory=list)
    """The network's input, then each layer's output."""
    layers: list[tuple[str, list[str], str, str]] = field(default_factory=list)
    """ncnn's layer, what it reads, what it writes, its parameters."""
    model: list[bytes] = field(default_factory=list)

    def add(self, kind: str, reads: Sequence[str | None], writes: str, parameters: str) -> str:
        """Append a layer of ncnn."""
        known = [blob for blob in reads if blob is not None]
        if len(known) < len(reads):
            raise RefusalError("a layer reads a head")
        self.layers.append((kind, known, writes, parameters))
        return writes

    def take(self, count: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        """The next floats of the weights file."""
        if count > len(self.floats):
            raise RefusalError("unexpected end of the weights file")
        taken, self.floats = self.floats[:count], self.floats[count:]
        return taken

    def source(self, offset: int) -> _Map:
        """The map that an index of the cfg means, for the layer that comes next; one that points nowhere: the input."""
        at = offset + 1 if offset >= 0 else len(self.maps) + offset
        return self.maps[at] if 0 <= at < len(self.maps) else self.maps[0]


def convert(cfg: bytes, weights: bytes, *, own_windows: bool = True) -> Converted:
    """Bytes of a .cfg and its .weights -> ncnn's. RefusalError for what the converter or ncnn refuses.

    own_windows: False for Darknet's windows of [maxpool] in place of the converter's.
    """
    sections = _parsed(cfg.decode("utf-8", "surrogateescape"))
    if not sections or sections[0].name != "net":
        raise RefusalError("expected [net] first")
    if len(weights) < 12:
        raise RefusalError("unexpected end of the weights file")
    major, minor = np.frombuffer(weights, "<i4", 2)
    start = 20 if major * 10 + minor >= 2 else 16
    rest = weights[start:]
    writer = _Writer(np.frombuffer(rest[: len(rest) // 4 * 4], "<f4"), own_windows)
    net = sections[0]
    writer.maps.append(_Map("data", *(net.integer(key, size) for key, size in _INPUT.items())))
    for section in sections[1:]:
        if section.name not in _LAYERS:
            raise RefusalError(f"unsupported section [{section.name[:40]}]")
        writer.maps.append(_LAYERS[section.name](section, writer, writer.maps[-1]))
    heads = [(head.values.get("classes"), head.integers("anchors")) for head in sections if head.name == "yolo"]
    if any(head != heads[0] for head in heads):
        raise RefusalError("[yolo]: heads of several classes or anchors can't be merged")
    read = {blob for _, reads, _, _ in writer.layers for blob in reads}
    ends = [blob for _, _, blob, _ in writer.layers if blob not in read]
    blobs = [each.blob for each in writer.maps[1:]]
    size = (writer.maps[0].c, writer.maps[0].h, writer.maps[0].w)
    return Converted(_param(writer), b"".join(writer.model), blobs, ends, size)


_INPUT: Final = {"channels": 3, "height": 416, "width": 416}


def _convolutional(section: _Section, writer: _Writer, before: _Map) -> _Map:
    filters, size, stride = (section.integer(key, 1) for key in ("filters", "size", "stride"))
    groups, normalized = section.integer("groups", 1), section.integer("batch_normalize", 0)
    pad = size // 2 if section.integer("pad", 0) else section.integer("padding", 0)
    if min(filters, size, stride, groups) < 1:
        raise RefusalError("[convolutional]: expected 1 or more for filters, size, stride and groups")
    count = before.c * size * size * filters // groups
    parameters = f"0={filters} 1={size} 2={section.integer('dilation', 1)} 3={stride} 4={pad}"
    parameters += f" 5={0 if normalized else 1} 6={count}" + (f" 7={groups}" if groups > 1 else "")
    name = str(len(writer.maps) - 1)
    bias = writer.take(filters)
    norm = [writer.take(filters) for _ in range(3)] if normalized else []  # scales, means, variances
    arrays = [np.zeros(1, "<i4"), writer.take(count), *norm, bias]  # the 0 says that floats follow
    writer.model += [array.tobytes() for array in arrays]
    kind = "Convolution" if groups == 1 else "ConvolutionDepthWise"
    blob = writer.add(kind, [before.blob], f"{name}_conv", parameters)
    if normalized:
        blob = writer.add("BatchNorm", [blob], f"{name}_bn", f"0={filters} 1=.00001")
    return _Map(_activated(section, writer, blob), filters, before.h // stride, before.w // stride)


def _activated(section: _Section, writer: _Writer, blob: str) -> str:
    found = section.activation(_ACTIVATIONS)
    return blob if found is None else writer.add(found[0], [blob], f"{len(writer.maps) - 1}_activated", found[1])


def _shortcut(section: _Section, writer: _Writer, before: _Map) -> _Map:
    if "from" not in section.values:
        raise RefusalError("[shortcut]: needs from=")
    other = writer.source(section.integer("from", 0))
    if (before.h, before.w) != (other.h, other.w):
        raise RefusalError("[shortcut]: the maps are of two sizes")
    blob = writer.add("Eltwise", [before.blob, other.blob], f"{len(writer.maps) - 1}_sum", "0=1")
    return _Map(_activated(section, writer, blob), before.c, before.h, before.w)


def _maxpool(section: _Section, writer: _Writer, before: _Map) -> _Map:
    size, stride = section.integer("size", 1), section.integer("stride", 1)
    if min(size, stride) < 1:
        raise RefusalError("[maxpool]: expected 1 or more for size and stride")
    pad = section.integer("padding", stride * ((size - 1) // 2) if writer.own_windows else size - 1)
    before_first, behind = (pad, pad) if writer.own_windows else (pad // 2, pad - pad // 2)
    parameters = f"0=0 1={size} 2={stride} 5=1 3={before_first} 13={before_first} 14={behind} 15={behind}"
    blob = writer.add("Pooling", [before.blob], f"{len(writer.maps) - 1}_max", parameters)
    return _Map(blob, before.c, *((side + pad - size) // stride + 1 for side in (before.h, before.w)))


def _avgpool(_: _Section, writer: _Writer, before: _Map) -> _Map:
    name = len(writer.maps) - 1
    blob = writer.add("Pooling", [before.blob], f"{name}_mean", "0=1 4=1")
    return _Map(writer.add("Reshape", [blob], f"{name}_map", f"0=1 1=1 2={before.c}"), before.c, 1, 1)


def _scale_channels(section: _Section, writer: _Writer, before: _Map) -> _Map:
    if "from" not in section.values:
        raise RefusalError("[scale_channels]: needs from=")
    other = writer.source(section.integer("from", 0))
    section.activation({})
    if before.c != other.c:
        raise RefusalError("[scale_channels]: the channels don't match")
    blob = writer.add("BinaryOp", [other.blob, before.blob], f"{len(writer.maps) - 1}_scaled", "0=2")
    return _Map(blob, other.c, other.h, other.w)


def _route(section: _Section, writer: _Writer, _: _Map) -> _Map:
    sources = [writer.source(offset) for offset in section.integers("layers")]
    if not sources:
        raise RefusalError("[route]: needs layers=")
    c, h, w = sum(source.c for source in sources), sources[-1].h, sources[-1].w
    name = f"{len(writer.maps) - 1}_route"
    if len(sources) > 1:
        return _Map(writer.add("Concat", [source.blob for source in sources], name, ""), c, h, w)
    groups, part = section.integer("groups", 1), section.integer("group_id", -1)
    if groups <= 1 or part == -1:
        return _Map(sources[0].blob, c, h, w)
    c //= groups
    return _Map(writer.add("Crop", [sources[0].blob], name, f"2={c * part} 3={w} 4={h} 5={c}"), c, h, w)


def _upsample(section: _Section, writer: _Writer, before: _Map) -> _Map:
    blob = writer.add("Interp", [before.blob], f"{len(writer.maps) - 1}_twice", "0=1 1=2.0 2=2.0")
    stride = section.integer("stride", 1)
    return _Map(blob, before.c, before.h * stride, before.w * stride)


def _dropout(_: _Section, __: _Writer, before: _Map) -> _Map:
    return before


def _yolo(section: _Section, _: _Writer, before: _Map) -> _Map:
    anchors, values = len(section.integers("mask")), 5 + section.integer("classes", 0)
    if not anchors or before.c // anchors != values:
        raise RefusalError(f"[yolo]: {before.c} channels for {anchors} anchors of {values} values")
    return _Map(None, before.c, before.h, before.w)


_LAYERS: Final[Mapping[str, Callable[[_Section, _Writer, _Map], _Map]]] = {
    "convolutional": _convolutional,
    "shortcut": _shortcut,
    "maxpool": _maxpool,
    "avgpool": _avgpool,
    "scale_channels": _scale_channels,
    "route": _route,
    "upsample": _upsample,
    "dropout": _dropout,
    "yolo": _yolo,
}


def _param(writer: _Writer) -> str:
    """The graph as text. A blob has one reader: where there are more, a Split makes copies."""
    c, h, w = writer.maps[0].c, writer.maps[0].h, writer.maps[0].w
    layers: list[tuple[str, list[str], str, str]] = [("Input", [], "data", f"0={w} 1={h} 2={c}"), *writer.layers]
    readers: dict[str, int] = {}
    for _, reads, _, _ in layers:
        for blob in reads:
            readers[blob] = readers.get(blob, 0) + 1
    given = dict.fromkeys(readers, 0)
    lines = []
    blobs = 0
    for kind, reads, writes, parameters in layers:
        own = []
        for blob in reads:
            own.append(blob if readers[blob] == 1 else f"{blob}_{given[blob]}")
            given[blob] += 1
        lines.append(" ".join([kind, writes, str(len(own)), "1", *own, writes, parameters]))
        copies = [f"{writes}_{number}" for number in range(readers.get(writes, 0))]
        if len(copies) > 1:
            lines.append(" ".join(["Split", f"{writes}_split", "1", str(len(copies)), writes, *copies]))
        blobs += 1 + (len(copies) if len(copies) > 1 else 0)
    return "\n".join(["7767517", f"{len(lines)} {blobs}", *lines, ""])


def _parsed(text: str) -> list[_Section]:
    """Sections with the last of equal keys; a line that is neither a section nor `key=value` is passed over."""
    found: list[tuple[str, dict[str, str]]] = []
    for raw in text.split("\n"):
        line = raw.strip()
        if not line or line[0] == "#":
            continue
        key, equals, value = line.partition("=")
        if line[0] == "[" and line[-1] == "]":
            found.append((line[1:-1], {}))
        elif equals and found:
            found[-1][1][key.strip()] = value.strip()
        elif equals:
            raise RefusalError("a key before the first section")
    return [_Section(name, values) for name, values in found]


def _whole(text: str, key: str) -> int:
    match = _NUMBER.match(text.strip())
    if match is None:
        raise RefusalError(f"{key}: expected a number, found {text[:40]!r}")
    return int(match.group())
