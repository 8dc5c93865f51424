"""Every input is opened once by a step, and parsed once; what the report behind it shows, once more."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.drawn import Bench, bench
from tests.jobs import ana, finetune, prune
from yoloprune.darknet import cfg as cfg_file
from yoloprune.darknet import model as model_file
from yoloprune.darknet import weights as weights_file
from yoloprune.report import rewrite
from yoloprune.steps.summary import summary

OPENED: Counter[str] = Counter()
"""How often each path was opened, of all that Python opens."""


def _heard(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and isinstance(arguments[0], (str, Path)):
        OPENED[str(arguments[0])] += 1


sys.addaudithook(_heard)


@pytest.fixture
def made(one_thread: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A job whose steps are alone."""
    monkeypatch.setattr(rewrite, "rewrite", lambda workspace: None)
    return bench(tmp_path / "set")


def inputs(made: Bench) -> list[Path]:
    """All files of a job but images and labels."""
    lists = [made.folder / "valid.txt", made.folder / "train.txt", *made.folder.glob("*.names")]
    assert all(each.exists() for each in lists)
    assert len(lists) == 3
    return [made.cfg, made.weights, made.data, *lists]


def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often files are parsed from here on."""
    calls: Counter[str] = Counter()
    for module, name in ((model_file, "build_graph"), (cfg_file, "read"), (weights_file, "read")):
        real = getattr(module, name)

        def count(*arguments: Any, real: Any = real, name: str = f"{module.__name__}.{name}", **more: Any) -> Any:
            calls[name] += 1
            return real(*arguments, **more)

        monkeypatch.setattr(module, name, count)
    return calls


def test_ana_on_a_new_network(made: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = counted(monkeypatch)
    OPENED.clear()
    ana(made.cfg, made.weights, made.data, workspace=tmp_path / "space", calibrate=4, sparsities=(0.5,))
    assert {path.name: OPENED[str(path)] for path in inputs(made)} == {path.name: 1 for path in inputs(made)}
    assert dict(calls) == {
        "yoloprune.darknet.model.build_graph": 1,
        "yoloprune.darknet.cfg.read": 1,
        "yoloprune.darknet.weights.read": 1,
    }
    labels = [path for path in OPENED if path.endswith(".txt") and "labels" in path]
    assert labels
    assert all(OPENED[path] == 1 for path in labels)


def test_the_steps_behind_it(made: Bench, tmp_path: Path) -> None:
    """finetune reads the names for both lists; whatever else is read, is read once."""
    space = tmp_path / "space"
    ana(made.cfg, made.weights, made.data, workspace=space, calibrate=0, sparsities=(0.5,))
    OPENED.clear()
    prune(ratio=0.2, multiple=1, calibrate=0, workspace=space)
    assert all(OPENED[str(path)] <= 1 for path in inputs(made))
    OPENED.clear()
    finetune(iterations=1, workers=0, workspace=space)
    assert all(OPENED[str(path)] <= (2 if path.suffix == ".names" else 1) for path in inputs(made))


def test_the_report(made: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads no weights, and decodes only the images that it shows."""
    space = tmp_path / "space"
    ana(made.cfg, made.weights, made.data, workspace=space, calibrate=0, sparsities=(0.5,))
    prune(ratio=0.2, multiple=1, calibrate=0, workspace=space)
    calls = counted(monkeypatch)
    OPENED.clear()
    job = summary(space)
    assert dict(calls) == {"yoloprune.darknet.model.build_graph": 1, "yoloprune.darknet.cfg.read": 1}
    assert OPENED[str(made.weights)] == 0
    assert all(OPENED[str(path)] <= 1 for path in inputs(made))
    assert job.pictures is not None
    images = {Path(path).name for path in OPENED if Path(path).parent == made.folder / "images"}
    assert images <= {each.name for each in job.pictures}
