"""What bounds a cut holds from round to round, until an option says otherwise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.drawn import bench
from tests.jobs import ana, prune
from yoloprune.errors import InputError, NothingGoesError
from yoloprune.options import FinetuneOptions
from yoloprune.progress import Progress
from yoloprune.steps.finetune import finetune
from yoloprune.steps.prune import Pruned
from yoloprune.workspace import Workspace

ALL = 0.99
"""A threshold at which everything goes that may: only limits hold it back."""


@pytest.fixture
def space(one_thread: None, tmp_path: Path) -> Path:
    """A workspace with an analysis of a network with random weights."""
    made = bench(tmp_path / "set")
    ana(made.cfg, made.weights, made.data, workspace=tmp_path / "space", calibrate=0, sparsities=(0.5, 0.9))
    return tmp_path / "space"


def cut(space: Path, **options: Any) -> tuple[Pruned, str]:
    """A round, not trained; what was said of limits."""
    said: list[str] = []

    def progress(step: Progress) -> None:
        if step.stage == "limits":
            said.append(step.text)

    return prune(ALL, calibrate=0, workspace=space, progress=progress, **options), "\n".join(said)


def kept(done: Pruned) -> dict[str, int]:
    return {group.label: done.units.left(group) for group in done.units.groups}


def test_by_default_kept_counts_are_multiples(space: Path) -> None:
    done, said = cut(space)
    assert kept(done) == {"0+1": 4, "2": 4, "4": 4}  # 8, 12 and 12 channels
    assert said == ""
    finetune(FinetuneOptions(iterations=1), workspace=space)
    free, said = cut(space, multiple=1)
    assert kept(free) == {"0+1": 1, "2": 1, "4": 1}
    assert said == ""


def test_limits_are_remembered_and_can_be_changed(space: Path) -> None:
    first, _ = cut(space, exclude=[4], multiple=3, min_keep=5)
    assert kept(first) == {"0+1": 6, "2": 6, "4": 12}
    assert Workspace.load(space).last.options.exclude == (4,)
    finetune(FinetuneOptions(iterations=1), workspace=space)
    with pytest.raises(NothingGoesError, match="with --multiple 1 more may"):
        cut(space)
    less, said = cut(space, multiple=1)
    assert kept(less) == {"0+1": 5, "2": 5, "4": 12}
    assert said == "--exclude 4 --min-keep 5, as in round 1; the options change that"
    # a round that is cut anew has what it had, not what the one before it had
    again, said = cut(space, exclude=[], force=True)
    assert kept(again) == {"0+1": 5, "2": 5, "4": 5}
    assert said == "--multiple 1 --min-keep 5, as in round 2; the options change that"
    again, said = cut(space, min_keep=1, force=True)
    assert kept(again) == {"0+1": 1, "2": 1, "4": 1}
    assert said == "--multiple 1, as in round 2; the options change that"


def test_limits_edited_by_hand_are_refused(space: Path) -> None:
    cut(space)
    file = space / "workspace.json"
    content = json.loads(file.read_text())
    for key, value, expected in (("multiple", "8", "a whole number"), ("exclude", 3, "a list"), ("min_keep", 0, "1")):
        content["rounds"][0]["options"] |= {"multiple": 8, "min_keep": 1, "exclude": []} | {key: value}
        file.write_text(json.dumps(content))
        with pytest.raises(InputError, match=f"expected.* {expected}"):
            cut(space, force=True)
