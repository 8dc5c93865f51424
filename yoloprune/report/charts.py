"""The charts of a report, each one SVG out of values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from yoloprune.detect.details import Details
from yoloprune.prune.search import Expectation, output_error_at
from yoloprune.prune.sensitivity import Curve, Point, Sensitivity
from yoloprune.report import cells
from yoloprune.report.markup import Markup, join, tag
from yoloprune.report.svg import Frame, Points, drawing, text, thinned
from yoloprune.steps.summary import Analysis, JobSummary, TrainingCurve
from yoloprune.workspace import Round

WIDE: Final = (960, 430)
NARROW: Final = (400, 360)
"""Sizes of a chart that fills the page, on a screen and on a phone."""
_SMALL: Final = (240, 172)
_FIELD: Final = (40, 10, 228, 146)
"""Sizes of a small chart and of its field."""
_TRAINING: Final = (480, 380)
MOST_LOST: Final = 0.12
"""Loss at which axes end: what lies beyond nobody wants."""
_LINE: Final = 400
"""Points of a curve: more can't be seen."""


def tradeoff(job: JobSummary, size: tuple[int, int]) -> Markup:
    """Accuracy over the share that is off: what the analysis promises, and where the rounds are."""
    original = job.workspace.original
    assert original is not None
    rounds = job.workspace.rounds
    promises = [[(at.removed, original.accuracy - at.joint_loss) for at in each.promise] for each in job.analyses]
    reached = [figures.accuracy for each in rounds for figures in (each.pruned, each.finetuned) if figures]
    shares = [job.share_off(each.pruned) for each in rounds]
    bottom = min([*reached, max(original.accuracy - MOST_LOST, 0.0)])
    ends = job.before.interval if job.before else (original.accuracy, original.accuracy)
    room = 0.06 * (max([ends[1], *reached]) - bottom)
    top = min(max([ends[1], *reached]) + room, 1.0)
    last = max([*shares, *(share for each in promises for share, accuracy in each if accuracy >= bottom), 0.05])
    frame = Frame.of((0.0, min(1.08 * last, 1.0)), (max(bottom - room, 0.0), top), (58, 30, size[0] - 16, size[1] - 52))
    wide = size[0] > 600
    parts = [
        frame.grid(
            (10 if wide else 5, cells.percent),
            (6, lambda value: f"{value:.3g}"),
            (f"{job.saves} off", metric_title(original.metric)),
        ),
        frame.band([(0, ends[0]), (frame.x.high, ends[0])], [(0, ends[1]), (frame.x.high, ends[1])], "before")
        if job.before
        else None,
        frame.level(original.accuracy, "before dashed"),
        _expected(frame, original.accuracy, job.analyses),
        *(frame.line([at for at in each if frame.y.low <= at[1]], "promise dashed") for each in promises),
    ]
    path = [(0.0, original.accuracy)]
    for each, share in zip(rounds, shares, strict=True):
        now = each.newest
        if each.finetuned:
            parts.append(frame.line([(share, each.pruned.accuracy), (share, each.finetuned.accuracy)], "pruned thin"))
        path.append((share, now.accuracy))
    parts.append(frame.line(path, "after"))
    parts.append(frame.dot(path[0], "before", f"original: {original.accuracy:.4f}", 6))
    for each, share in zip(rounds, shares, strict=True):
        parts += _round_dots(frame, each, share)
    parts += _labels(frame, path[1:])
    title = f"Accuracy over the share of {job.saves} that is off"
    return drawing(size, title, *parts, class_="wide" if wide else "narrow")


def _expected(frame: Frame, accuracy: float, analyses: Sequence[Analysis]) -> Markup | None:
    """Where what the first analysis expects lies, likely."""
    if not analyses:
        return None
    promise = [at for at in analyses[0].promise if accuracy - at.joint_loss >= frame.y.low]
    low, high = ([(at.removed, accuracy - at.interval[end]) for at in promise] for end in (1, 0))
    return frame.band(low, high, "promise")


def _round_dots(frame: Frame, done: Round, share: float) -> list[Markup]:
    said = f"round {done.number}, {share:.1%} off"
    pruned = f"{said}: {done.pruned.accuracy:.4f} after pruning"
    dots = [frame.dot((share, done.pruned.accuracy), "pruned", pruned, 6)]
    if done.finetuned is not None:
        trained = f"{said}: {done.finetuned.accuracy:.4f} after training"
        dots.append(frame.dot((share, done.finetuned.accuracy), "after", trained, 7))
    return dots


def _labels(frame: Frame, path: Points) -> list[Markup]:
    """The rounds' names at their dots, none on another; where there is no room, none."""
    labels: list[Markup] = []
    taken: list[tuple[float, float]] = []
    dots = [(frame.x.at(x), frame.y.at(y)) for x, y in path]
    for index, (x, y) in enumerate(dots):
        for dx, dy in ((0.0, -20.0), (0.0, 24.0), (44.0, 4.0), (-44.0, 4.0), (0.0, -38.0), (0.0, 42.0)):
            at = (x + dx, y + dy)
            beside = (*taken, *dots[:index], *dots[index + 1 :])
            free = all(abs(at[0] - a) >= 56 or abs(at[1] - b) >= 15 for a, b in beside)
            if free and frame.x.start + 28 <= at[0] <= frame.x.end and frame.y.end < at[1] < frame.y.start:
                labels.append(text(*at, f"round {index + 1}", "mark", anchor="middle"))
                taken.append(at)
                break
    return labels


def sensitivity(known: Sensitivity, curve: Curve, expected: Expectation) -> Markup:
    """What accuracy one group loses over its sparsity: measured with intervals, expected, prunable."""
    frame = Frame.of((0, 1), (-0.02, MOST_LOST), _FIELD)
    before = known.baseline - known.start
    points = [(point.dropped / curve.size, known.loss(point)) for point in curve.points]
    sure = [(point.dropped / curve.size, point.interval) for point in curve.points if point.interval is not None]
    line = []
    if curve.proxy:
        counts = thinned([(float(count), 0.0) for count in range(curve.gone + 1, curve.size)], 40)
        line = [(count / curve.size, before + expected.at(output_error_at(curve, round(count)))) for count, _ in counts]
    start = [(curve.gone / curve.size, (before, before))]
    low = [(at, interval[0]) for at, interval in [*start, *sure]]
    high = [(at, interval[1]) for at, interval in [*start, *sure]]
    return drawing(
        _SMALL,
        f"Accuracy that group {curve.label} loses over its sparsity",
        frame.grid((2, cells.percent), (4, lambda value: f"{value:g}")),
        frame.band(low, high, "after") if sure else None,
        *(frame.upright(known.prunable_within(curve, loss) / curve.size, "good thin") for loss in known.tolerances),
        frame.level(0.0, "before dashed"),
        frame.line([each for each in line if each[1] <= MOST_LOST], "promise dashed"),
        frame.line([(start[0][0], before), *points], "after"),
        *(
            frame.dot(at, "after", measured_words(known, curve, point), 2.6)
            for at, point in zip(points, curve.points, strict=True)
        ),
    )


def measured_words(known: Sensitivity, curve: Curve, point: Point) -> str:
    """A measurement in words."""
    interval = "" if point.interval is None else f" ({point.interval[0]:.4f} to {point.interval[1]:.4f})"
    return f"{point.dropped / curve.size:.0%} pruned: loses {known.loss(point):.4f}{interval}"


def training(job: JobSummary, curve: TrainingCurve) -> Markup:
    """Accuracy above, loss below, over the updates of one round's training."""
    original = job.workspace.original
    assert original is not None
    width, height = _TRAINING
    last = curve.records[-1].iteration
    measured = [(0.0, curve.start)]
    measured += [(float(each.iteration), each.metric) for each in curve.records if each.metric is not None]
    averages: Points = [(float(each.iteration), each.average) for each in curve.records]
    marks = [original.accuracy, *(value for _, value in measured)]
    room = max(0.1 * (max(marks) - min(marks)), 0.005)
    upper = Frame.of((0, last), (max(min(marks) - room, 0), min(max(marks) + room, 1)), (52, 26, width - 14, 196))
    middle = sorted(value for _, value in averages)[len(averages) // 2]
    shown = [value for _, value in averages if value <= 3 * middle]
    lower = Frame.of((0, last), (0.95 * min(shown), 1.02 * max(shown)), (52, 244, width - 14, height - 40))
    best = max(measured, key=lambda each: each[1])
    return drawing(
        _TRAINING,
        f"Training of round {curve.number}: accuracy and loss over {last} updates",
        upper.grid((6, lambda value: ""), (5, lambda value: f"{value:.3g}"), ("", metric_title(original.metric))),
        upper.level(original.accuracy, "before dashed"),
        upper.level(curve.start, "pruned dashed"),
        upper.line(measured, "after"),
        *(upper.dot(each, "after", f"after {each[0]:g} updates: {each[1]:.4f}", 3) for each in measured),
        upper.dot(best, "best", f"best, after {best[0]:g} updates: {best[1]:.4f}", 6),
        lower.grid((6, lambda value: f"{value:g}"), (4, lambda value: f"{value:.3g}"), ("updates", "average loss")),
        lower.line(thinned(averages, _LINE), "plain"),
    )


def precision_recall(name: str, number: int, nets: Sequence[tuple[str, Details]]) -> Markup:
    """Precision over recall of one class, of each network."""
    frame = Frame.of((0, 1), (0, 1), _FIELD)
    curves = []
    for class_, details in nets:
        precision = details.classes[number].precision
        points = [(index / (len(precision) - 1), value) for index, value in enumerate(precision)]
        ends = next((index for index, (_, value) in enumerate(points) if value == 0), len(points))
        curves.append(frame.line(_steps(points[:ends]), class_))
    shape = f"Precision over recall of {name}"
    return drawing(_SMALL, shape, frame.grid((2, cells.percent), (2, cells.percent)), *curves)


def _steps(points: Points) -> Points:
    """Corners alone, where a curve is level."""
    return [
        each
        for index, each in enumerate(points)
        if not 0 < index < len(points) - 1 or not points[index - 1][1] == each[1] == points[index + 1][1]
    ]


def metric_title(metric: str) -> str:
    """What a metric is called where people read it; the key stands beside it once."""
    base, _, over = metric.partition("_")
    words = {
        "map50": "mAP@0.50",
        "map75": "mAP@0.75",
        "map50-95": "mAP@0.50:0.95",
        "top1": "top-1 accuracy",
        "top5": "top-5 accuracy",
    }
    named = words.get(base, base)
    return f"agreement, {named}" if over == "agreement" else named


def swatch(class_: str, label: str, *, dot: bool = False) -> Markup:
    """An entry of a legend."""
    drawn = (
        tag("circle", cx=12, cy=6, r=4.5, class_=f"dot {class_}")
        if dot
        else tag("path", d="M0 6H24", class_=f"line {class_}")
    )
    return tag("span", tag("svg", drawn, class_="swatch", viewBox="0 0 24 12", aria_hidden="true"), label, class_="key")


def legend(*entries: Markup) -> Markup:
    """What the lines of a chart are."""
    return tag("p", join(*entries), class_="legend")
