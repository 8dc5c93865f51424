"""Rules on [net], on the network as a whole, and on its weights file."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from yoloprune.compat.base import FileRule, Node, Remark, Subject, WeightsFile, net_node, nodes
from yoloprune.compat.keys import words
from yoloprune.compat.profiles import ReaderProfile
from yoloprune.darknet import cfg as cfg_file
from yoloprune.darknet import weights as weights_file
from yoloprune.darknet.layers.base import TensorSpec
from yoloprune.darknet.model import Graph, build_graph
from yoloprune.errors import InputError

_HEADS: Final = ("yolo", "region")
_ON_MAPS: Final = words("convolutional maxpool avgpool local_avgpool reorg reorg3d local crop upsample yolo region")
"""Sections that note the size of the map they read."""


def input_size(reader: ReaderProfile, subject: Subject) -> Iterator[Remark]:
    """No input at all; sides that are no multiple of 32 for a detector."""
    net = net_node(reader, subject)
    sides = [net.integer(key, 0) for key in ("width", "height", "channels")]
    if reader.trains and not all(sides) and not net.integer("inputs", 0):
        yield Remark("break", "expected width=, height= and channels= over 0")
    last = Node(reader, subject, subject.cfg.sections[-1], len(subject.cfg.sections) - 2).kind
    if last in _HEADS and any(side % 32 or side < 32 for side in sides[:2]):
        found = f"width and height of a detector should be multiples of 32, found {sides[0]}x{sides[1]}"
        if reader.multiple_of > 1:
            yield Remark("break", f"{found}: refused")
        elif reader.needs_maps:
            yield Remark("note", f"{found}: a warning")


def batches(reader: ReaderProfile, subject: Subject) -> Iterator[Remark]:
    """Parts of an update that hold no picture; contrastive training on single pictures."""
    net = net_node(reader, subject)
    batch, parts = net.integer("batch", 1), net.integer("subdivisions", 1)
    if not reader.trains:
        return
    if parts < 1:
        yield Remark("break", "divides by it", "subdivisions")
    elif batch // parts < 1:
        if reader.needs_maps:
            yield Remark("note", f"batch={batch} in {parts} subdivisions counts as one picture each", "batch")
        else:
            yield Remark(
                "break", f"batch={batch} in {parts} subdivisions leaves no picture for a part: a crash", "batch"
            )
    if net.integer("contrastive", 0) and parts > 0 and batch // parts < 2:
        yield Remark("break", "contrastive training needs two pictures for each of the subdivisions", "contrastive")


def policy(reader: ReaderProfile, subject: Subject) -> Iterator[Remark]:
    """A policy that lacks its lists."""
    net = net_node(reader, subject)
    if net.text("policy", "constant") == "steps" and not (net.has("steps") and net.has("scales")):
        yield Remark("break", "policy=steps needs steps= and scales=", "policy")


def maps(reader: ReaderProfile, subject: Subject) -> Iterator[Remark]:
    """A network of vectors only, where the reader divides by the number of layers on maps."""
    if not reader.needs_maps:
        return
    net = net_node(reader, subject)
    mapped = [node for node in nodes(reader, subject) if node.kind in _ON_MAPS]
    known = [node.shape for node in mapped if node.shape is not None]
    flat = not (net.integer("width", 0) > 1 and net.integer("height", 0) > 1)
    if flat or not mapped or (len(known) == len(mapped) and all(min(shape[1:]) < 2 for shape in known)):
        yield Remark("break", "divides by zero: no layer reads a map of more than 1x1")


def batch_norm(reader: ReaderProfile, subject: Subject) -> Iterator[Remark]:
    """By which formula it normalizes."""
    for section in subject.cfg.sections[1:]:
        entry = reader.entry(section, "batch_normalize")
        if entry is not None and entry.value[:1] != "0":
            text = f"normalizes by {reader.bn_formula}; readers differ where variances are small (export --fold-bn)"
            yield Remark("note", text, "batch_normalize", entry.line)
            return


def weights_header(reader: ReaderProfile, subject: Subject) -> Iterator[Remark]:
    """A name that isn't recognised; a header that is missing or of another kind."""
    weights = subject.weights
    if weights is None:
        return
    if reader.weights_ending and Path(weights.name).suffix != reader.weights_ending:
        yield Remark(
            "differs", f"a weights file whose name doesn't end in {reader.weights_ending} is silently not loaded"
        )
    if len(weights.head) < 16:
        how = Remark("break", "too short for a header")
        yield how if reader.weights != "loose" or not reader.trains else Remark("differs", "no header: random weights")
        return
    major, minor = struct.unpack_from("<ii", weights.head)
    size = weights_file.Header(major, minor).size
    if reader.fixed_header not in (None, size):
        yield Remark("break", f"its header has {size} bytes, and {reader.fixed_header} are taken for it")
        return
    if major <= 1000 and minor <= 1000:
        return
    found = f"version {major}.{minor} says that connected weights are transposed"
    if reader.transposed == "refused":
        yield Remark("break", f"{found}, which is refused")
    elif reader.transposed == "shifted":
        yield Remark("differs", f"{found}, and all values are read 4 bytes late")


def weights_length(reader: ReaderProfile, subject: Subject) -> Iterator[Remark]:
    """A file that is shorter or longer than what the reader reads of it."""
    weights = subject.weights
    if weights is None or len(weights.head) < 16:
        return
    graph = _as_read(reader, subject)
    if graph is None:
        if subject.complete:
            yield Remark("note", "the length was not checked: the layers don't fit together as this reader takes them")
        return
    header, floats = _header(weights), weights_file.count(graph.layers)
    needed = header.size + 4 * floats
    found = f"expected {needed} bytes by the cfg, found {weights.size}"
    disagreement = header.disagreement(weights.size, floats)
    if disagreement is not None:
        yield Remark("break", disagreement)
    elif weights.size == needed:
        return
    elif reader.weights == "exact" or (reader.weights == "long" and weights.size < needed):
        yield Remark("break", found)
    elif weights.size < needed:
        yield Remark("differs", f"{found}: what is missing keeps random values")
    else:
        yield Remark("ignored", f"{found}: what is too much is passed over; is it of another cfg?")


def weights_values(reader: ReaderProfile, subject: Subject) -> Iterator[Remark]:
    """Values that are no numbers, and variances that the reader makes NaN of."""
    weights = subject.weights
    graph = None if weights is None or len(weights.head) < 16 else _as_read(reader, subject)
    if weights is None or graph is None:
        return
    start = _header(weights).size // 4
    if weights.size != 4 * (start + weights_file.count(graph.layers)):
        return  # whatever is wrong with it, values may not be where they seem
    first: dict[str, str] = {}
    count = {"": 0, ", which becomes NaN": 0}
    for layer, spec, place in weights_file.places(graph.layers):
        for what, lost in _lost(reader, weights, spec, start + place.start, start + place.stop).items():
            if len(lost):
                at = int(lost[0])
                first.setdefault(what, f"byte {4 * at}: {layer}, {spec.name}: {weights.floats[at]:g}{what}")
                count[what] += len(lost)
    for what, message in first.items():
        others = f" ({count[what] - 1} more)" if count[what] > 1 else ""
        yield Remark("break", message + others)


def weights_zeros(reader: ReaderProfile, subject: Subject) -> Iterator[Remark]:
    """Zeros inside layers, which few readers run faster for."""
    zeros = subject.zeros
    if zeros is None or not zeros.sparse:
        return
    pattern = f" (2:4 in {zeros.two_of_four})" if zeros.two_of_four else ""
    found = (
        f"{zeros.share:.1%} of the weights are 0, a tenth or more in {zeros.sparse} of {zeros.layers} layers{pattern}"
    )
    what = "all are computed, and nothing runs faster"
    if reader.skips_zeros:
        what = (
            "TensorRT, also in ONNX Runtime, skips them on GPUs from Ampere on if its engine is built with sparsity, "
            "where each 4 neighbouring input channels have at most 2 nonzero weights at a place of the kernel (2:4): "
            f"in {zeros.two_of_four} of these layers; elsewhere all are computed"
        )
    yield Remark("note", f"{found}: {what}; the file gets small only once it is packed or compressed")


def weights_bits(reader: ReaderProfile, subject: Subject) -> Iterator[Remark]:
    """Weights of few bits, which no reader of these files computes with."""
    bits = subject.bits
    if bits is None or not bits.coded:
        return
    found = f"those of {bits.coded} of {bits.layers} layers take values of {bits.most} bits or fewer"
    what = "bits are storage, small once packed: all are computed as floats, and nothing runs faster"
    own = f" ({reader.own_int8})" if reader.own_int8 else ""
    yield Remark("note", f"{found}: {what}{own}; int8 runs through ONNX")


def _lost(
    reader: ReaderProfile, weights: WeightsFile, spec: TensorSpec, start: int, end: int
) -> dict[str, NDArray[np.int64]]:
    """Of the array from `start` to `end`, which are no numbers, and which the reader's batch norm makes NaN of."""
    odd = weights.not_finite
    found = {"": odd[np.searchsorted(odd, start) : np.searchsorted(odd, end)]}
    if spec.variance:
        bound = reader.dialect.variance_over if reader.variance_over is None else reader.variance_over
        variances = weights.floats[start:end]
        fine = weights_file.over(variances, bound) | ~np.isfinite(variances)
        found[", which becomes NaN"] = start + np.flatnonzero(~fine)
    return found


def _header(weights: WeightsFile) -> weights_file.Header:
    return weights_file.Header(*struct.unpack_from("<iii", weights.head))


def _as_read(reader: ReaderProfile, subject: Subject) -> Graph | None:
    """The network without what the reader passes over, if that still is one: what arrays it looks for."""
    unread: set[int] = set()
    activations: dict[int, dict[str, str]] = {}
    for number, section in enumerate(subject.cfg.sections):
        kind = reader.kind(section.name)
        if kind is None:
            return None
        counting = reader.counting(section)
        for entry in section.entries:
            if counting[entry.key] is not entry or not reader.knows(kind, entry.key):
                unread.add(entry.line)
            elif entry.key == "activation" and entry.value not in reader.activations:
                activations[number] = {"activation": "relu"}  # arrays don't depend on it
    try:
        cfg = cfg_file.without(cfg_file.edit(subject.cfg, activations), unread)
        return build_graph(cfg, reader.dialect)
    except InputError:
        return None


RULES: Final[tuple[FileRule, ...]] = (input_size, batches, policy, maps, batch_norm)
WEIGHTS_RULES: Final[tuple[FileRule, ...]] = (
    weights_header,
    weights_length,
    weights_values,
    weights_zeros,
    weights_bits,
)
"""Their remarks are of no line of the cfg."""
