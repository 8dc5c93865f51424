"""The report: one page that needs nothing but itself."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib import resources
from pathlib import Path

from yoloprune.artefacts import atomic_path
from yoloprune.report import found, sections
from yoloprune.report.markup import Markup, join, tag
from yoloprune.steps.summary import JobSummary


def write_report(job: JobSummary) -> Path:
    """Write `report.html` into the workspace, whole or not at all. InputError if it can't be written."""
    file = job.workspace.report_file
    with atomic_path(file) as temporary:
        temporary.write_text(page(job), encoding="utf-8", newline="\n")
    return file


def page(job: JobSummary) -> str:
    """The whole file. The same job gives the same."""
    style, script = _resource("report.css"), _resource("report.js")
    policy = f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'"
    title = f"{sections.title_of(job)}: pruning report"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=f"{policy}; base-uri 'none'; form-action 'none'"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", Markup(style)),
    )
    parts = [(anchor, name, part) for anchor, name, part in _parts(job) if part is not None]
    links = [tag("a", name, href=f"#{anchor}") for anchor, name, _ in parts if name]
    body = tag(
        "body",
        tag(
            "header",
            tag("h1", sections.title_of(job)),
            tag("p", sections.stage_of(job), class_="stage"),
            tag("nav", *links),
        ),
        tag("main", *(part for _, _, part in parts)),
        tag("footer", tag("p", f"yoloprune {job.versions.get('yoloprune', '')}")),
        tag("dialog", tag("button", "close", type="button", class_="close"), tag("div"), aria_label="enlarged chart"),
        tag("script", Markup(script)),
    )
    return join(Markup("<!DOCTYPE html>\n"), tag("html", head, body, lang="en"), "\n")


def _parts(job: JobSummary) -> list[tuple[str, str, Markup | None]]:
    """Sections in order, each by its anchor and what it is called in links."""
    return [
        ("figures", "", sections.headline(job)),
        ("rounds", "Rounds", sections.rounds(job)),
        ("tradeoff", "Trade-off", sections.tradeoff(job)),
        ("kept", "What stays", sections.groups(job)),
        ("sensitivity", "Sensitivity", sections.sensitivities(job)),
        ("training", "Training", sections.trainings(job)),
        ("classes", "Classes", found.classes(job)),
        ("confusion", "Confusion", found.confusion(job)),
        ("pictures", "Pictures", found.pictures(job)),
        ("repeat", "How to repeat it", sections.repeat(job)),
    ]


@cache
def _resource(name: str) -> str:
    return resources.files("yoloprune.report").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """By which a page allows a script or style of its own, and no other."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
