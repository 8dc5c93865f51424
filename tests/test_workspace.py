"""A job lives on what its workspace holds: inputs may move or change, rounds can be taken back."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.drawn import Bench, bench, fingerprint
from tests.jobs import ana, export, prune
from yoloprune import cli
from yoloprune.artefacts import sha256
from yoloprune.errors import InputError
from yoloprune.options import FinetuneOptions
from yoloprune.steps.finetune import finetune
from yoloprune.steps.job import open_job
from yoloprune.steps.status import status
from yoloprune.steps.undo import undo
from yoloprune.workspace import ROLES, Workspace

FEW: dict[str, Any] = {"calibrate": 0, "sparsities": (0.5,)}


@pytest.fixture
def made(one_thread: None, tmp_path: Path) -> Bench:
    return bench(tmp_path / "set")


@pytest.fixture
def space(made: Bench, tmp_path: Path) -> Path:
    """A job of one round, not trained."""
    ana(made.cfg, made.weights, made.data, workspace=tmp_path / "space", **FEW)
    prune(ratio=0.2, multiple=1, calibrate=0, workspace=tmp_path / "space")
    return tmp_path / "space"


def test_a_job_goes_on_without_its_inputs(made: Bench, space: Path, tmp_path: Path) -> None:
    """Every step but training, which needs the pictures; their lists stay outside."""
    assert status(space).changes == ()
    hashes = {role: sha256(getattr(made, role)) for role in ROLES}
    made.cfg.write_text("[net]\n")
    made.weights.unlink()
    made.data.write_text("train=nowhere.txt\n")
    assert {role: sha256(space / "inputs" / f"original.{role}") for role in ROLES} == hashes
    finetune(FinetuneOptions(iterations=1), workspace=space)
    prune(ratio=0.4, multiple=1, calibrate=0, workspace=space)
    exported = export(tmp_path / "slim", workspace=space)
    assert exported.cfg.name == "tiny-slim.cfg"
    assert (tmp_path / "slim" / "tiny-slim.names").read_text() == "box\ndisc\n"
    changed, gone = "has changed since the job was started", "is gone"
    for line, role, happened in zip(status(space).changes, ROLES, (changed, gone, changed), strict=True):
        assert line == f"{role}: {getattr(made, role)} {happened}: the workspace's copy is used"


def test_status_always_answers(made: Bench, space: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(space.parent)
    shutil.rmtree(made.folder)
    shutil.rmtree(space / "inputs")
    (space / "round-1" / "plan.json").unlink()
    done = CliRunner().invoke(cli.app, ["status", "-w", str(space), "--json", "-"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert len(found["rounds"]) == 1
    assert [line.split(":")[0] for line in found["changes"]] == ["cfg", "weights", "data", "round 1"]
    assert "put it back" in found["changes"][0]
    assert "undo takes rounds back" in found["changes"][-1]
    with pytest.raises(InputError, match="expected the file that the workspace was started with"):
        open_job(space)
    undo(space)
    assert Workspace.load(space).rounds == ()


def test_status_tells_of_lists_and_edited_copies(made: Bench, space: Path) -> None:
    (made.folder / "valid.txt").unlink()
    (space / "inputs" / "original.cfg").write_text("[net]\n")
    edited, listed = status(space).changes
    assert edited.startswith(str(space / "inputs" / "original.cfg"))
    assert str(made.cfg) in edited
    assert str(made.folder / "valid.txt") in listed


def test_a_job_follows_its_files(made: Bench, space: Path, tmp_path: Path) -> None:
    """Also a .data file that was edited for that, if the same pictures are measured."""
    moved = Bench(tmp_path / "moved")
    made.folder.rename(moved.folder)
    moved.cfg.rename(moved.folder / "other.cfg")
    cfg = moved.folder / "other.cfg"
    (moved.folder / "lists").mkdir()
    (moved.folder / "valid.txt").rename(moved.folder / "lists" / "valid.txt")
    listed = (moved.folder / "lists" / "valid.txt").read_text().replace("images", "../images")
    (moved.folder / "lists" / "valid.txt").write_text(listed)
    moved.data.write_text(moved.data.read_text().replace("valid=", "valid=lists/"))
    ana(cfg, moved.weights, moved.data, workspace=space, **FEW)
    known = Workspace.load(space)
    assert len(known.rounds) == 1
    assert (known.cfg.path, known.data.path) == (str(cfg), str(moved.data))
    assert (space / "inputs" / "original.data").read_bytes() == moved.data.read_bytes()
    assert status(space).changes == ()
    (moved.folder / "lists" / "valid.txt").write_text("".join(listed.splitlines(keepends=True)[:3]))
    with pytest.raises(InputError, match="was made with data"):
        ana(cfg, moved.weights, moved.data, workspace=space, **FEW)
    moved.data.write_text(moved.data.read_text() + "# fewer pictures\n")
    with pytest.raises(InputError, match="was started with data"):
        ana(cfg, moved.weights, moved.data, workspace=space, **FEW)


def test_a_workspace_from_before_copies_is_read(made: Bench, space: Path) -> None:
    shutil.rmtree(space / "inputs")
    content = json.loads((space / "workspace.json").read_text())
    del content["pictures"]
    (space / "workspace.json").write_text(json.dumps(content))
    finetune(FinetuneOptions(iterations=1), workspace=space)
    assert sorted(path.name for path in (space / "inputs").iterdir()) == [f"original.{role}" for role in sorted(ROLES)]
    made.cfg.unlink()
    prune(ratio=0.4, multiple=1, calibrate=0, workspace=space)


def test_undo_takes_the_last_round_back(space: Path) -> None:
    finetune(FinetuneOptions(iterations=1), workspace=space)
    once = fingerprint(space)
    prune(ratio=0.4, multiple=1, calibrate=0, workspace=space)
    analysis = Path("round-2", "sensitivity.json")
    finetune(FinetuneOptions(iterations=1), workspace=space)
    whole = fingerprint(space)
    assert undo(space, dry_run=True)[0] == 2
    assert fingerprint(space) == whole
    number, left = undo(space)
    assert (number, len(left.rounds)) == (2, 1)
    found = fingerprint(space)
    del once["report.html"], found["report.html"]  # which commands rewrite, not the step
    assert {name: found[name] for name in once} == once
    assert {str(analysis), "round-2"} <= found.keys() - once.keys() <= {str(analysis), "round-2", "round-2/training"}
    done = prune(ratio=0.3, calibrate=0, workspace=space)
    assert done.before == Workspace.load(space).rounds[0].finetuned


def test_figures_count_what_a_slim_network_has_of_the_weights_at_hand(space: Path, tmp_path: Path) -> None:
    """Zeros among the kept weights count, masked channels don't; the exported file's bytes are the oracle."""
    job = open_job(space)
    exported = export(tmp_path / "slim", workspace=space)
    slim = np.fromfile(exported.weights, "<f4")[5:]
    before = job.figures(0.5, job.model, job.units)
    assert (before.parameters, before.nonzero) == (len(slim), np.count_nonzero(slim))
    assert np.count_nonzero(slim) < np.count_nonzero(np.fromfile(space / "round-1" / "pruned.weights", "<f4")[5:])
    layers = [{name: np.zeros_like(each) for name, each in arrays.items()} for arrays in job.model.weights.layers]
    empty = job.figures(0.5, job.model.with_arrays(dict(enumerate(layers))), job.units)
    assert (empty.nonzero, empty.effective_bflops) == (0, 0.0)
    assert (empty.bflops, empty.bytes) == (before.bflops, exported.weights.stat().st_size)


def test_undo_by_command(space: Path) -> None:
    run = CliRunner()
    words = ["undo", "-w", str(space), "--json", "-"]
    done = run.invoke(cli.app, words)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["undone"] == 1
    assert json.loads(done.stdout)["rounds"] == []
    done = run.invoke(cli.app, words)
    assert done.exit_code == 2
    assert "no round to take back" in done.stderr
