"""Which of a .weights file's floats are weights, and which of them have a grid."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from yoloprune.darknet import cfg as cfg_file
from yoloprune.darknet import weights as weights_file
from yoloprune.darknet.exact import exact_codes
from yoloprune.darknet.layers.base import Layer, TensorSpec
from yoloprune.darknet.model import Model
from yoloprune.darknet.weights import Header
from yoloprune.formats.base import Codes, Files, Floats


def files_of(model: Model) -> Files:
    """A model's .cfg and .weights, to be packed."""
    layers, header = model.graph.layers, model.weights.header
    floats = np.frombuffer(weights_file.dump(model.weights, layers), "<f4", offset=header.size)
    return Files(cfg_file.dump(model.graph.cfg), None, header.dump(), arrays_of(layers, header, floats))


def arrays_of(layers: Sequence[Layer], header: Header, floats: NDArray[np.float32]) -> tuple[Floats | Codes, ...]:
    """The payload of a .weights file, cut into arrays to pack; neighbours of a kind are one.

    Weights of a layer that lie on a grid, bit by bit, are its codes.

    floats: what is behind the header, just as many as the layers need.
    """
    return tuple(_arrays_of(layers, header, floats))


def _arrays_of(layers: Sequence[Layer], header: Header, floats: NDArray[np.float32]) -> Iterator[Floats | Codes]:
    waiting: list[tuple[TensorSpec, slice]] = []
    for layer, spec, place in weights_file.places(layers):
        if place.start == place.stop:
            continue
        codes = _codes(layer, spec, header, floats[place]) if spec.name == "weight" and spec.decay else None
        if waiting and (codes is not None or waiting[0][0].decay != spec.decay):
            yield _floats(waiting, floats)
            waiting = []
        if codes is not None:
            yield codes
        else:
            waiting.append((spec, place))
    if waiting:
        yield _floats(waiting, floats)


def _floats(places: Sequence[tuple[TensorSpec, slice]], floats: NDArray[np.float32]) -> Floats:
    return Floats(floats[places[0][1].start : places[-1][1].stop], places[0][0].decay)


def _codes(layer: Layer, spec: TensorSpec, header: Header, values: NDArray[np.float32]) -> Codes | None:
    """None for weights that are on no grid."""
    rows = layer.storage.rows(spec)
    by_column = weights_file.transposed(layer, spec, header)
    found = exact_codes(values.reshape(-1, rows).T if by_column else values.reshape(rows, -1))
    if found is None:
        return None
    grid, codes = found
    return Codes(np.ascontiguousarray(codes.T if by_column else codes).ravel(), grid, by_column)
