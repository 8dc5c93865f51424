"""A section becomes a layer, by the table of layer classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from yoloprune.darknet.dialect import Dialect
from yoloprune.darknet.layers.base import REGISTRY, Context, Layer, Storage, TensorSpec, Vector, known_to
from yoloprune.darknet.options import Options

_MOST_VALUES = 2**31 - 1
_MOST_CHANNELS = 2**20
_MOST_WEIGHTS = 2**28
"""Floats in the arrays of one layer, 1 GiB: twice what the largest layer of a stock network has."""


def read_layer(options: Options, context: Context) -> Layer:
    """Section -> layer by the table. InputError for sections that the table or the dialect lacks, and for huge ones."""
    dialect = context.dialect
    cls = REGISTRY.get(options.section.name)
    if cls is None or not known_to(cls, dialect):
        known = ", ".join(sorted(kind.names[0] for kind in set(REGISTRY.values()) if known_to(kind, dialect)))
        raise options.error(f"unknown or unsupported in dialect {dialect.name} (expected one of {known})")
    layer = cls.read(options, context)
    vector = any(isinstance(shape, Vector) for shape in layer.source_shapes)
    if vector and not (layer.reads_vectors or dialect.vectors_are_maps):
        raise options.error(f"expected a map to read, found values without width and height in dialect {dialect.name}")
    shape = layer.out
    if min(shape) < 1 or shape.size > _MOST_VALUES or shape.c > _MOST_CHANNELS:
        raise options.error(
            f"output would be {shape} (expected 1..{_MOST_VALUES} values and up to {_MOST_CHANNELS} channels)"
        )
    specs = layer.tensors()
    if sum(spec.size for spec in specs) > _MOST_WEIGHTS:
        raise options.error(f"expected up to {_MOST_WEIGHTS} weights, found {sum(spec.size for spec in specs)}")
    return replace(layer, storage=read_storage(options, dialect, specs)) if specs else layer


def read_storage(options: Options, dialect: Dialect, specs: Sequence[TensorSpec]) -> Storage:
    """`dontload` and `dontloadscales` hold for every section, `flipped` and pjreddie's `numload` for convolutions."""
    weight = next((spec.shape for spec in specs if spec.name == "weight" and len(spec.shape) == 4), None)
    filters = None if weight is None or dialect.extended else options.integer("numload", 0, 0, weight[0])
    return Storage(
        load=options.integer("dontload", 0) == 0,
        scales=options.integer("dontloadscales", 0) == 0,
        filters=filters or None,
        flipped=weight is not None and options.flag("flipped"),
        variance_over=dialect.variance_over,
    )
