"""The layer table: one class per section type, found by name. Every file of this package that has some is imported."""

import importlib
import pkgutil

from yoloprune.darknet.layers.base import REGISTRY, Context, Layer, Shape, TensorSpec
from yoloprune.darknet.layers.reading import read_layer

for _file in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_file.name}")

__all__ = ["REGISTRY", "Context", "Layer", "Shape", "TensorSpec", "read_layer"]
