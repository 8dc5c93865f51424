"""Jobs of several rounds, interrupted, repeated and cut anew: what stands in the workspace always belongs together."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.drawn import Bench, trained
from tests.jobs import ana, export, prune, run
from yoloprune import api
from yoloprune.api import map as accuracy
from yoloprune.errors import InputError, NothingGoesError
from yoloprune.options import FinetuneOptions, PruneOptions
from yoloprune.progress import Progress
from yoloprune.report.plots import plot_sensitivity
from yoloprune.steps import prune as prune_module
from yoloprune.steps.finetune import finetune
from yoloprune.steps.job import open_job
from yoloprune.steps.method import as_before
from yoloprune.workspace import Workspace

FEW: dict[str, Any] = {"calibrate": 4}


@pytest.fixture(scope="module")
def made(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return trained(tmp_path_factory.mktemp("set") / "set")


@pytest.fixture(scope="module")
def once(made: Bench, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace after one round."""
    space = tmp_path_factory.mktemp("once") / "space"
    ana(made.cfg, made.weights, made.data, workspace=space, **FEW)
    prune(ratio=0.2, multiple=1, workspace=space, **FEW)
    finetune(FinetuneOptions(iterations=2), workspace=space)
    return space


@pytest.fixture
def space(once: Path, tmp_path: Path) -> Path:
    shutil.copytree(once, tmp_path / "space")
    return tmp_path / "space"


def stopped(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_a_stopped_cut_anew_leaves_the_network_before(
    made: Bench, space: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(prune_module.weights_file, "write", stopped)
        with pytest.raises(KeyboardInterrupt):
            prune(0.3, force=True, workspace=space, **FEW)
    assert Workspace.load(space).rounds == ()
    with pytest.raises(InputError, match="nothing is pruned yet"):
        export(tmp_path / "slim", workspace=space)
    prune(0.3, workspace=space, **FEW)
    exported = export(tmp_path / "slim", workspace=space)
    assert accuracy(exported.cfg, exported.weights, made.data)["map50_present"] == pytest.approx(
        exported.after.accuracy, abs=1e-3
    )


def test_a_stopped_training_anew_goes_on_without_force(space: Path) -> None:
    def stop(step: Progress) -> None:
        if step.stage == "finetune" and step.done >= 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finetune(FinetuneOptions(iterations=4), force=True, workspace=space, progress=stop)
    assert Workspace.load(space).last.finetuned is None
    seen: list[int] = []
    finetune(FinetuneOptions(iterations=4), workspace=space, progress=lambda step: seen.append(step.done))
    assert Workspace.load(space).last.finetuned
    assert 1 not in seen


def test_an_analysis_of_weights_that_were_replaced_is_in_nobodys_way(made: Bench, space: Path) -> None:
    prune(ratio=0.3, force=True, workspace=space, **FEW)
    analysed = api.ana(made.cfg, made.weights, made.data, workspace=space, **FEW)
    between, job = analysed.sensitivity, open_job(space)
    plot_sensitivity(analysed, space / "between.png")
    assert (space / "between.png").stat().st_size > 1000
    cut = job.workspace.last
    job.workspace.with_round(replace(cut, pruned=replace(cut.pruned, accuracy=0.0))).save()  # no training is worse
    finetune(FinetuneOptions(iterations=2), workspace=space)
    again = ana(made.cfg, made.weights, made.data, workspace=space, **FEW)
    assert again.setup.weights != between.setup.weights
    assert len(Workspace.load(space).rounds) == 1


def test_force_measures_anew_and_keeps_the_rounds_of_the_same_job(made: Bench, space: Path, tmp_path: Path) -> None:
    inputs = (made.cfg, made.weights, made.data)
    first = ana(*inputs, workspace=space, **FEW)
    again = ana(*inputs, workspace=space, calibrate=3, force=True)
    assert len(Workspace.load(space).rounds) == 1
    assert (first.options.calibrate, again.options.calibrate) == (4, 3)
    shutil.copytree(made.folder, tmp_path / "other")
    other = Bench(tmp_path / "other")
    other.cfg.write_text(other.cfg.read_text() + "# another\n")
    ana(other.cfg, other.weights, other.data, workspace=space, force=True, **FEW)
    assert Workspace.load(space).rounds == ()


def test_an_analysis_can_be_reused_more_than_once(space: Path) -> None:
    """A channel holds a tenth of the BFLOPs or less: a ratio is passed by no more, and the next is left to reach."""
    known = Workspace.load(space)
    assert known.original
    assert 0.69 < known.last.pruned.bflops / known.original.bflops <= 0.8
    for number, ratio in ((2, 0.45), (3, 0.7)):
        prune(ratio=ratio, reuse_analysis=True, workspace=space, **FEW)
        finetune(FinetuneOptions(iterations=1), workspace=space)
        assert not Workspace.load(space).sensitivity_file(number).exists()


def test_a_ratio_that_is_reached_already_says_how_much_is_gone(space: Path) -> None:
    known = Workspace.load(space)
    assert known.original
    gone = 1 - known.last.pruned.bflops / known.original.bflops
    with pytest.raises(NothingGoesError, match=f"--ratio 0.1: {gone:.4f} of the cost is gone already; expected more"):
        prune(ratio=0.1, reuse_analysis=True, workspace=space, **FEW)


def test_pictures_that_are_asked_for_now_are_looked_at(made: Bench, tmp_path: Path) -> None:
    """Without any, nothing could be refitted before: that is no choice to keep to."""
    space = tmp_path / "space"
    ana(made.cfg, made.weights, made.data, workspace=space, calibrate=0)
    with pytest.raises(InputError, match="was made with"):
        prune(0.05, workspace=space, calibrate=4)
    prune(0.05, multiple=1, workspace=space)
    finetune(FinetuneOptions(iterations=1), workspace=space)
    for options, expected in (
        ({"calibrate": 4}, (4, "least squares", "elimination")),
        ({"compensation": "batch norm"}, (64, "batch norm", "l1")),
        ({"criterion": "taylor"}, (64, "none", "taylor")),
        ({}, (0, "none", "l1")),
    ):
        method = as_before(open_job(space), PruneOptions(**options))  # type: ignore[arg-type]
        assert (method.calibrate, method.compensation, method.criterion) == expected


def test_what_cannot_be_measured_is_refused_before_it_is_written(made: Bench, tmp_path: Path) -> None:
    options: tuple[dict[str, Any], ...] = ({"losses": [0.0, 0.05]}, {"sparsities": [0.5, 1.0]})
    for each in options:
        with pytest.raises(InputError, match="expected tolerances and sparsities between 0 and 1"):
            ana(made.cfg, made.weights, made.data, workspace=tmp_path / "space", **each, **FEW)
    assert not (tmp_path / "space").exists()


def test_a_total_loss_of_nothing_ends(made: Bench, tmp_path: Path) -> None:
    space = tmp_path / "space"
    ana(made.cfg, made.weights, made.data, workspace=space, **FEW)
    try:
        assert prune(total_loss=0.0, workspace=space, **FEW).joint_loss <= 1e-9
    except NothingGoesError:
        assert not Workspace.load(space).rounds
    with pytest.raises(InputError, match="at least 0"):
        prune(total_loss=-0.1, workspace=space, force=True, **FEW)


def test_run_goes_past_thresholds_at_which_nothing_goes(
    made: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from yoloprune.steps import run as run_module

    tried: list[float] = []

    def picky(options: PruneOptions, **where: Any) -> object:
        assert options.threshold is not None
        tried.append(options.threshold)
        if options.threshold < 0.15:
            raise NothingGoesError("nothing can go within that loss")
        return prune_module.prune(options, **where)

    monkeypatch.setattr(run_module, "prune", picky)
    options: dict[str, Any] = {"threshold": 0.2, "rounds": 4, "epochs": 0.2, "workspace": tmp_path / "space", **FEW}
    options["multiple"] = 1
    done = run(made.cfg, made.weights, made.data, tmp_path / "slim", **options)
    assert tried[:3] == pytest.approx([0.05, 0.1, 0.15])
    assert Workspace.load(tmp_path / "space").rounds[0].threshold == pytest.approx(0.15)
    before = len(tried)
    again = run(made.cfg, made.weights, made.data, tmp_path / "other", **options)
    assert tried[before:] in ([], pytest.approx([0.2]))
    assert again.workspace.rounds == done.workspace.rounds
    with pytest.raises(InputError, match="round 1 was pruned with multiple 1, expected 4"):
        run(made.cfg, made.weights, made.data, tmp_path / "third", **{**options, "multiple": 4})


def test_run_that_can_cut_nothing_says_so(made: Bench, tmp_path: Path) -> None:
    with pytest.raises(NothingGoesError):
        run(
            made.cfg, made.weights, made.data, tmp_path / "slim",
            threshold=0.0, epochs=0.2, min_keep=100, workspace=tmp_path / "space", **FEW,
        )  # fmt: skip
