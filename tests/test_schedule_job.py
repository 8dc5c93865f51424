"""`finetune --schedule`: masks that grow to what the plan says, for every granularity."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.drawn import Bench, bench
from tests.jobs import ana, export, prune
from yoloprune import choices
from yoloprune.artefacts import sha256
from yoloprune.darknet.dialect import ALEXEYAB
from yoloprune.darknet.model import load
from yoloprune.errors import InputError
from yoloprune.options import FinetuneOptions
from yoloprune.progress import Progress
from yoloprune.prune.plan import Plan
from yoloprune.steps.finetune import finetune
from yoloprune.steps.job import open_job
from yoloprune.steps.undo import undo
from yoloprune.workspace import Workspace


@pytest.fixture
def made(one_thread: None, tmp_path: Path) -> Bench:
    return bench(tmp_path / "set")


def pruned_job(made: Bench, space: Path, granularity: str) -> Path:
    """Half of every group is pruned, without an image."""
    ana(
        made.cfg, made.weights, made.data, workspace=space, calibrate=0, sparsities=(0.5,), granularity=granularity
    )  # fmt: skip
    prune(sparsity=0.5, multiple=1, calibrate=0, workspace=space)
    return space


def growing(**options: Any) -> FinetuneOptions:
    told: dict[str, Any] = {"iterations": 8, "workers": 0, "schedule": "polynomial", "every": "2", "batch": 4}
    return FinetuneOptions(**told | options)


@pytest.mark.parametrize("granularity", [each for each in choices.GRANULARITIES if each != choices.BITS])
@pytest.mark.parametrize("regrow", [True, False])
def test_ends_with_the_counts_of_the_plan(made: Bench, tmp_path: Path, granularity: str, regrow: bool) -> None:
    space = pruned_job(made, tmp_path / "space", granularity)
    plan = Plan.load(space / "round-1" / "plan.json")
    done = finetune(growing(regrow=regrow), workspace=space)
    assert done.iteration >= 6  # from the end of the schedule on
    job = open_job(space)
    assert job.units.count() == plan.pruned == Plan.load(space / "round-1" / "trained-plan.json").pruned
    trained = load(made.cfg, Workspace.load(space).finetuned_file(1), ALEXEYAB)
    held = job.units.mask().apply(trained)
    for arrays, same in zip(trained.weights.layers, held.weights.layers, strict=True):
        assert all(np.array_equal(arrays[key], same[key]) for key in arrays)
    if granularity == "channel":  # which ones the plan's order says
        assert (space / "round-1" / "trained-mask.bits").read_bytes() == (space / "round-1" / "mask.bits").read_bytes()
    exported = export(tmp_path / "slim", workspace=space)
    slim = load(exported.cfg, exported.weights, ALEXEYAB)
    assert (slim.graph.parameters < trained.graph.parameters) == (granularity == "channel")


@pytest.mark.parametrize("granularity", ["channel", "weight"])
def test_goes_on_bit_for_bit_after_an_interrupt(made: Bench, tmp_path: Path, granularity: str) -> None:
    spaces = [pruned_job(made, tmp_path / name, granularity) for name in ("whole", "broken")]
    finetune(growing(), workspace=spaces[0])

    def stop(progress: Progress) -> None:
        if progress.done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finetune(growing(), workspace=spaces[1], progress=stop)
    finetune(growing(), workspace=spaces[1])
    for name in ("finetuned.weights", "trained-mask.bits"):
        assert len({sha256(space / "round-1" / name) for space in spaces}) == 1


def test_a_second_round_goes_on_from_the_mask_that_training_chose(made: Bench, tmp_path: Path) -> None:
    space = pruned_job(made, tmp_path / "space", "weight")
    finetune(growing(), workspace=space)
    before = open_job(space).units
    again = prune(sparsity=0.75, workspace=space)
    for old, new in zip(before.mask().layers, again.units.mask().layers, strict=True):
        assert all(not new[key][~there].any() for key, there in old.items())
    finetune(growing(schedule="constant"), workspace=space)
    after = open_job(space).units
    assert after.count() == again.units.count()
    for old, new in zip(before.mask().layers, after.mask().layers, strict=True):
        assert all(not new[key][~there].any() for key, there in old.items())
    undo(space)
    assert open_job(space).units.count() == before.count()
    assert not (space / "round-2" / "trained-plan.json").exists()


def test_trained_anew_without_a_schedule_the_plan_holds(made: Bench, tmp_path: Path) -> None:
    space = pruned_job(made, tmp_path / "space", "weight")
    finetune(growing(), workspace=space)
    finetune(FinetuneOptions(iterations=1, workers=0), workspace=space, force=True)
    job, plan = open_job(space), Plan.load(space / "round-1" / "plan.json")
    assert job.units.count() == plan.pruned
    (space / "round-1" / "trained-plan.json").unlink(missing_ok=True)
    assert open_job(space).units.count() == plan.pruned


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"schedule": None}, "expected --schedule"),
        ({"schedule": "cubic"}, "schedule: expected constant, polynomial"),
        ({"end": "9"}, "end: expected at most the 8 iterations"),
        ({"schedule": "log", "power": 2.0}, "expected with polynomial only"),
    ],
)
def test_what_makes_no_sense_is_refused(made: Bench, tmp_path: Path, options: dict[str, Any], expected: str) -> None:
    space = pruned_job(made, tmp_path / "space", "weight")
    with pytest.raises(InputError, match=expected):
        finetune(growing(**options), workspace=space)
