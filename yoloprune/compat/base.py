"""What rules look at and what they say."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from yoloprune.compat.bits import Bits
from yoloprune.compat.profiles import ReaderProfile, number
from yoloprune.compat.zeros import Zeros
from yoloprune.darknet import weights as weights_file
from yoloprune.darknet.cfg import Cfg, Section
from yoloprune.darknet.cnumbers import atoi
from yoloprune.darknet.dialect import DIALECTS, Dialect
from yoloprune.darknet.keys import full_name
from yoloprune.darknet.layers.base import Layer, Shape
from yoloprune.darknet.model import Graph, build_graph
from yoloprune.darknet.net import Net
from yoloprune.darknet.options import Options
from yoloprune.darknet.weights import Arrays
from yoloprune.errors import InputError

Severity = Literal["break", "differs", "ignored", "note"]
"""break: the reader crashes, refuses or computes NaN. differs: it silently computes something else. ignored: it passes
over what is written, which changes no result. note: good to know."""
SEVERITIES: Final[tuple[Severity, ...]] = ("break", "differs", "ignored", "note")


@dataclass(frozen=True)
class Remark:
    """What a rule says; where it says nothing of a line, the section's or the key's is meant."""

    severity: Severity
    message: str
    key: str | None = None
    line: int | None = None


@dataclass(frozen=True)
class Finding:
    """A remark, located."""

    line: int | None
    """Of the cfg, from 1; None for the weights file."""
    layer: int | None
    key: str | None
    reader: str
    severity: Severity
    message: str


@dataclass(frozen=True, eq=False)
class WeightsFile:
    """A weights file, of which rules read what they need."""

    name: str
    data: NDArray[np.uint8]
    """Its bytes, best mapped."""

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.data)

    @property
    def head(self) -> bytes:
        """Its first 20 bytes, or all there are."""
        return self.data[:20].tobytes()

    @cached_property
    def floats(self) -> NDArray[np.float32]:
        """All as float32, the header too, which is whole fours of bytes; less than four at the end are left out."""
        return self.data[: self.size // 4 * 4].view("<f4")

    @cached_property
    def not_finite(self) -> NDArray[np.int64]:
        """Where in `floats` there are NaN and infinities."""
        return np.flatnonzero(~np.isfinite(self.floats))


@dataclass(frozen=True)
class Subject:
    """A network's files as far as they could be resolved."""

    cfg: Cfg
    input: Shape | None
    """What [net] says, if that is resolved."""
    graph: Graph | None
    """Of as many layers, counted from the first, as one of our dialects takes."""
    refusal: str | None
    """Why not of all."""
    weights: WeightsFile | None = None

    @cached_property
    def shapes(self) -> Mapping[int, Shape]:
        """Output shapes by layer index, -1 the network's input; only what is resolved."""
        given = {} if self.input is None else {-1: self.input}
        return {**given, **{layer.index: layer.out for layer in self.layers}}

    @cached_property
    def inputs(self) -> Mapping[int, Shape]:
        """For each layer that is resolved, the shape of what it reads first."""
        return {layer.index: layer.source_shapes[0] for layer in self.layers}

    @cached_property
    def starts(self) -> list[int]:
        """The line of each section."""
        return [section.line for section in self.cfg.sections]

    @cached_property
    def arrays(self) -> Sequence[Arrays] | None:
        """Of each layer; None where there is no file that fits all layers."""
        if self.weights is None or not self.complete:
            return None
        try:
            return weights_file.parse(self.weights.data.tobytes(), self.layers).layers
        except InputError:
            return None

    @cached_property
    def zeros(self) -> Zeros | None:
        """Zeros among the weights, if these are known."""
        return None if self.arrays is None else Zeros.of(self.layers, self.arrays)

    @cached_property
    def bits(self) -> Bits | None:
        """How few values weights take, if these are known."""
        return None if self.arrays is None else Bits.of(self.layers, self.arrays)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers that are resolved."""
        return () if self.graph is None else self.graph.layers

    @property
    def complete(self) -> bool:
        """Whether that is all of them."""
        return self.refusal is None


@dataclass(frozen=True)
class Node:
    """A section as a reader sees it."""

    reader: ReaderProfile
    subject: Subject
    section: Section
    index: int | None
    """Of the layer; None for [net]."""

    @property
    def kind(self) -> str:
        """The section's full name."""
        return full_name(self.section.name)

    @property
    def shape(self) -> Shape | None:
        """Output of the layer before, if it is known."""
        return None if self.index is None else self.subject.shapes.get(self.index - 1)

    @property
    def layer(self) -> Layer | None:
        """The section's layer, if it is resolved."""
        return (
            self.subject.layers[self.index]
            if self.index is not None and self.index < len(self.subject.layers)
            else None
        )

    def has(self, key: str) -> bool:
        """Whether the key is there, known to the reader or not."""
        return self.reader.entry(self.section, key) is not None

    def text(self, key: str, default: str) -> str:
        """The value the reader takes: the default for a key that it doesn't know."""
        entry = self.reader.entry(self.section, key)
        known = self.reader.kind(self.section.name) == self.kind and self.reader.knows(self.kind, key)
        if entry is None or not known:
            return default
        return self.reader.cut(entry.value)

    def number(self, key: str, default: float) -> float:
        """The number the reader takes."""
        default = self.reader.defaults.get((self.kind, key), default)
        text = self.text(key, "")
        return number(text) if text else default

    def integer(self, key: str, default: int) -> int:
        """The whole number the reader takes."""
        text = self.text(key, "")
        return atoi(text) if text else int(self.reader.defaults.get((self.kind, key), default))

    def items(self, key: str) -> list[str]:
        """The items of the list the reader takes."""
        entry = self.reader.entry(self.section, key)
        return [] if entry is None or not self.text(key, "") else self.reader.items(entry)

    def integers(self, key: str) -> list[int]:
        """The whole numbers of that list."""
        return [atoi(item) for item in self.items(key)]

    @property
    def sources(self) -> list[int]:
        """Absolute indexes of the layers that the section names; those that point nowhere too."""
        key, index = REFERENCES.get(self.kind), self.index or 0
        return [] if key is None else [value + (index if value < 0 else 0) for value in self.integers(key)]


def net_node(reader: ReaderProfile, subject: Subject) -> Node:
    """[net] as a reader sees it."""
    return Node(reader, subject, subject.cfg.sections[0], None)


def nodes(reader: ReaderProfile, subject: Subject) -> list[Node]:
    """The layers' sections as a reader sees them."""
    return [Node(reader, subject, section, index) for index, section in enumerate(subject.cfg.sections[1:])]


REFERENCES: Final[Mapping[str, str]] = {"route": "layers", "shortcut": "from", "scale_channels": "from", "sam": "from"}
"""The key of a section that names layers."""
Rule = Callable[[Node], Iterator[Remark]]
"""Says what is wrong with a section for its reader; called with [net] too."""
FileRule = Callable[[ReaderProfile, Subject], Iterator[Remark]]
"""Says what is wrong with the file as a whole."""


def subject_of(cfg: Cfg, weights: WeightsFile | None = None) -> Subject:
    """As much of a cfg as can be resolved, by the dialect that gets further."""
    best: Graph | None = None
    refusals = []
    for dialect in DIALECTS.values():
        graph, refusal = _beginning(cfg, dialect)
        refusals.append(refusal)
        if graph is not None and (best is None or len(graph.layers) > len(best.layers)):
            best = graph
    try:
        size = Net.read(Options(cfg, cfg.sections[0], None), next(iter(DIALECTS.values()))).input
    except InputError:
        size = None
    return Subject(cfg, size, best, None if None in refusals else refusals[0], weights)


def _beginning(cfg: Cfg, dialect: Dialect) -> tuple[Graph | None, str | None]:
    """The graph of the longest beginning of a cfg that the dialect takes, and why it takes no more.

    What a section means depends on those before it only, so the place can be searched by halves.
    """
    try:
        return build_graph(cfg, dialect), None
    except InputError as error:
        refusal = str(error)
    graph, low, high = None, 1, len(cfg.sections)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            graph, low = build_graph(replace(cfg, sections=cfg.sections[:middle]), dialect), middle
        except InputError:
            high = middle
    return graph, refusal


def shown(values: Sequence[object]) -> str:
    """Numbers for a message."""
    return ", ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)
