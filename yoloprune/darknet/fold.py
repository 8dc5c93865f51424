"""Batch normalization folded into the weights before it, so that every reader computes the same."""

from __future__ import annotations

import numpy as np
import torch

from yoloprune.darknet import cfg as cfg_file
from yoloprune.darknet.dialect import Dialect
from yoloprune.darknet.layers.norm import fold
from yoloprune.darknet.model import Model, build_graph
from yoloprune.darknet.options import Options
from yoloprune.darknet.weights import Arrays, Weights

_NORMALIZED = {"bias", "scale", "mean", "variance", "weight"}


def folded(model: Model) -> Model:
    """The same network by the formula of its dialect, in float64, without `batch_normalize`.

    Which small number stands under the root differs between readers, and no longer matters. The key goes, as some
    readers ask whether it is there and not what it says (PyTorch-YOLOv3 models.py, keras-yolo3 convert.py,
    DeepStream-Yolo convolutional_layer.cpp). InputError for a section whose normalization is not in arrays of its own.
    """
    changes: dict[int, dict[str, str | None]] = {}
    layers: list[Arrays] = []
    for layer, arrays in zip(model.graph.layers, model.weights.layers, strict=True):
        section = model.graph.cfg.sections[layer.index + 1]
        if not getattr(layer, "batch_normalize", False):
            layers.append(arrays)
            continue
        if set(arrays) != _NORMALIZED or section.get("share_index") is not None:
            raise Options(model.graph.cfg, section, layer.index).error("can't be folded", "batch_normalize")
        layers.append(folded_arrays(arrays, model.graph.dialect))
        changes[layer.index + 1] = {"batch_normalize": None}
    graph = build_graph(cfg_file.edit(model.graph.cfg, changes), model.graph.dialect)
    return Model(graph, Weights(model.weights.header, tuple(layers)))


def folded_arrays(arrays: Arrays, dialect: Dialect) -> Arrays:
    """Bias and weight of arrays with scale, mean and variance, in float64; where there is no weight, it is 1."""
    wide = {name: torch.from_numpy(array.astype(np.float64)) for name, array in arrays.items()}
    scale = wide["scale"]
    factor, bias = fold(scale, wide.get("bias", torch.zeros_like(scale)), wide["mean"], wide["variance"], dialect)
    weight = wide.get("weight", torch.ones_like(scale))
    weight = weight * factor.view(-1, *[1] * (weight.dim() - 1))
    return {"bias": bias.numpy().astype(np.float32), "weight": weight.numpy().astype(np.float32)}
