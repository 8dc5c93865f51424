"""The Python in the docs runs, and says what the docs say; the commands exist, and the site builds."""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import typer

import yoloprune
from yoloprune import cli

DOCS = Path(__file__).resolve().parents[1] / "docs"


def test_the_worked_example_is_true() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (DOCS / "method.md").read_text(), re.DOTALL)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(example, "method.md", "exec"), {})
    first, *layers = printed.getvalue().splitlines()
    assert f"# {first}" in example
    table = dict(re.findall(r"^\| (\d+) \| [^|]*\| (\[[\d, ]+\]) \|$", (DOCS / "method.md").read_text(), re.MULTILINE))
    assert table
    for index, shape in table.items():
        assert f"({shape[1:-1]})" in layers[int(index)], (index, shape)


def test_links_between_docs_lead_somewhere() -> None:
    for page in DOCS.glob("*.md"):
        for target, anchor in re.findall(r"\]\(([^)#]*)(?:#([^)]*))?\)", page.read_text()):
            text = (page.parent / target if target else page).read_text()
            slugs = {
                re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
                for title in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
            }
            assert not anchor or anchor in slugs, (page.name, target, anchor)


def test_commands_have_the_options_that_docs_name() -> None:
    commands = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]  # a group's
    seen = 0
    for page in (DOCS.parent / "README.md", *DOCS.glob("*.md")):
        text = page.read_text().replace("\\\n", " ")
        for line in re.findall(r"(?:^ {4}|`)(yoloprune [a-z][^`\n]*)", text, re.MULTILINE):
            for part in re.split(r"&&|  #", line):
                name, *words = part.strip().removeprefix("yoloprune").split() or [""]
                command = commands.get(name)
                if "yoloprune" not in part:
                    continue
                assert command is not None, (page.name, part)
                known = {flag for each in command.params for flag in (*each.opts, *each.secondary_opts)}
                told = {word.strip("[]") for word in words if re.match(r"\[?--?[a-z]", word)}
                assert told <= known | {"--help"}, (page.name, part)
                seen += 1
    assert seen > 20


@pytest.mark.skipif(find_spec("sphinx") is None, reason="needs sphinx (pip install -e '.[docs]')")
def test_the_site_builds(tmp_path: Path) -> None:
    """With every page in a table of contents and every link leading somewhere."""
    folders = map(str, (DOCS, tmp_path / "site", "-d", tmp_path / "made"))
    words = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", *folders]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    reference = (tmp_path / "site" / "api.html").read_text()
    assert all(f'id="yoloprune.{name}"' in reference for name in yoloprune.__all__)
    assert "Accuracy that each group, pruned alone, may lose" in reference
