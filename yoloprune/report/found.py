"""What a report says of single classes and pictures, before and after."""

from __future__ import annotations

import base64
from typing import Final

from yoloprune.detect.details import Details
from yoloprune.report import cells, charts
from yoloprune.report.charts import legend, metric_title, swatch
from yoloprune.report.markup import Content, Markup, tag
from yoloprune.report.sections import section, table
from yoloprune.report.svg import bar
from yoloprune.steps.differing import Mark, Picture
from yoloprune.steps.summary import JobSummary

_CURVES: Final = 12
"""Classes whose curves are shown, those that change most."""
_MATRIX: Final = 20
"""Classes of a matrix that can still be read."""
_CONFUSED: Final = 20
"""Rows of a list instead."""
_LABELLED: Final = 12
"""Boxes of a picture up to which each bears its name."""
_LEVELS: Final = 9
"""Shades of a cell."""


def classes(job: JobSummary) -> Markup | None:
    """Accuracy of each class, and precision over recall."""
    before, after = job.before, job.after
    if before is None:
        return None
    detector = any(each.precision for each in before.classes)
    figure = "AP" if detector else "right"
    columns: list[Content] = ["class", "objects" if detector else "images", figure]
    if after is not None:
        columns[-1:] = [f"{figure} before", f"{figure} after"]
    columns += ["change", ""] if after is not None else [""]
    rows: list[list[Content]] = []
    for at, each in enumerate(before.classes):
        row: list[Content] = [each.name, f"{each.objects:,}", cells.accuracy(each.accuracy)]
        if after is None:
            row.append(bar(each.accuracy or 0.0, "before"))
        else:
            now = after.classes[at].accuracy
            change = None if now is None or each.accuracy is None else now - each.accuracy
            drawn = tag("div", bar(each.accuracy or 0.0, "before"), bar(now or 0.0, "after"), class_="twice")
            row += [cells.accuracy(now), cells.NONE if change is None else f"{change:+.4f}", drawn]
        rows.append(row)
    kind = "Average precision" if detector else "Share of the images that is right"
    lead = f"{kind} of each class ({metric_title(before.metric)}, {before.images} images)."
    parts: list[Content] = [
        tag("p", lead, class_="lead"),
        tag("div", table(columns, rows, sortable=True), class_="bars"),
    ]
    if detector:
        parts += _curves(before, after)
    return section("classes", "Classes", *parts)


def _curves(before: Details, after: Details | None) -> list[Content]:
    def changed(at: int) -> float:
        one, other = before.classes[at].accuracy, None if after is None else after.classes[at].accuracy
        return 0.0 if one is None or other is None else -abs(other - one)

    present = [at for at, each in enumerate(before.classes) if each.objects]
    shown = sorted(sorted(present, key=changed)[:_CURVES])
    nets = [("before", before), *([("after", after)] if after is not None else [])]
    entries = [swatch("before", "original"), *([swatch("after", "now")] if after is not None else [])]
    panels = [
        tag(
            "figure",
            tag("figcaption", tag("b", before.classes[at].name)),
            charts.precision_recall(before.classes[at].name, at, nets),
            tag("button", "enlarge", type="button", class_="enlarge", aria_label=f"enlarge {before.classes[at].name}"),
            class_="panel",
        )
        for at in shown
    ]
    said = "" if len(shown) == len(present) else f" The {len(shown)} classes that change most."
    lead = tag("p", f"Precision (up) over recall (across).{said}", class_="lead")
    return [tag("h3", "Precision and recall"), lead, legend(*entries), tag("div", *panels, class_="panels")]


def confusion(job: JobSummary) -> Markup | None:
    """What is taken for what."""
    nets = [("original", job.before), ("now", job.after)]
    known = [(title, details) for title, details in nets if details is not None and details.classes]
    if not known or job.before is None:
        return None
    detector = any(each.precision for each in job.before.classes)
    over = ", of finds with a probability over 0.25 that overlap by more than 0.5" if detector else ""
    lead = tag("p", f"Rows: what it is. Columns: what was found{over}.", class_="lead")
    if len(job.before.classes) > _MATRIX:
        return section("confusion", "Confusion", lead, _confusions(job.before, job.after))
    drawn = [tag("figure", tag("figcaption", tag("b", title)), _matrix(details, detector)) for title, details in known]
    return section("confusion", "Confusion", lead, tag("div", *drawn, class_="pair"))


def _matrix(details: Details, detector: bool) -> Markup:
    names, counts = _names(details), {(true, found): count for true, found, count in details.confusion}
    last = len(details.classes)
    rows = [at for at in range(last + 1) if at < last or any(true == last for true, _ in counts)]
    columns = [at for at in range(last + 1) if at < last or any(found == last for _, found in counts)]
    body = []
    for true in rows:
        whole = sum(counts.get((true, found), 0) for found in columns)
        cells = [_cell(counts.get((true, found), 0), whole, true == found) for found in columns]
        name = names[true] if true < last else ("no object" if detector else "unknown")
        body.append(tag("tr", tag("th", name, scope="row"), *cells))
    heads = [names[found] if found < last else "not found" for found in columns]
    head = tag("tr", tag("td"), *(tag("th", tag("span", each), scope="col") for each in heads))
    return tag(
        "div", tag("table", tag("thead", head), tag("tbody", *body), class_="matrix"), class_="scroll", tabindex="0"
    )


def _cell(count: int, whole: int, right: bool) -> Markup:
    level = round(_LEVELS * count / whole) if whole else 0
    kind = "right" if right else "wrong"
    return tag("td", f"{count:,}" if count else "", class_=f"{kind} heat{max(level, 1) if count else 0}")


def _confusions(before: Details, after: Details | None) -> Markup:
    """Of many classes, what is confused most often."""
    names, last = _names(before), len(before.classes)
    counts = [{(t, f): n for t, f, n in each.confusion if t != f} if each else {} for each in (before, after)]
    pairs = sorted(
        counts[0].keys() | counts[1].keys(), key=lambda pair: (-max(each.get(pair, 0) for each in counts), pair)
    )
    rows: list[list[Content]] = [
        [
            names[true] if true < last else "no object",
            names[found] if found < last else "not found",
            f"{counts[0].get((true, found), 0):,}",
            *([f"{counts[1].get((true, found), 0):,}"] if after is not None else []),
        ]
        for true, found in pairs[:_CONFUSED]
    ]
    return table(
        ["what it is", "found as", "original", *(["now"] if after is not None else [])], rows, words=2, sortable=True
    )


def _names(details: Details) -> list[str]:
    return [each.name for each in details.classes]


def pictures(job: JobSummary) -> Markup | None:
    """The pictures on which the two differ most, side by side."""
    if job.before is None or job.after is None:
        return None
    if not job.pictures:
        looked = min(len(job.before.pictures), len(job.after.pictures))
        lead = (
            f"The two networks find the same on {'the first ' if looked < job.after.images else 'all '}{looked} images."
        )
        if job.pictures is None:
            lead = "The images that were measured on can't be read any more."
        return section("pictures", "Pictures", tag("p", lead, class_="lead"))
    boxes = any(any(mark.box) for each in job.pictures for mark in (*each.before, *each.after))
    entries = [swatch("right", "found, right"), swatch("wrong", "found, wrong")]
    entries += [swatch("missed dashed", "missed")] if boxes else []
    lead = "The images on which the two networks differ most: the original to the left, as it is now to the right."
    drawn = [_side_by_side(at, each, boxes) for at, each in enumerate(job.pictures)]
    return section("pictures", "Pictures", tag("p", lead, class_="lead"), legend(*entries), *drawn)


def _side_by_side(at: int, picture: Picture, boxes: bool) -> Markup:
    source = f"data:image/jpeg;base64,{base64.b64encode(picture.jpeg).decode()}"
    width, height = picture.size
    whole = {"width": width, "height": height}
    first = tag("image", href=source, id=f"picture-{at}", preserveAspectRatio="none", **whole)
    again = tag("use", href=f"#picture-{at}")
    halves = [
        tag(
            "div",
            _drawn(picture, title, marks, shown, boxes),
            tag("p", title, ": ", _said(marks, boxes), class_="said"),
        )
        for title, marks, shown in (("original", picture.before, first), ("now", picture.after, again))
    ]
    return tag(
        "figure", tag("figcaption", tag("b", picture.name)), tag("div", *halves, class_="pair"), class_="picture"
    )


def _drawn(picture: Picture, title: str, marks: tuple[Mark, ...], shown: Markup, boxes: bool) -> Markup:
    width, height = picture.size
    size = max(width, height) / 30
    named = len(marks) <= _LABELLED
    parts: list[Content] = []
    for mark in sorted(marks, key=lambda each: each.probability or 0.0) if boxes else ():
        x, y, w, h = mark.box
        left, top = max((x - w / 2) * width, 0.0), max((y - h / 2) * height, 0.0)
        shape = {"x": left, "y": top, "width": min(w * width, width - left), "height": min(h * height, height - top)}
        said = tag("title", _named(mark))
        parts.append(tag("rect", said, class_=f"box {mark.kind}{' dashed' if mark.kind == 'missed' else ''}", **shape))
        if named:
            at = {"x": left + size / 5, "y": max(top - size / 4, size)}
            parts.append(tag("text", _named(mark), font_size=size, class_=f"label {mark.kind}", **at))
    label = f"{picture.name}, {title}: {_said(marks, boxes)}"
    return tag(
        "svg",
        tag("title", label),
        shown,
        *parts,
        viewBox=f"0 0 {width} {height}",
        role="img",
        aria_label=label,
        class_="photo",
    )


def _named(mark: Mark) -> str:
    return mark.name if mark.probability is None else f"{mark.name} {mark.probability:.0%}"


def _said(marks: tuple[Mark, ...], boxes: bool) -> str:
    if not boxes:
        return ", ".join(f"{_named(mark)} ({mark.kind})" for mark in marks)
    counts = {kind: sum(mark.kind == kind for mark in marks) for kind in ("right", "wrong", "missed")}
    return ", ".join(f"{count} {kind}" for kind, count in counts.items())
