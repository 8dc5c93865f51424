"""A network as files hold it: cfg, resolved layers, weights; nothing is allocated for running it yet."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from yoloprune.darknet import cfg as cfg_file
from yoloprune.darknet import weights as weights_file
from yoloprune.darknet.cfg import Cfg, Entry
from yoloprune.darknet.dialect import Dialect
from yoloprune.darknet.layers import Context, Layer, Shape, read_layer
from yoloprune.darknet.layers.head import DetectionHead
from yoloprune.darknet.net import Net, Updates
from yoloprune.darknet.options import Misread, Options
from yoloprune.darknet.weights import Arrays, Weights
from yoloprune.errors import warn


@dataclass(frozen=True)
class Graph:
    """What a cfg says: [net], the layers in order, and what was left unread."""

    cfg: Cfg
    dialect: Dialect
    net: Net
    layers: tuple[Layer, ...]
    updates: tuple[Updates, ...]
    """For each layer, what it says of its training."""
    unused: tuple[Entry, ...]
    """Entries that nothing here reads; Darknet calls them unused fields."""
    misread: tuple[Misread, ...] = ()
    """What Darknet reads as something else, by line."""

    @property
    def outputs(self) -> tuple[int, ...]:
        """Indexes of the layers whose outputs are the results: the heads, else the last layer."""
        heads = tuple(layer.index for layer in self.layers if layer.is_output)
        return heads or (len(self.layers) - 1,)

    @property
    def head_inputs(self) -> tuple[int, ...]:
        """For each of `outputs`, the layer whose output enters the head; where there is no head, the output itself."""
        return tuple(self.layers[index].sources[0] if self.layers[index].is_output else index for index in self.outputs)

    @property
    def raw_outputs(self) -> tuple[int, ...]:
        """Likewise, but of heads that give no boxes, such as [softmax], the output."""
        pairs = zip(self.outputs, self.head_inputs, strict=True)
        return tuple(before if isinstance(self.layers[head], DetectionHead) else head for head, before in pairs)

    @property
    def detection_heads(self) -> tuple[DetectionHead, ...]:
        """Heads that give boxes; none for a classifier."""
        return tuple(layer for layer in self.layers if isinstance(layer, DetectionHead))

    @property
    def classes(self) -> int:
        """Number of classes: of the last detection head, as Darknet takes it, else the size of the last output."""
        heads = self.detection_heads
        return heads[-1].classes if heads else self.layers[self.outputs[-1]].out.size

    @property
    def sharing(self) -> set[int]:
        """Layers whose arrays are also another's: those that own them, and those that share them."""
        return {index for layer in self.layers if layer.shares is not None for index in (layer.index, layer.shares)}

    def descendants(self, changed: Collection[int]) -> set[int]:
        """The layers `changed` and all that depend on them."""
        found = set[int]()
        for layer in self.layers:
            if layer.index in changed or found.intersection(layer.sources):
                found.add(layer.index)
        return found

    def read_across(self, start: int) -> set[int]:
        """Layers before `start`, -1 for the input, that it or later ones read."""
        return {source for layer in self.layers[start:] for source in layer.sources if source < start}

    @property
    def peak_activations(self) -> int:
        """The most values that an image's outputs take at a time, when the layers run in order."""
        shapes = {-1: self.net.input, **{layer.index: layer.out for layer in self.layers}}
        return max(
            sum(shapes[index].size for index in {*self.read_across(layer.index), layer.index}) for layer in self.layers
        )

    @property
    def bflops(self) -> float:
        """1e9 floating point operations an image."""
        return sum(layer.flops for layer in self.layers) / 1e9

    @property
    def parameters(self) -> int:
        """Floats in the .weights payload."""
        return weights_file.count(self.layers)


@dataclass(frozen=True, repr=False)
class Model:
    """A graph and its weights."""

    graph: Graph
    weights: Weights

    def __repr__(self) -> str:
        name = Path(self.graph.cfg.file).name
        return f"Model({name}: {len(self.graph.layers)} layers, {self.graph.parameters:,} floats)"

    def with_weights(self, weights: Weights) -> Model:
        """The same graph with other weights."""
        return replace(self, weights=weights)

    def with_arrays(self, changed: Mapping[int, Arrays]) -> Model:
        """The same with other arrays in some layers, by index."""
        layers = tuple(changed.get(index, arrays) for index, arrays in enumerate(self.weights.layers))
        return self.with_weights(Weights(self.weights.header, layers))


def build_graph(cfg: Cfg, dialect: Dialect) -> Graph:
    """Cfg -> Graph. InputError, with its line, for whatever can't run or be counted in this dialect."""
    options = Options(cfg, cfg.sections[0], None)
    net = Net.read(options, dialect)
    unused, misread = list(options.unused()), list(options.misread)
    shapes: dict[int, Shape] = {-1: net.input}
    layers: list[Layer] = []
    updates: list[Updates] = []
    for index, section in enumerate(cfg.sections[1:]):
        options = Options(cfg, section, index)
        layer = read_layer(options, Context(index, shapes, dialect, net.input.w, net.input.h, layers))
        shapes[index] = layer.out
        layers.append(layer)
        updates.append(Updates.read(options, dialect))
        unused.extend(options.unused())
        misread.extend(options.misread)
    if not layers:
        raise Options(cfg, cfg.sections[0], None).error("expected layers after it, found none")
    return Graph(
        cfg,
        dialect,
        net,
        tuple(layers),
        tuple(updates),
        tuple(unused),
        tuple(sorted(misread, key=lambda each: each.line)),
    )


def plain(graph: Graph) -> Cfg:
    """Its cfg with what Darknet reads in place of what is written."""
    changes: dict[int, dict[str, str]] = {}
    for each in graph.misread:
        changes.setdefault(each.section, {})[each.key] = each.value
    return cfg_file.edit(graph.cfg, changes) if changes else graph.cfg


def load_graph(cfg: str | Path, dialect: Dialect, content: bytes | None = None) -> Graph:
    """Read a .cfg file, or its bytes. An InputWarning for each value that is missing or misread."""
    read = cfg_file.read(cfg, content=content)
    for entry in (each for section in read.sections for each in section.empty):
        warn(f"{entry.key} has no value, and counts as absent", file=cfg, line=entry.line)
    graph = build_graph(read, dialect)
    for misread in graph.misread:
        warn(misread.message, file=cfg, line=misread.line)
    return graph


def load(cfg: str | Path, weights: str | Path, dialect: Dialect, *, allow_partial: bool = False) -> Model:
    """Read a .cfg and its .weights file; the weights' length is checked against the cfg before they are read.

    A file that ends after some whole layers is an InputError, unless `allow_partial`: then the rest is random.
    """
    graph = load_graph(cfg, dialect)
    if allow_partial:
        return Model(graph, weights_file.read_partial(weights, graph.layers, seed=0)[0])
    return Model(graph, weights_file.read(weights, graph.layers))


def hazards(layers: Sequence[Layer]) -> list[str]:
    """Where a stock reader would compute garbage on a legal cfg."""
    in_shapes = {layer.index: layer.source_shapes[0] for layer in layers}
    found = ((layer, layer.hazard(in_shapes)) for layer in layers)
    return [f"{layer}: {reason}" for layer, reason in found if reason]
