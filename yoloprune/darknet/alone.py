"""One layer of a network as a network of its own, with as many channels as are asked for: to count or time it."""

from __future__ import annotations

from collections.abc import Sequence

from yoloprune.darknet.cfg import parse
from yoloprune.darknet.dialect import Dialect
from yoloprune.darknet.layers.base import Layer
from yoloprune.darknet.model import Graph, build_graph


def alone(graph: Graph, index: int, inputs: Sequence[int], output: int) -> Graph:
    """Layer `index` reading `inputs` channels of each source and giving `output`: the last layer of what comes."""
    return read_alone(text_alone(graph, index, inputs, output), graph.dialect)


def read_alone(text: str, dialect: Dialect) -> Graph:
    """The network of such a text."""
    return build_graph(parse(text.encode("utf-8", "surrogateescape"), "<a layer alone>"), dialect)


def text_alone(graph: Graph, index: int, inputs: Sequence[int], output: int) -> str:
    """The cfg of `alone`, the same for layers that differ in nothing.

    A layer with arrays (its own or another's) that reads one layer reads the network's input. Others, which may read
    several layers or do nothing where they stand first, read 1x1 convolutions put in front.
    """
    layer = graph.layers[index]
    stands_first = layer.shares is not None or (layer.tensors() and len(layer.sources) == 1)
    in_front, links = ([], {}) if stands_first else _sources(layer, inputs)
    shapes = layer.source_shapes[:1] if stands_first else layer.source_shapes  # others are only coupled to a sharer
    h, w = (max(shape[axis] for shape in shapes) for axis in (1, 2))
    c = 1 if in_front else inputs[0]
    entries = {entry.key: entry.value for entry in reversed(graph.cfg.sections[index + 1].entries)}
    entries = {key: value for key, value in entries.items() if key not in layer.links}
    entries |= layer.changed_counts(inputs, output) | links
    own = "".join(f"{key}={entries[key]}\n" for key in sorted(entries))
    net = f"[net]\nwidth={w}\nheight={h}\nchannels={c}\n"
    return f"{net}{''.join(in_front)}[{graph.cfg.sections[index + 1].name}]\n{own}"


def _sources(layer: Layer, inputs: Sequence[int]) -> tuple[list[str], dict[str, str]]:
    """Sections that make something of each source's shape, and the keys by which the layer names them.

    Large maps come first, since the next section reads them; what the layer reads as the one before comes last.
    """
    shapes = dict(zip(layer.sources, zip(layer.source_shapes, inputs, strict=True), strict=True))
    size = max(shape[1:] for shape in layer.source_shapes)
    sections: list[str] = []
    made: dict[int, int] = {}
    for source in sorted(shapes, key=lambda source: (shapes[source][0][1:], source != layer.sources[0]), reverse=True):
        (_, h, w), count = shapes[source]
        sections.append(f"[convolutional]\nfilters={count}\nsize=1\nactivation=linear\n")
        if (h, w) != size:
            sections.append(f"[crop]\ncrop_height={h}\ncrop_width={w}\nnoadjust=1\n")
        size, made[source] = (h, w), len(sections) - 1
    if made[layer.sources[0]] != len(sections) - 1:
        sections.append(f"[route]\nlayers={made[layer.sources[0]]}\n")
    links = {key: ",".join(str(made[each]) for each in named) for key, named in layer.links.items()}
    return sections, links
