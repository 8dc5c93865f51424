"""Darknet's files as ONNX, for `onnxruntime`. Apart from it, as it loads PyTorch, which no worker shall."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from yoloprune.darknet import cfg as cfg_file
from yoloprune.darknet import weights as weights_file
from yoloprune.darknet.dialect import ALEXEYAB
from yoloprune.darknet.model import Model, build_graph
from yoloprune.errors import InputError
from yoloprune.formats.onnx import convert
from yoloprune.readers.base import ReaderError


def of_files(cfg: Path, weights: Path, layers: Sequence[int] | None) -> bytes:
    """A network whose outputs are those of `layers`, None: its own. ReaderError for what can't be converted."""
    try:
        graph = build_graph(cfg_file.read(cfg), ALEXEYAB)
        return _bytes(Model(graph, weights_file.read(weights, graph.layers)), layers)
    except InputError as error:
        raise ReaderError(str(error)) from error


def of_text(text: str) -> bytes:
    """A network with random weights of a cfg's text; its output is the last layer's."""
    graph = build_graph(cfg_file.parse(text.encode("utf-8", "surrogateescape")), ALEXEYAB)
    model = Model(graph, weights_file.initial(graph.layers, 0))
    return _bytes(model, [len(graph.layers) - 1])


def _bytes(model: Model, layers: Sequence[int] | None) -> bytes:
    data: bytes = convert(model, layers).SerializeToString()
    return data
