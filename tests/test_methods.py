"""docs/methods.md: every method has what it should, and every command there runs, on a tiny network."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.drawn import Bench, trained
from yoloprune import cli
from yoloprune.report import plots
from yoloprune.train.run_folder import RunFolder

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "methods.md").read_text().replace("\\\n", " ")
SECTIONS = dict(re.findall(r"^### (.+?)\n(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL))
COMMANDS = {
    name: "".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL)).splitlines() for name, text in SECTIONS.items()
}
QUICK = {"--epochs": "0.2", "--iterations": "1"}
"""How long is trained here."""
MORE = {
    "run": "--calibrate 2 --workers 0 --batch 8 --multiple 1", "finetune": "--workers 0 --batch 8",
    "train": "--workers 0", "ana": "--calibrate 2 --tolerances 0.2", "prune": "--multiple 1", "pack": "--calibrate 2",
}  # fmt: skip


class Timed:
    """A reader that takes as long as a layer has floats."""

    def available(self) -> None:
        """It is."""

    def loads(self, *_: object) -> None:
        """It loads all."""

    def layer_seconds(self, cfgs: Sequence[str], floats: Sequence[int]) -> list[float]:
        assert len(cfgs) == len(floats)
        return [1e-6 * (1 + each) for each in floats]


@pytest.fixture(scope="module")
def made(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    drawn = trained(tmp_path_factory.mktemp("set") / "set")
    for old, new in ((drawn.cfg, "yolo.cfg"), (drawn.weights, "yolo.weights"), (drawn.data, "obj.data")):
        old.rename(drawn.folder / new)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunFolder, "draw", lambda *_: None)  # charts take longer than all else
        patch.setattr(plots, "plot_sensitivity", lambda *_: None)
        patch.setattr("yoloprune.steps.objective.READERS", {"opencv": Timed()})
        yield drawn


def quick(line: str) -> list[str]:
    """The words of a command, trained for less and on fewer images."""
    words = shlex.split(line)
    assert words.pop(0) == "yoloprune"
    for option, value in QUICK.items():
        if option in words:
            words[words.index(option) + 1] = "2" if "log" in words else value  # which counts whole passes
    for option, value in zip(*[iter(MORE.get(words[0], "").split())] * 2, strict=True):
        given = option in words or (option == "--tolerances" and "--sparsities" in words)
        words += [] if given else [option, value]
    return words


def test_the_page_has_the_methods() -> None:
    assert len(COMMANDS) >= 21
    for name, text in SECTIONS.items():
        assert COMMANDS[name], name
        assert re.search(r"\n\n    \S", text), f"{name}: no formula"
        for word in ("Source", "When", "Measured", "Published"):
            assert f"\n- {word}: " in text, f"{name}: no {word}"
        for tool in re.findall(r"tools/\w+\.py", text):
            assert (Path(__file__).resolve().parents[1] / tool).exists(), tool


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_runs(name: str, made: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for file in made.folder.iterdir():
        (tmp_path / file.name).symlink_to(file)
    for line in COMMANDS[name]:
        words = quick(line)
        result = CliRunner().invoke(cli.app, [*words, "--quiet"], prog_name="yoloprune")
        assert result.exit_code == 0, (line, result.stderr)
    folder = re.findall(r"-o (\w+)$", "\n".join(COMMANDS[name]), re.MULTILINE)
    for each in folder:
        assert list((tmp_path / each).glob("*.weights")), each
