"""Rules on a section among the layers before it: windows, groups, joins, heads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from yoloprune.compat.base import REFERENCES, Node, Remark, Rule, Severity, shown
from yoloprune.compat.keys import words

_NEEDS_A_LAYER: Final = words("dropout shortcut scale_channels sam empty cost")
"""Sections that look at the layer before them, which the first has not."""
_NEEDS_A_MAP: Final = words("convolutional maxpool avgpool local_avgpool reorg reorg3d local crop")


def first_layer(node: Node) -> Iterator[Remark]:
    """A section that needs a layer before it, as the first."""
    if node.index == 0 and node.kind in _NEEDS_A_LAYER - ({"cost"} if node.reader.trains else set()):
        yield Remark("break", "looks at the layer before it, and there is none")


def nothing_left(node: Node) -> Iterator[Remark]:
    """A stride, filters or outputs under 1."""
    for key in {"convolutional": ("filters", "stride"), "connected": ("output",), "maxpool": ("stride",)}.get(
        node.kind, ()
    ):
        if node.integer(key, 1) < 1:
            yield Remark("break", f"expected 1 or more for {key}", key)


def pointwise(node: Node) -> Iterator[Remark]:
    """A 1x1 convolution with stride or padding."""
    if node.kind != "convolutional" or node.integer("size", 1) != 1:
        return
    stride = node.integer("stride", 1)
    padding = 0 if node.integer("pad", 0) else node.integer("padding", 0)
    if node.reader.pointwise_broken and (stride > 1 or padding):
        yield Remark(
            "differs",
            "a 1x1 convolution with stride or padding reads the wrong pixels",
            "stride" if stride > 1 else "padding",
        )
    if node.integer("stride_x", stride) == 1 < node.integer("stride_y", stride):
        yield Remark("differs", "a 1x1 convolution with a stride in y only reads the wrong pixels", "stride_y")


def conv_groups(node: Node) -> Iterator[Remark]:
    """Groups that don't divide the channels in or the filters."""
    groups = node.integer("groups", 1)
    if node.kind != "convolutional" or node.shape is None or groups == 1:
        return
    filters = node.integer("filters", 1)
    if groups < 1 or node.shape.c % groups or filters % groups:
        how: Severity = "differs" if node.reader.trains and groups > 0 else "break"
        yield Remark(how, f"{groups} groups don't divide {node.shape.c} channels in and {filters} filters", "groups")


def depth_of_reorg(node: Node) -> Iterator[Remark]:
    """Channels that a block's places don't divide."""
    if node.kind != "reorg" or node.shape is None or node.integer("reverse", 0):
        return
    places = node.integer("stride", 1) ** 2
    if node.shape.c < places and node.reader.trains:
        yield Remark("break", f"divides by zero: {node.shape.c} channels, under stride * stride = {places}", "stride")
    elif node.shape.c % max(places, 1):
        yield Remark("differs", f"{node.shape.c} channels are no multiple of stride * stride = {places}", "stride")


def maxpool_at_stride_1(node: Node) -> Iterator[Remark]:
    """Windows that a vector path cuts off at the left."""
    if node.kind != "maxpool" or not node.reader.fast_maxpool or node.shape is None:
        return
    stride = node.integer("stride", 1)
    size = node.integer("size", stride)
    strides = {node.integer("stride_x", stride), node.integer("stride_y", stride)}
    if strides == {1} and size > 1 and node.shape.w > 8 + size - 1:
        yield Remark(
            "note", "too small values on a CPU build with AVX: windows at stride 1 lose places on the left", "stride"
        )


def upsample(node: Node) -> Iterator[Remark]:
    """A negative stride, which sums blocks."""
    if node.kind == "upsample" and not node.reader.trains and node.integer("stride", 2) < 1:
        yield Remark("break", "expected a stride over 0", "stride")


def softmax(node: Node) -> Iterator[Remark]:
    """Groups in OpenCV."""
    if node.kind == "softmax" and not node.reader.trains and node.integer("groups", 1) != 1:
        yield Remark("break", "expected one group", "groups")


def tree(node: Node) -> Iterator[Remark]:
    """A tree of classes in OpenCV's [region]."""
    if node.kind == "region" and not node.reader.trains and node.has("tree"):
        yield Remark("break", "a tree of classes is not implemented", "tree")


def crop(node: Node) -> Iterator[Remark]:
    """OpenCV scales in a layer of its own, which its reading of the weights doesn't count."""
    if node.kind == "crop" and not node.reader.trains and not node.integer("noadjust", 0):
        yield Remark("break", "without noadjust=1 the weights behind it are lost: fails when it is run")


def connected_norm(node: Node) -> Iterator[Remark]:
    """Batch norm of [connected], read at the wrong place."""
    if node.kind == "connected" and node.reader.connected_norm_first and node.integer("batch_normalize", 0):
        yield Remark(
            "differs", "arrays are read in another order than Darknet writes (--fold-bn helps)", "batch_normalize"
        )


def flipped(node: Node) -> Iterator[Remark]:
    """Transposed weights in OpenCV."""
    if node.kind == "convolutional" and not node.reader.trains and node.integer("flipped", 0) == 1:
        yield Remark("break", "weights that are stored transposed can't be read", "flipped")


def references(node: Node) -> Iterator[Remark]:
    """A layer index that points nowhere before the section, or none at all."""
    key = REFERENCES.get(node.kind)
    if key is None or node.index is None:
        return
    if not node.has(key):
        yield Remark("break", f"needs {key}=")
    for value in node.integers(key):
        if not -node.index <= value < node.index:
            refuses = not node.reader.trains or (node.reader.strict and value >= node.index)
            found = f"points to no layer before (expected {-node.index}..{node.index - 1}, found {value})"
            yield Remark("break" if refuses else "differs", found if refuses else f"{found}; garbage is read", key)
        elif value == 0 and node.reader.zero_refused:
            yield Remark("break", "an index of 0 means the section itself", key)
        elif value >= 0 and node.reader.misread_indexes.get(key) in ("all", "all" if value else "zero"):
            yield Remark("differs", f"an index of {value} means another layer", key)
    yield from _unreachable(node, key)


def _unreachable(node: Node, key: str) -> Iterator[Remark]:
    """Layers that the reader has no output of."""
    for source in node.sources:
        if not 0 <= source < len(node.subject.cfg.sections) - 1:
            continue
        other = Node(node.reader, node.subject, node.subject.cfg.sections[source + 1], source)
        single = other.kind != "route" or (len(other.items("layers")) == 1 and not other.has("groups"))
        if other.kind in node.reader.unreachable and single:
            yield Remark("break", f"points to layer {source} [{other.kind}], which has no output here", key)


def route(node: Node) -> Iterator[Remark]:
    """Maps of several sizes; groups that don't divide."""
    if node.kind != "route":
        return
    sources = node.sources
    shapes = [node.subject.shapes[source] for source in sources if source in node.subject.shapes]
    if len({(shape.h, shape.w) for shape in shapes}) > 1:
        yield Remark("break", f"joins maps of several sizes: {shown(shapes)}", "layers")
    groups = node.integer("groups", 1)
    odd = [shape.c for shape in shapes if groups < 1 or shape.c % groups]
    if odd:
        yield Remark("differs", f"{groups} groups don't divide {shown(odd)} channels", "groups")


def converted_route(node: Node) -> Iterator[Remark]:
    """What converters can't: some numbers of layers, groups of several."""
    if node.kind != "route":
        return
    sources, groups = node.sources, node.integer("groups", 1)
    counts = node.reader.route_counts
    if counts and len(sources) not in counts:
        yield Remark("differs", f"passes over a [route] of {len(sources)} layers", "layers")
    elif node.reader.route_needs_last and len(sources) > 1:
        last = (node.index or 0) - 1
        if last not in (sources if len(sources) == 2 else sources[:1]):
            which = "one of two" if len(sources) == 2 else "the first"
            yield Remark("break", f"expected the layer before as {which}", "layers")
    if len(sources) > 1 and node.reader.route_groups == "refused" and node.has("groups"):
        yield Remark("break", f"groups of {len(sources)} layers are refused", "groups")
    elif groups > 1 and len(sources) > 1 and node.reader.route_groups == "passed over":
        yield Remark("differs", f"groups of {len(sources)} layers are passed over", "groups")
    elif groups > 1 and not node.has("group_id") and node.reader.group_id_needed != "no":
        how: Severity = "break" if node.reader.group_id_needed == "refused" else "differs"
        yield Remark(how, "needs group_id= for its groups", "groups")


def shortcut(node: Node) -> Iterator[Remark]:
    """Maps of two sizes, more than one layer, weights, unequal channels."""
    if node.kind != "shortcut":
        return
    sources = node.sources
    if node.shape is not None:
        for source in sources[:1] if node.reader.one_shortcut else sources:
            other = node.subject.shapes.get(source)
            if other is not None and other[1:] != node.shape[1:] and node.reader.shortcut_same_size:
                yield Remark("break", f"adds maps of two sizes, {node.shape} and {other}", "from")
            if other is not None:
                yield from _widths(node.reader.shortcut_widths, node.shape.c, other.c)
    if node.reader.one_shortcut and len(sources) > 1 and node.reader.exact == "no":
        yield Remark("differs", f"takes the first of {len(sources)} layers", "from")
    if not node.reader.trains and node.has("beta") and node.number("beta", 0):
        yield Remark("break", "beta is refused, also where it is 1", "beta")
    yield from _weighted(node)
    if node.reader.fast_shortcut and node.layer is not None:
        hazard = node.layer.hazard(node.subject.inputs)
        if hazard:
            yield Remark("differs", hazard, "from")


def _widths(fate: str, own: int, other: int) -> Iterator[Remark]:
    """Unequal numbers of channels. ncnn packs 16, 8 or 4 of them, as many as divide them and the CPU has lanes."""
    if fate == "any" or own == other:
        return
    adds = f"adds {other} channels to {own}"
    if fate == "equal":
        yield Remark("break", f"{adds}: refused", "from")
    elif other < own:
        yield Remark("differs", f"{adds}: reads past the end", "from")
    elif any(_packed(own, lanes) != _packed(other, lanes) for lanes in (4, 8, 16)):
        yield Remark("differs", f"{adds}, which are packed otherwise: garbage (--multiple 16 helps)", "from")


def _packed(channels: int, lanes: int) -> int:
    return next(size for size in (16, 8, 4, 1) if size <= lanes and channels % size == 0)


def _weighted(node: Node) -> Iterator[Remark]:
    kind = node.text("weights_type", "none")
    normalization = node.text("weights_normalization", "none")
    if kind == "none":
        return
    kinds = ("per_feature", "per_channel") + (() if node.reader.strict else ("per_layer",))
    if kind not in kinds:
        yield Remark("break", f"expected one of none, {', '.join(kinds)}", "weights_type")
    elif normalization not in ("relu", "softmax") + (("none",) if node.reader.strict else ("avg_relu",)):
        yield Remark("break", "weights need weights_normalization=relu or softmax", "weights_type")


def scaling(node: Node) -> Iterator[Remark]:
    """[scale_channels], [sam]: activations they can't, a map instead of one number a channel."""
    if node.kind not in ("scale_channels", "sam"):
        return
    if node.text("activation", "linear") in ("swish", "mish") and node.reader.trains:
        yield Remark("break" if node.reader.strict else "differs", "swish and mish can't be used here", "activation")


def no_map(node: Node) -> Iterator[Remark]:
    """A section that reads a map, after a network input that is a vector."""
    net = node.subject.cfg.sections[0]
    given = [node.reader.entry(net, key) for key in ("width", "height", "channels")]
    if node.index == 0 and node.kind in _NEEDS_A_MAP and node.reader.trains and None in given:
        yield Remark("break", "reads a map, and [net] says no width, height and channels")


RULES: Final[tuple[Rule, ...]] = (
    first_layer,
    nothing_left,
    pointwise,
    conv_groups,
    depth_of_reorg,
    maxpool_at_stride_1,
    upsample,
    softmax,
    tree,
    crop,
    connected_norm,
    flipped,
    references,
    route,
    converted_route,
    shortcut,
    scaling,
    no_map,
)
