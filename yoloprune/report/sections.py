"""What a report says of the job: figures, rounds, trade-off, groups, curves, and how to repeat it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from yoloprune.choices import UNIT_NAMES
from yoloprune.prune.search import Expectation
from yoloprune.prune.sensitivity import Curve
from yoloprune.report import cells, charts
from yoloprune.report.charts import legend, metric_title, swatch
from yoloprune.report.markup import Content, Markup, tag
from yoloprune.report.svg import bar
from yoloprune.steps.repeat import file_names
from yoloprune.steps.summary import Analysis, JobSummary
from yoloprune.workspace import Figures

_Size = tuple[str, str, Callable[[float], str], Callable[[Figures], float]]
"""Title, note, how it is written, and the count."""
_FEW: Final = 24
"""Rows of a list that is whole at once; longer ones scroll."""


def section(anchor: str, title: str, *content: Content) -> Markup:
    """A part of the page."""
    return tag("section", tag("h2", title), *content, id=anchor)


def table(
    columns: Sequence[Content], rows: Sequence[Sequence[Content]], *, words: int = 1, sortable: bool = False
) -> Markup:
    """A table that scrolls where it is too wide. words: so many columns, from the left, are no cells."""
    head = [
        tag(
            "th",
            tag("button", each, type="button") if sortable and each else each,
            scope="col",
            class_=_side(at, words),
        )
        for at, each in enumerate(columns)
    ]
    body = [tag("tr", *(tag("td", each, class_=_side(at, words)) for at, each in enumerate(row))) for row in rows]
    inner = tag("table", tag("thead", tag("tr", *head)), tag("tbody", *body), class_="sortable" if sortable else None)
    tall = " tall" if len(rows) > _FEW else ""
    return tag("div", inner, class_=f"scroll{tall}", tabindex="0")


def _side(at: int, words: int) -> str | None:
    return None if at < words else "number"


def headline(job: JobSummary) -> Markup:
    """The original, and the newest network beside it where there is one."""
    original, newest = job.workspace.original, job.newest
    if original is None:
        return section("figures", "Figures", tag("p", "The original network is not measured yet.", class_="note"))
    cards = [
        _accuracy_card(job, original, newest),
        *(
            _size_card(title, note, write, of(original), None if newest is None else of(newest))
            for title, note, write, of in _sizes_of(newest)
        ),
    ]
    known = _times(job)
    times = (
        tag("div", tag("h3", "Milliseconds of an image, one thread"), *known, class_="card times") if known else None
    )
    hidden = tag("h2", "Figures", class_="hidden")
    return tag("section", hidden, tag("div", *cards, class_="cards"), times, id="figures")


def _times(job: JobSummary) -> list[Markup]:
    """Of the newest network in every reader that was timed."""
    before, after = (job.ms.get(name, {}) for name in ("original", f"round {len(job.workspace.rounds)}"))
    if job.newest is None:
        return [tag("p", f"{reader} ", tag("b", f"{ms:.2f}")) for reader, ms in before.items()]
    return [
        tag(
            "p",
            f"{reader} ",
            tag("b", f"{after[reader]:.2f}"),
            tag("span", f" before {ms:.2f} ", class_="was"),
            tag("span", cells.change(after[reader], ms), class_="change"),
        )
        for reader, ms in before.items()
        if reader in after
    ]


def _sizes_of(newest: Figures | None) -> list[_Size]:
    """What is counted of a network; what isn't zero where much is."""
    sparse = newest is not None and cells.is_sparse(newest)
    effective: list[_Size] = [
        ("Effective BFLOPs", "without operations on zeros", cells.short, lambda each: each.effective_bflops)
    ]
    nonzero: list[_Size] = [("Not zero", "of the parameters", "{:,}".format, lambda each: each.nonzero)]
    return [
        ("BFLOPs", "", cells.short, lambda each: each.bflops),
        *(effective if sparse else []),
        ("Parameters", "", "{:,}".format, lambda each: each.parameters),
        *(nonzero if sparse else []),
        ("Weights file", "", _megabytes, lambda each: each.bytes),
    ]


def _size_card(title: str, note: str, write: Callable[[float], str], first: float, now: float | None) -> Markup:
    if now is None:
        return _card(title, write(first), None, note=note)
    return _card(title, write(first), write(now), cells.change(now, first) or "unchanged", note)


def _megabytes(count: float) -> str:
    return f"{cells.short(count / 1e6)} MB"


def _accuracy_card(job: JobSummary, original: Figures, newest: Figures | None) -> Markup:
    title = metric_title(original.metric)
    now = job.after if newest else job.before
    note = "" if now is None else f"90 % interval {now.interval[0]:.4f} to {now.interval[1]:.4f}, {now.images} images"
    change = ""
    if newest is not None:
        change = f"{_points(newest.accuracy - original.accuracy)} points"
        if job.before is not None and job.after is not None:
            low, high = job.before.loss_interval(job.after)
            change += f" ({_points(-high)} to {_points(-low)})"
    after = None if newest is None else cells.accuracy(newest.accuracy)
    return _card(title, cells.accuracy(original.accuracy), after, change, note)


def _points(change: float) -> str:
    """A change of accuracy; none is no negative one."""
    return f"{round(100 * change, 2) + 0.0:+.2f}"


def _card(title: str, before: str, after: str | None, change: str = "", note: str = "") -> Markup:
    return tag(
        "div",
        tag("h3", title),
        tag("p", after or before, class_="figure"),
        tag("p", "before ", tag("span", before, class_="was")) if after else tag("p", "original", class_="was"),
        tag("p", change, class_="change") if change else None,
        tag("p", note, class_="note") if note else None,
        class_="card",
    )


def rounds(job: JobSummary) -> Markup | None:
    """Every round, as `status` has them."""
    original, done = job.workspace.original, job.workspace.rounds
    if original is None or not done:
        return None
    sparse = any(map(cells.is_sparse, (each.newest for each in done)))
    first = ["original", "", "", cells.accuracy(original.accuracy), *_sizes(original, sparse), ""]
    rows: list[list[str]] = [first]
    for each in done:
        now = each.newest
        trained = cells.accuracy(each.finetuned.accuracy if each.finetuned else None)
        before = [cells.accuracy(each.threshold), cells.accuracy(each.pruned.accuracy), trained]
        rows.append([f"round {each.number}", *before, *_sizes(now, sparse), f"{job.share_off(now):.1%}"])
    sizes = ["BFLOPs", "parameters", *(["not zero"] if sparse else [])]
    columns = ["", "threshold", "pruned", "trained", *sizes, f"{job.saves} off"]
    said = f"{metric_title(original.metric)} after each step. "
    return section("rounds", "Rounds", tag("p", said, class_="lead"), table(columns, rows))


def _sizes(figures: Figures, sparse: bool) -> list[str]:
    sizes = [cells.short(figures.bflops), f"{figures.parameters:,}"]
    return [*sizes, f"{figures.nonzero:,}"] if sparse else sizes


def tradeoff(job: JobSummary) -> Markup | None:
    """The chart that sums all up."""
    if job.workspace.original is None or not (job.analyses or job.workspace.rounds):
        return None
    entries = [swatch("before", "original", dot=True)]
    if job.before is not None:
        entries[0] = swatch("before", "original, 90 % interval shaded", dot=True)
    if job.analyses:
        each = "" if len(job.analyses) == 1 else " of each round"
        entries.append(swatch("promise dashed", f"expected before training, by the analysis{each}"))
    if job.workspace.rounds:
        entries.append(swatch("pruned", "pruned, before training", dot=True))
    if any(each.finetuned for each in job.workspace.rounds):
        entries.append(swatch("after", "after training", dot=True))
    drawn = [charts.tradeoff(job, size) for size in (charts.WIDE, charts.NARROW)]
    lead = f"How much accuracy is left as more {job.saves} go."
    if job.analyses:
        lead += " Expected: what each group alone was measured to lose, added up; shaded: where that likely lies."
    return section("tradeoff", "Trade-off", tag("p", lead, class_="lead"), legend(*entries), tag("figure", *drawn))


def groups(job: JobSummary) -> Markup | None:
    """A bar for each group."""
    if not job.groups or not job.workspace.rounds:
        return None
    unit = UNIT_NAMES.get(job.granularity, job.granularity)
    what = (
        "group of channels that go together, named by the layers that make them"
        if job.granularity == "channel"
        else "layer"
    )
    rows = [
        [
            each.label,
            bar(each.kept / each.size, "after"),
            f"{each.kept / each.size:.0%}",
            f"{each.kept:,}",
            f"{each.size:,}",
        ]
        for each in job.groups
    ]
    lead = f"For each {what}: the share of its {unit} that is kept after {_rounds_said(job)}."
    columns = ["layers" if job.granularity == "channel" else "layer", "kept", "share", unit, "of"]
    return section(
        "kept",
        "What stays",
        tag("p", lead, class_="lead"),
        tag("div", table(columns, rows, words=2, sortable=True), class_="bars"),
    )


def _rounds_said(job: JobSummary) -> str:
    count = len(job.workspace.rounds)
    return "1 round" if count == 1 else f"{count} rounds"


def sensitivities(job: JobSummary) -> Markup | None:
    """The curves of the first analysis, and those of the newest to be opened."""
    if not job.analyses:
        return None
    first, *others = job.analyses
    newest = []
    if others:
        said = tag("summary", f"The analysis for round {others[-1].number}")
        newest = [tag("details", said, *_curves(others[-1], job.saves))]
    return section("sensitivity", "Sensitivity", *_curves(first, job.saves), *newest)


def _curves(analysis: Analysis, saves: str) -> list[Markup]:
    """A small chart for each group, where most can be saved first."""
    known = analysis.sensitivity
    expected = Expectation.of(known)
    ordered = sorted(known.curves, key=lambda each: -analysis.gains[each.label])
    numbered = {each.label: at for at, each in enumerate(known.curves)}
    panels = [_panel(analysis, each, numbered[each.label], expected) for each in ordered]
    losses = ", ".join(f"{loss:g}" for loss in known.tolerances)
    entries = [
        swatch("after", "measured, 90 % interval shaded"),
        swatch("promise dashed", "expected"),
        *([swatch("good", f"prunable at a loss of {losses}")] if losses else []),
    ]
    lead = (
        f"What {metric_title(known.setup.metric)} loses (up to {charts.MOST_LOST:g}) as a share of one group alone is "
        f"pruned, on {known.setup.images} images. Under each name: how far the group is prunable at a loss of "
        f"{analysis.loss:g}, and the share of the {saves} that this saves."
    )
    options = [tag("option", said, value=value) for value, said in _SORTED.items()]
    names = f"panels-{analysis.number}"
    chosen = tag("select", *options, id=f"order-{analysis.number}", data_sorts=names)
    choice = tag("p", tag("label", "Order: ", for_=f"order-{analysis.number}"), chosen, class_="order")
    return [tag("p", lead, class_="lead"), legend(*entries), choice, tag("div", *panels, id=names, class_="panels")]


_SORTED: Final = {
    "gain": "most to save first",
    "prunable": "most prunable first",
    "layer": "by layer",
    "size": "largest first",
}


def _panel(analysis: Analysis, curve: Curve, at: int, expected: Expectation) -> Markup:
    known, gain = analysis.sensitivity, analysis.gains[curve.label]
    prunable = known.prunable_within(curve, analysis.loss) / curve.size
    rows = [
        [
            f"{point.dropped / curve.size:.0%}",
            cells.accuracy(point.accuracy),
            f"{known.loss(point):.4f}",
            _interval(point.interval),
        ]
        for point in curve.points
    ]
    values = table(["pruned", "accuracy", "loss", "90 % interval"], rows, words=0) if rows else None
    return tag(
        "figure",
        tag("figcaption", tag("b", "group ", curve.label), tag("br"), f"{prunable:.0%} prunable, saves {gain:.1%}"),
        charts.sensitivity(known, curve, expected),
        tag("button", "enlarge", type="button", class_="enlarge", aria_label=f"enlarge group {curve.label}"),
        tag("div", values, class_="values", hidden="") if values else None,
        class_="panel",
        data_gain=f"{gain:.6f}",
        data_prunable=f"{prunable:.6f}",
        data_layer=f"{-at}",
        data_size=f"{curve.size}",
    )


def _interval(interval: tuple[float, float] | None) -> str:
    return cells.NONE if interval is None else f"{interval[0]:.4f} to {interval[1]:.4f}"


def trainings(job: JobSummary) -> Markup | None:
    """Every round's training."""
    if not job.trainings or job.workspace.original is None:
        return None
    entries = [
        swatch("after", "accuracy"),
        swatch("before dashed", "original"),
        swatch("pruned dashed", "before this training"),
        swatch("plain", "average loss"),
    ]
    figures = [
        tag("figure", tag("figcaption", tag("b", f"Round {each.number}")), charts.training(job, each))
        for each in job.trainings
    ]
    return section("training", "Training", legend(*entries), tag("div", *figures, class_="pair"))


def repeat(job: JobSummary) -> Markup:
    """Commands, files and versions."""
    lines = tag("pre", *(tag("code", each, "\n") for each in job.commands))
    files = [[role, name, tag("code", digest)] for role, (name, digest) in file_names(job.workspace).items()]
    programs = [[name, version] for name, version in job.versions.items()]
    where = "Run in the folder that the workspace lies in."
    lead = f"{where} On a CPU, the same files, versions and seeds give the same result."
    return section(
        "repeat",
        "How to repeat it",
        tag("p", lead, class_="lead"),
        lines,
        table(["input", "file", "SHA-256"], files, words=3),
        table(["program", "version"], programs, words=2),
    )


def title_of(job: JobSummary) -> str:
    """The network."""
    return Path(job.workspace.cfg.path).stem


def stage_of(job: JobSummary) -> str:
    """How far the job is, in a sentence."""
    done = job.workspace.rounds
    if not done:
        return "Analysed, nothing pruned yet." if job.analyses else "Started, nothing measured of its groups yet."
    last = "pruned and trained" if done[-1].finetuned else "pruned, not trained yet"
    share = job.share_off(done[-1].newest)
    return f"{_rounds_said(job)} done, {share:.1%} of {job.saves} off; the last is {last}."
