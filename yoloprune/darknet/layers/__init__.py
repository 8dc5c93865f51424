"""The layer table: one class per section type, found by name."""

from yoloprune.darknet.layers import convolution, head, join, pool
from yoloprune.darknet.layers.base import REGISTRY, Context, Layer, Shape, TensorSpec, read_layer

__all__ = ["REGISTRY", "Context", "Layer", "Shape", "TensorSpec", "convolution", "head", "join", "pool", "read_layer"]
