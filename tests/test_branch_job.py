"""Whole jobs in which residual branches go and time is the objective, to files that every reader runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.drawn import Bench, bench
from tests.helpers import graph_of, random_model
from tests.jobs import ana, export, prune
from yoloprune.artefacts import load_json
from yoloprune.darknet import weights as weights_file
from yoloprune.darknet.dialect import ALEXEYAB
from yoloprune.darknet.model import load, load_graph
from yoloprune.errors import InputError
from yoloprune.options import FinetuneOptions
from yoloprune.prune.plan import Plan
from yoloprune.steps.finetune import finetune
from yoloprune.steps.verify import verify
from yoloprune.workspace import Workspace

CONV = "\n[convolutional]\nbatch_normalize=1\nstride=1\npad=1\nactivation=leaky\n"
BLOCK = f"{CONV}filters=8\nsize=1\n{CONV}filters=16\nsize=3\n\n[shortcut]\nfrom=-3\nactivation=linear\n"
CFG = (
    "[net]\nbatch=4\nsubdivisions=1\nwidth=64\nheight=64\nchannels=3\nlearning_rate=0.001\nburn_in=0\nmax_batches=100\n"
    f"{CONV}filters=16\nsize=3\n\n[maxpool]\nsize=4\nstride=4\n{BLOCK}{BLOCK}{CONV}filters=24\nsize=3\n"
    "\n[convolutional]\nfilters=14\nsize=1\nstride=1\npad=1\nactivation=linear\n"
    "\n[yolo]\nmask=0,1\nanchors=10,10, 24,24\nclasses=2\nnum=2\njitter=0\n"
)


@pytest.fixture
def made(tmp_path: Path, one_thread: None) -> Bench:
    """The drawn set and a residual network that sees nothing: all losses are 0."""
    made = bench(tmp_path / "set")
    made.cfg.write_text(CFG)
    model = random_model(graph_of(CFG), 5)
    weights_file.write(made.weights, model.weights, model.graph.layers, force=True)
    return made


def test_branches_go_and_files_agree(made: Bench, tmp_path: Path) -> None:
    space = tmp_path / "space"
    ana(made.cfg, made.weights, made.data, workspace=space, images=4, calibrate=4, sparsities=(0.25, 0.5))
    cut = prune(
        0.0, drop_branches=True, objective="latency", reader="opencv", exclude=[0], calibrate=4, workspace=space
    )
    assert [branch.sum for branch in cut.branches] == [4, 7]
    assert Plan.load(cut.plan).branches == (4, 7)
    accuracies = load_json(space / "round-1" / "branches.json", "branches")["accuracies"]
    assert set(accuracies) == {"4", "7"}
    assert load_json(space / "latency.json", "latency")["readers"]["opencv, one thread"]
    trained = finetune(FinetuneOptions(iterations=2, batch=4), workspace=space)
    assert trained.after.bflops == cut.after.bflops < cut.before.bflops
    masked = load(made.cfg, Workspace.load(space).finetuned_file(1), ALEXEYAB)
    held = cut.units.mask().apply(masked)
    for layer, again in zip(masked.weights.layers, held.weights.layers, strict=True):
        assert all(np.array_equal(layer[name], again[name]) for name in layer)
    exported = export(tmp_path / "slim", workspace=space)
    assert len(load_graph(exported.cfg, ALEXEYAB).layers) == len(masked.graph.layers) - 6
    found = verify(made.cfg, Workspace.load(space).finetuned_file(1), exported.cfg, exported.weights)
    assert found.within, found
    again_cut = prune(0.0, drop_branches=True, calibrate=4, workspace=space)
    assert again_cut.branches == cut.branches
    assert again_cut.after.bflops < trained.after.bflops


def test_an_excluded_layer_keeps_its_branch(made: Bench, tmp_path: Path) -> None:
    space = tmp_path / "space"
    ana(made.cfg, made.weights, made.data, workspace=space, images=4, calibrate=0, sparsities=(0.5,))
    cut = prune(0.0, drop_branches=True, exclude=[2], calibrate=0, workspace=space)
    assert [branch.sum for branch in cut.branches] == [7]


def test_branches_compete_by_ratio_and_total_loss(made: Bench, tmp_path: Path) -> None:
    space = tmp_path / "space"
    ana(made.cfg, made.weights, made.data, workspace=space, images=4, calibrate=4, sparsities=(0.25, 0.5))
    plain = prune(ratio=0.6, multiple=1, calibrate=4, workspace=space)
    assert 1 - plain.after.bflops / plain.original.bflops >= 0.6
    without = prune(ratio=0.6, drop_branches=True, calibrate=4, workspace=space, force=True)
    assert 1 - without.after.bflops / without.original.bflops >= 0.6
    total = prune(total_loss=0.1, drop_branches=True, calibrate=4, workspace=space, force=True)
    assert total.joint_loss <= 0.1
    assert total.branches
    with pytest.raises(InputError, match="--drop-branches with --ratio"):
        prune(ratio=0.6, drop_branches=True, rule="prefix", workspace=space, force=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"objective": "speed"},
            "--objective: expected one of bflops, parameters, latency, nonzero, bits, found 'speed'",
        ),
        (
            {"objective": "latency", "reader": "torch"},
            "--reader: expected one of darknet, opencv, ncnn, onnxruntime, found 'torch'",
        ),
        ({"reader": "opencv"}, "--reader is for --objective latency"),
    ],
)
def test_objectives_that_there_are_not(options: dict[str, str], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        prune(0.01, workspace=tmp_path, **options)  # type: ignore[arg-type]
