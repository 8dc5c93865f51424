"""The Python in the docs runs, and says what the docs say."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

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
