"""Every layer of real networks against Debian's libdarknet, the heads' inputs against OpenCV."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers import worst
from yoloprune.darknet.dialect import ALEXEYAB, PJREDDIE, Dialect
from yoloprune.darknet.model import load
from yoloprune.darknet.network import build
from yoloprune.readers import libdarknet as stock
from yoloprune.readers import opencv

MODELS = ["yolo-fastest-1.1", "yolo-fastest-1.0", "mbv2-nano-coco", "yoloface-500k", "lite-voc-t3"]


def files(shared: Path, name: str) -> tuple[Path, Path]:
    folder = shared / "models" / name
    return folder / f"{name}.cfg", folder / f"{name}.weights"


@pytest.mark.parametrize("name", MODELS)
def test_every_layer_is_libdarknets(shared: Path, libdarknet: Path, name: str) -> None:
    cfg, weights = files(shared, name)
    model = load(cfg, weights, PJREDDIE)
    x = np.random.default_rng(1).random((3, *model.graph.net.input), np.float32)
    theirs = stock.outputs(cfg, weights, x)
    with torch.inference_mode():
        ours = build(model)(torch.from_numpy(x), want=range(len(model.graph.layers)))
    assert set(theirs) == set(ours)
    off = {index: worst(ours[index].numpy(), theirs[index]) for index in theirs}
    assert {index: value for index, value in off.items() if value > 1e-4} == {}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("dialect", "within"), [(PJREDDIE, 3e-3), (ALEXEYAB, 1e-2)], ids=["pjreddie", "alexeyab"])
def test_head_inputs_are_opencvs(shared: Path, name: str, dialect: Dialect, within: float) -> None:
    """OpenCV's epsilon is near pjreddie's; AlexeyAB's shows where running variances are small (reference, 10)."""
    cfg, weights = files(shared, name)
    model = load(cfg, weights, dialect)
    heads = model.graph.outputs
    x = np.random.default_rng(2).random((3, *model.graph.net.input), np.float32)
    theirs = opencv.head_inputs(cfg, weights, x, heads)
    entering = {head: model.graph.layers[head].sources[0] for head in heads}
    with torch.inference_mode():
        ours = build(model)(torch.from_numpy(x), want=entering.values())
    for head, source in entering.items():
        assert worst(ours[source].numpy(), theirs[head]) < within
