"""The demo: where its network is, what it runs. `make demo` runs all of it."""

from __future__ import annotations

import configparser
import json
from importlib.metadata import PackagePath
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from typer.testing import CliRunner

from yoloprune import cli
from yoloprune.cli import demo as demo_cli
from yoloprune.darknet.dialect import ALEXEYAB
from yoloprune.darknet.model import load
from yoloprune.errors import InputError
from yoloprune.steps import demo
from yoloprune.workspace import Figures

ROOT = Path(__file__).resolve().parents[1]


def test_the_network_is_beside_the_source_or_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(*demo.built_in(), ALEXEYAB).graph.classes == 6
    packaging = configparser.ConfigParser()
    packaging.read(ROOT / "setup.cfg")
    wheel = {}
    for folder, files in packaging["options.data_files"].items():
        for name in files.split():
            assert (ROOT / name).is_file()
            wheel[f"../../../{folder}/{Path(name).name}"] = (ROOT / name).read_bytes()

    class Installed(PackagePath):
        def locate(self) -> Path:
            return tmp_path / "lib" / "python3" / "site-packages" / PurePosixPath(self)

    for name, content in wheel.items():
        path = (tmp_path / "lib/python3/site-packages" / name).resolve()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    monkeypatch.setattr(demo, "_ROOT", tmp_path / "elsewhere")
    monkeypatch.setattr(demo, "files", lambda package: [Installed(name) for name in wheel])
    (tmp_path / "lib/python3/site-packages").mkdir(parents=True)
    cfg, weights = demo.built_in()
    assert cfg.is_relative_to(tmp_path)
    assert load(cfg, weights, ALEXEYAB).graph.classes == 6
    monkeypatch.setattr(demo, "files", lambda package: [])
    with pytest.raises(InputError, match=r"expected cfg/shapes\.cfg beside the source or installed"):
        demo.built_in()


def test_what_the_demo_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run: list[list[str]] = []
    drawn: dict[str, Any] = {}
    known = Figures("map50_present", 0.8, 0.2, 0.2, 100, 100, 420)
    monkeypatch.setattr(demo_cli, "_run", lambda words, silent: run.append(words))
    monkeypatch.setattr(demo, "draw", lambda out, counts, force: drawn.update(counts))
    monkeypatch.setattr(demo, "figures", lambda networks, data, progress: dict.fromkeys(networks, known))
    words = ["demo", "-o", str(tmp_path / "d"), "--pictures", "0.1", "--json", "-"]
    result = CliRunner().invoke(cli.app, words, prog_name="yoloprune")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["after"]["map50_present"] == 0.8
    assert drawn == {"train": 150, "valid": 15, "test": 30}
    steps = ["ana", "prune", "finetune", "export", "verify", "detect", "detect"]
    assert [words[0] for words in run] == steps


def test_a_folder_that_is_no_demo_stays(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    counts = {"train": 1, "valid": 1, "test": 1}
    for force, message in ((False, "--force replaces it"), (True, "something else in it than a demo")):
        with pytest.raises(InputError, match=message):
            demo.draw(tmp_path, counts, force=force)
    assert (tmp_path / "thesis.txt").exists()
