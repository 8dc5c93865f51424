"""The main job on real networks: the four steps, and stock Darknet runs what comes out."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.jobs import ana, export, prune
from yoloprune.artefacts import sha256
from yoloprune.darknet.dialect import ALEXEYAB
from yoloprune.darknet.model import load
from yoloprune.options import FinetuneOptions
from yoloprune.prune.plan import Plan
from yoloprune.steps.export import Exported
from yoloprune.steps.finetune import finetune
from yoloprune.steps.verify import verify
from yoloprune.workspace import Workspace

ROOT = Path(__file__).resolve().parents[1]


def four_steps(cfg: Path, weights: Path, data: Path, folder: Path, **finetuning: float) -> Exported:
    """The whole job, short: few pictures, two sparsities."""
    before = {path: sha256(path) for path in (cfg, weights, data)}
    workspace = folder / "workspace"
    ana(cfg, weights, data, workspace=workspace, images=16, calibrate=16, sparsities=(0.25, 0.5))
    cut = prune(0.005, workspace=workspace, calibrate=16, reuse_analysis=False)
    assert cut.after.bflops < 0.95 * cut.before.bflops
    trained = finetune(FinetuneOptions(iterations=2, batch=8), workspace=workspace)
    assert trained.after.bflops == cut.after.bflops
    exported = export(folder / "slim", workspace=workspace)
    assert {path: sha256(path) for path in before} == before
    return exported


def check_everywhere(cfg: Path, folder: Path, exported: Exported) -> None:
    """Masked = slim in ours and in every reader; the mask held through training, exactly."""
    workspace = Workspace.load(folder / "workspace")
    finetuned = workspace.finetuned_file(1)
    result = verify(cfg, finetuned, exported.cfg, exported.weights)
    assert result.within, result
    assert result.skipped.keys() <= {"ncnn", "onnxruntime"}
    masked = load(cfg, finetuned, ALEXEYAB)
    again = Plan.load(workspace.plan_file(1)).units(masked.graph, workspace.plan_file(1)).mask().apply(masked)
    for kept, held in zip(masked.weights.layers, again.weights.layers, strict=True):
        assert all(np.array_equal(kept[name], held[name]) for name in kept)
    slim = load(exported.cfg, exported.weights, ALEXEYAB)
    assert slim.weights.header.seen == 0
    assert slim.graph.parameters < masked.graph.parameters


def darknet_draws(cfg: Path, weights: Path, names: Path, image: Path, folder: Path) -> int:
    """Pixels that differ between the picture and what `darknet detector test` draws on it."""
    data = folder / "test.data"
    data.write_text(f"classes=1\nnames={names.resolve()}\n")
    words = ["darknet", "detector", "test", data, cfg.resolve(), weights.resolve(), image.resolve()]
    done = subprocess.run(
        [*map(str, words), "-thresh", "0.1", "-out", str(folder / "drawn")],
        cwd="/usr/share/darknet", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-300:]
    drawn, plain = cv2.imread(str(folder / "drawn.jpg")), cv2.imread(str(image))
    return int((np.abs(drawn.astype(int) - plain).max(2) > 64).sum())


@pytest.mark.skipif(shutil.which("darknet") is None, reason="stock Darknet is not installed (Debian: darknet)")
def test_yolo_fastest(shared: Path, libdarknet: Path, tmp_path: Path) -> None:
    folder = shared / "models" / "yolo-fastest-1.1"
    cfg = folder / "yolo-fastest-1.1.cfg"
    data = shared / "data" / "coco_train128" / "coco_train128_all.data"
    exported = four_steps(cfg, folder / "yolo-fastest-1.1.weights", data, tmp_path)
    check_everywhere(cfg, tmp_path, exported)
    assert exported.names is not None
    dog = Path("/usr/share/darknet/data/dog.jpg")
    assert darknet_draws(exported.cfg, exported.weights, exported.names, dog, tmp_path) > 1000


@pytest.mark.skipif(shutil.which("darknet") is None, reason="stock Darknet is not installed (Debian: darknet)")
def test_built_in_net(libdarknet: Path, tmp_path: Path) -> None:
    from make_shapes import write as draw_set

    draw_set(tmp_path / "shapes", {"train": 32, "valid": 16}, 160, 5, 1, force=False)
    cfg, data = ROOT / "cfg" / "shapes.cfg", tmp_path / "shapes" / "shapes.data"
    exported = four_steps(cfg, ROOT / "weights" / "shapes.weights", data, tmp_path)
    check_everywhere(cfg, tmp_path, exported)
    assert exported.names is not None
    pictures = sorted((tmp_path / "shapes" / "images").glob("valid_*.jpg"))[:5]
    drawn = [darknet_draws(exported.cfg, exported.weights, exported.names, each, tmp_path) for each in pictures]
    assert max(drawn) > 100


def test_verify_sees_a_difference(shared: Path, libdarknet: Path, tmp_path: Path) -> None:
    folder = shared / "models" / "yoloface-500k"
    cfg, weights = folder / "yoloface-500k.cfg", folder / "yoloface-500k.weights"
    data = bytearray(weights.read_bytes())
    value = np.frombuffer(data, np.float32, 1, 20)
    data[20:24] = (value + np.float32(0.05)).astype(np.float32).tobytes()  # one bias of the first layer
    other = tmp_path / "other.weights"
    other.write_bytes(data)
    same = verify(cfg, weights, cfg, weights)
    assert same.within
    assert set(same.max_abs_diff) - {"ncnn", "onnxruntime"} == {"yoloprune", "darknet", "opencv"}
    different = verify(cfg, weights, cfg, other)
    assert not different.within
    assert min(different.max_relative_diff.values()) > 1e-4
    lines = tmp_path / "lines.cfg"
    lines.write_bytes(cfg.read_bytes().replace(b"\n", b"\r\n"))  # stock Darknet does not know its sections then
    refused = verify(cfg, weights, lines, weights)
    assert not refused.within
    assert set(refused.refused) == {"darknet"}
