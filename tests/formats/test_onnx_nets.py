"""Whole networks as ONNX, trained and stock ones, original and slim: in onnxruntime, and in OpenCV 5 where it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import opencv5
import pytest

from tests.formats.onnx_runs import outputs_in_onnxruntime
from tests.helpers import graph_of, random_model, with_input
from tests.prune.test_slim import random_keep
from yoloprune.darknet.dialect import ALEXEYAB
from yoloprune.darknet.model import Model, load
from yoloprune.prune.channels import trace
from yoloprune.prune.slim import slim
from yoloprune.steps.onnx_file import difference, expected

codec = pytest.importorskip("yoloprune.formats.onnx", reason="the Python package onnx is not installed")

REPOSITORY = Path(__file__).resolve().parents[2]
TRAINED = ["lite-voc-t3", "mbv2-nano-coco", "yolo-fastest-1.0", "yolo-fastest-1.1", "yoloface-500k"]
OURS = ["cells-tiny", "cells", "shapes"]
STOCK = ["yolov3-tiny", "yolov4-tiny", "yolov3-tiny-prn", "enet-coco", "efficientnet_b0", "yolov7-tiny"]
LARGE = ["yolov3-spp", "yolov4", "csresnext50-panet-spp"]
"""Slim only: the originals take seconds each; tools/bench_onnx.py has them."""
NETS = [f"{name}{how}" for name in (*TRAINED, *OURS, *STOCK) for how in ("", " slim")] + [f"{n} slim" for n in LARGE]


@dataclass(frozen=True, eq=False)
class Run:
    """A network as ONNX, on a random image."""

    file: Path
    decode: bool
    inputs: np.ndarray
    expected: list[np.ndarray]
    found: list[np.ndarray]
    """In onnxruntime."""


@pytest.fixture(scope="module")
def runs_of(
    shared: Path, stock_cfg: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], list[Run]]:
    """By name: what enters the heads, or the classes; of trained networks boxes and scores, too.

    Sizes of random networks overflow.
    """
    folder = tmp_path_factory.mktemp("onnx")

    @cache
    def runs(name: str) -> list[Run]:
        model = original(name.removesuffix(" slim"), shared, stock_cfg)
        if name.endswith("slim"):
            channels = trace(model.graph)
            model = slim(model, channels, random_keep(channels, np.random.default_rng(3)))
        x = np.random.default_rng(2).random((1, *model.graph.net.input), np.float32)
        made = []
        for decode in (False, True) if name.split()[0] in (*TRAINED, *OURS) else (False,):
            proto, file = codec.convert(model, decode=decode), folder / f"{name} {decode}.onnx"
            file.write_bytes(proto.SerializeToString())
            found = list(outputs_in_onnxruntime(proto, x).values())
            made.append(Run(file, decode, x, expected(model, x, decode=decode), found))
        return made

    return runs


def original(name: str, shared: Path, stock_cfg: Callable[[str], Path]) -> Model:
    if name in OURS:
        return load(REPOSITORY / "cfg" / f"{name}.cfg", REPOSITORY / "weights" / f"{name}.weights", ALEXEYAB)
    if name in TRAINED:
        folder = shared / "models" / name
        return load(folder / f"{name}.cfg", folder / f"{name}.weights", ALEXEYAB)
    return random_model(graph_of(with_input(stock_cfg(name).read_text(), 64, 64)), 1)


@pytest.mark.parametrize("name", NETS)
def test_a_network_in_onnxruntime(runs_of: Callable[[str], list[Run]], name: str) -> None:
    for run in runs_of(name):
        assert all(np.ptp(each) > 0 for each in run.expected)
        assert difference(run.expected, run.found, decode=run.decode) < 1e-5


def test_opencv_5_reads_them(runs_of: Callable[[str], list[Run]]) -> None:
    """In float32 by other kernels, some with a Winograd transform: within 1e-4."""
    reason = opencv5.available()
    if reason is not None:
        pytest.skip(reason)
    runs = [(name, run) for name in NETS for run in runs_of(name)]
    found = opencv5.outputs([run.file for _, run in runs], [run.inputs for _, run in runs])
    for (name, run), outputs in zip(runs, found, strict=True):
        assert not isinstance(outputs, str), f"{name}: {outputs}"
        assert difference(run.expected, list(outputs.values()), decode=run.decode) < 1e-4, name
