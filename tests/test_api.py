"""The public functions: what they take, and how results show themselves."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields
from inspect import signature
from pathlib import Path

import pytest

import yoloprune
from tests.drawn import Bench, bench
from yoloprune.options import AnalysisOptions, FinetuneOptions, PruneOptions, Settings
from yoloprune.progress import Progress


@pytest.fixture
def made(one_thread: None, tmp_path: Path) -> Bench:
    return bench(tmp_path / "set")


def test_files_are_text_or_paths_and_results_show_themselves(
    made: Bench, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    cfg, weights, data, space = map(str, (made.cfg, made.weights, made.data, tmp_path / "space"))
    analysed = yoloprune.ana(cfg, weights, data, workspace=space, calibrate=0, sparsities=[0.5], tolerances=None)
    assert len(analysed.sensitivity.curves) == 3
    assert repr(analysed).startswith("Analysed(group ")
    pruned = yoloprune.prune(ratio=0.2, multiple=1, workspace=space)
    assert capfd.readouterr() == ("", "")
    assert repr(pruned).startswith("Pruned(original: map50_present ")
    assert len(repr(pruned)) < 450
    assert "<th>pruned</th>" in pruned._repr_html_()
    tuned = yoloprune.finetune(iterations=1, workspace=Path(space), workers=0, progress=True)
    assert "finetune: " in capfd.readouterr().err
    exported = yoloprune.export(str(tmp_path / "slim"), workspace=space)
    verified = yoloprune.verify(cfg, tuned.best, exported.cfg, exported.weights)
    assert max(verified.max_relative_diff.values()) < verified.tolerance
    assert not yoloprune.check(exported.cfg).broken
    slim = yoloprune.load(exported.cfg, str(exported.weights))
    assert slim.graph.parameters == exported.after.parameters
    assert (
        repr(slim) == f"Model({exported.cfg.name}: {len(slim.graph.layers)} layers, {slim.graph.parameters:,} floats)"
    )
    assert yoloprune.map(exported.cfg, exported.weights, data)["images"] == 5


def test_run_and_train(made: Bench, tmp_path: Path) -> None:
    seen: list[Progress] = []
    done = yoloprune.run(
        made.cfg, made.weights, made.data, tmp_path / "slim", threshold=0.9, epochs=0.1, calibrate=0,
        workspace=tmp_path / "space", workers=0, multiple=2, progress=seen.append,
    )  # fmt: skip
    assert repr(done).startswith("RunResult(original: map50_present ")
    assert done.workspace.rounds[0].options == PruneOptions(
        0.9, granularity="channel", exclude=(), multiple=2, min_keep=1, criterion="l1", calibrate=0, compensation="none"
    )
    assert done.workspace.rounds[0].finetuning == FinetuneOptions(epochs=0.1, workers=0)
    assert {"round", "ana", "prune", "finetune"} <= {each.stage for each in seen}
    trained = yoloprune.train(str(made.cfg), made.data, tmp_path / "trained", iterations=1, workers=0)
    assert trained.best.exists()


def test_options_are_named_in_the_signature() -> None:
    for function, kinds in ((yoloprune.ana, (AnalysisOptions, Settings)), (yoloprune.prune, (PruneOptions,))):
        known = signature(function).parameters
        assert "options" not in known
        for kind in kinds:
            assert all(known[each.name].default == each.default for each in fields(kind))
    assert "'batch norm': Instead of refitting" in str(yoloprune.ana.__doc__)
    with pytest.raises(TypeError, match="unexpected keyword argument 'treshold'"):
        yoloprune.prune(treshold=0.01)


def test_functions_have_the_names_of_folders() -> None:
    """Whatever was imported before."""
    code = "import yoloprune.prune.slim, yoloprune.train.loop, yoloprune.detect.image, yoloprune as y, types\n"
    code += "assert all(isinstance(getattr(y, name), types.FunctionType) for name in y.__all__[1:]), y.prune\n"
    code += "from yoloprune.prune import slim; from yoloprune import prune; assert slim.slim and callable(prune)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_importing_loads_no_pytorch() -> None:
    code = "import sys, yoloprune; assert yoloprune.__version__ and 'torch' not in sys.modules; yoloprune.nothing"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "AttributeError: module 'yoloprune' has no attribute 'nothing'" in done.stderr
