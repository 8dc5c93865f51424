"""A network as `.onnx`: opset 13, static shapes, batch norm folded, plain operators only (docs/onnx.md).

What an operator computes for a section, its layer says (`Layer.convert`). Needs the package onnx.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from yoloprune.darknet.fold import folded_arrays
from yoloprune.darknet.layers.head import DetectionHead
from yoloprune.darknet.model import Model
from yoloprune.darknet.operators import Operand, Operators, UnconvertibleError, Value
from yoloprune.darknet.options import Options
from yoloprune.errors import InputError

OPSET: Final = 13
"""The lowest with scales for each channel; what reads ONNX at all has it."""
IR_VERSION: Final = 7
"""Of the file, as that opset came with."""
INPUT: Final = "input"
BOXES: Final = "boxes"
SCORES: Final = "scores"
_MOST_BYTES: Final = 2**31 - 2**24
"""Of weights: Protocol Buffers end at 2 GiB."""
_SMALL: Final = 64
"""Values of constants that are looked for among those there are."""


class _Graph(Operators):
    """Nodes and constants as they come."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.scope = ""
        """Of the names of what is added."""
        self._known: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        """Small constants, each of which is there once."""

    def op(self, kind: str, *operands: Operand, **attributes: Any) -> Value:
        made = f"{self.scope}/{kind.lower()}_{len(self.nodes)}"
        inputs = [each if isinstance(each, str) else self._constant(each) for each in operands]
        self.nodes.append(helper.make_node(kind, inputs, [made], made, **attributes))
        return made

    def rename(self, value: Value, name: str, since: int) -> Value:
        """Call a value otherwise, of one of the nodes added since there were so many; another keeps its name."""
        made = [node for node in self.nodes[since:] if value in node.output]
        for node in self.nodes[since:] if made else ():
            for names in (node.input, node.output):
                names[:] = [name if each == value else each for each in names]
        return name if made else value

    def _constant(self, value: float | NDArray[Any]) -> str:
        """Name of a constant."""
        array = np.asarray(value, None if isinstance(value, np.ndarray) else np.float32)
        key = (array.dtype.str, array.shape, array.tobytes()) if array.size <= _SMALL else None
        if key in self._known:
            return self._known[key]
        name = f"{self.scope}/constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(array, name))
        if key is not None:
            self._known[key] = name
        return name


def convert(model: Model, outputs: Sequence[int] | None = None, *, decode: bool = False) -> onnx.ModelProto:
    """A network for one image: input [1, C, H, W] float32, RGB in 0..1 -> the outputs of layers.

    outputs: which, by index, in that order; left out, with `decode` none, else the graph's `raw_outputs`. decode: in
    front of them `boxes` [1, M, 4] and `scores` [1, M, K] of all detection heads, one behind the other; centre, width
    and height as fractions of the input, objectness times class. InputError, with file, line and layer, for what can't
    be converted.
    """
    if 4 * model.graph.parameters > _MOST_BYTES:
        found = f"{4 * model.graph.parameters} bytes of weights"
        raise InputError(
            f"expected up to {_MOST_BYTES}, as one ONNX file holds, found {found}", file=model.graph.cfg.file
        )
    graph = _Graph()
    heads = _to_decode(model) if decode else ()
    if outputs is None:
        outputs = () if decode else model.graph.raw_outputs
    values = _layers(graph, model, [*(head.index for head in heads), *outputs])
    named = _decoded(graph, model, heads, values) if decode else []
    named += _named(graph, [(values[index], (1, *model.graph.layers[index].out)) for index in outputs])
    made = helper.make_graph(
        graph.nodes,
        "network",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, (1, *model.graph.net.input))],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in named],
        graph.constants,
    )
    opset = [helper.make_opsetid("", OPSET)]
    proto = helper.make_model(made, opset_imports=opset, ir_version=IR_VERSION, producer_name="yoloprune")
    onnx.checker.check_model(proto, full_check=True)
    return proto


def shapes(proto: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Of the outputs, by name."""
    return {each.name: tuple(side.dim_value for side in each.type.tensor_type.shape.dim) for each in proto.graph.output}


def _layers(graph: _Graph, model: Model, wanted: Sequence[int]) -> dict[int, Value]:
    """Layers that the wanted ones need, in order; their outputs by index, -1 the input."""
    values: dict[int, Value] = {-1: INPUT}
    for index in sorted(_needed(model, wanted)):
        layer = model.graph.layers[index]
        graph.scope = f"{index}_{layer.name}"
        since = len(graph.nodes)
        arrays = model.weights.layers[index if layer.shares is None else layer.shares]
        if "variance" in arrays:
            arrays = folded_arrays(arrays, model.graph.dialect)
        try:
            made = layer.convert(graph, [values[source] for source in layer.sources], arrays)
        except UnconvertibleError as error:
            raise _refusal(model, index, error) from error
        values[index] = graph.rename(made, f"{layer.name}_{index}", since)
    return values


def _needed(model: Model, wanted: Sequence[int]) -> set[int]:
    needed: set[int] = set()
    todo = list(wanted)
    while todo:
        index = todo.pop()
        if index >= 0 and index not in needed:
            needed.add(index)
            todo += model.graph.layers[index].sources
    return needed


def _to_decode(model: Model) -> tuple[DetectionHead, ...]:
    """The heads whose boxes can stand one behind the other. InputError where there are none."""
    heads, file = model.graph.detection_heads, model.graph.cfg.file
    if not heads:
        raise InputError("expected a network with boxes to decode, found none", file=file)
    if len({head.classes for head in heads}) > 1:
        found = ", ".join(str(head.classes) for head in heads)
        raise InputError(f"expected heads of one number of classes to decode, found {found}", file=file)
    return heads


def _decoded(
    graph: _Graph, model: Model, heads: Sequence[DetectionHead], values: Mapping[int, Value]
) -> list[tuple[Value, tuple[int, ...]]]:
    """boxes and scores of all heads, and their shapes."""
    pairs = []
    for head in heads:
        graph.scope = f"{head.index}_{head.name}_boxes"
        try:
            pairs.append(head.convert_boxes(graph, values[head.index]))
        except UnconvertibleError as error:
            raise _refusal(model, head.index, error) from error
    graph.scope, since = "boxes", len(graph.nodes)
    boxes, scores = (graph.op("Concat", *parts, axis=1) for parts in zip(*pairs, strict=True))
    count = sum(head.box_count for head in heads)
    shapes = ((1, count, 4), (1, count, heads[0].classes))
    names = (graph.rename(boxes, BOXES, since), graph.rename(scores, SCORES, since))
    return list(zip(names, shapes, strict=True))


def _named(graph: _Graph, values: Sequence[tuple[Value, tuple[int, ...]]]) -> list[tuple[Value, tuple[int, ...]]]:
    """Outputs, each by a name of its own that is not the input's."""
    graph.scope = "outputs"
    taken = {INPUT}
    named = []
    for value, shape in values:
        name = graph.op("Identity", value) if value in taken else value
        taken.add(name)
        named.append((name, shape))
    return named


def _refusal(model: Model, index: int, error: UnconvertibleError) -> InputError:
    cfg = model.graph.cfg
    return Options(cfg, cfg.sections[index + 1], index).error(f"can't be converted to ONNX: it {error}")
