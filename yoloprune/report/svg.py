"""What charts are made of: axes, curves, bands and points, as SVG."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from yoloprune.report.markup import Content, Markup, join, number, tag

Points = Sequence[tuple[float, float]]
_STEPS: Final = (1.0, 2.0, 2.5, 5.0, 10.0)
"""Distances of round numbers, times a power of ten."""


@dataclass(frozen=True)
class Axis:
    """From values to pixels."""

    low: float
    high: float
    start: float
    """Where `low` is drawn."""
    end: float

    def at(self, value: float) -> float:
        """The pixel of a value; of one beyond the ends, the end's."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self, most: int) -> list[float]:
        """Round numbers within, at most so many, and at least two where that is possible."""
        least = (self.high - self.low) / max(most, 1)
        power = 10.0 ** math.floor(math.log10(least))
        step = next(power * each for each in _STEPS if power * each >= least * (1 - 1e-9))
        first, last = math.ceil(self.low / step - 1e-6), math.floor(self.high / step + 1e-6)
        return [round(index * step, 10) for index in range(first, last + 1)]


@dataclass(frozen=True)
class Frame:
    """A field to draw in, with its axes."""

    x: Axis
    y: Axis

    @classmethod
    def of(cls, x: tuple[float, float], y: tuple[float, float], box: tuple[float, float, float, float]) -> Frame:
        """From ranges of values and left, top, right, bottom of the field."""
        left, top, right, bottom = box
        return cls(Axis(*_apart(*x), left, right), Axis(*_apart(*y), bottom, top))

    def grid(
        self,
        across: tuple[int, Callable[[float], str]],
        up: tuple[int, Callable[[float], str]],
        titles: tuple[str, str] = ("", ""),
    ) -> Markup:
        """Lines, numbers and what they are of. across, up: how many at most, and how they are written."""
        x, y = self.x, self.y
        lines, words = [], []
        for value in y.ticks(up[0]):
            at = y.at(value)
            lines.append(f"M{number(x.start)} {number(at)}H{number(x.end)}")
            words.append(text(x.start - 6, at, up[1](value), "tick", anchor="end", dy="0.32em"))
        for value in x.ticks(across[0]):
            at = x.at(value)
            lines.append(f"M{number(at)} {number(y.start)}v4")
            words.append(text(at, y.start + 7, across[1](value), "tick", anchor="middle", dy="0.8em"))
        frame = f"M{number(x.start)} {number(y.end)}V{number(y.start)}H{number(x.end)}"
        return join(
            tag("path", d="".join(lines), class_="grid"),
            tag("path", d=frame, class_="frame"),
            *words,
            text((x.start + x.end) / 2, y.start + 24, titles[0], "title", anchor="middle", dy="0.8em"),
            text(x.start - 6, y.end - 12, titles[1], "title", anchor="start") if titles[1] else None,
        )

    def line(self, points: Points, class_: str) -> Markup:
        """A curve through points."""
        return tag("path", d=self._path(points), class_=f"line {class_}") if points else Markup()

    def band(self, low: Points, high: Points, class_: str) -> Markup:
        """What lies between two curves."""
        if len(low) < 2:
            return Markup()
        return tag("path", d=f"{self._path([*high, *reversed(low)])}Z", class_=f"band {class_}")

    def level(self, value: float, class_: str) -> Markup:
        """A line from left to right."""
        return self.line([(self.x.low, value), (self.x.high, value)], class_)

    def upright(self, value: float, class_: str) -> Markup:
        """A line from bottom to top."""
        return self.line([(value, self.y.low), (value, self.y.high)], class_)

    def dot(self, point: tuple[float, float], class_: str, said: str, radius: float = 4.0) -> Markup:
        """A point that says what it is."""
        x, y = self.x.at(point[0]), self.y.at(point[1])
        return tag("circle", tag("title", said), cx=x, cy=y, r=radius, class_=f"dot {class_}")

    def text(self, point: tuple[float, float], words: str, class_: str, **placed: str) -> Markup:
        """Words at a point. placed: as `text` takes it."""
        return text(self.x.at(point[0]), self.y.at(point[1]), words, class_, **placed)

    def _path(self, points: Iterable[tuple[float, float]]) -> str:
        placed = (f"{number(self.x.at(x))} {number(self.y.at(y))}" for x, y in points)
        return "M" + "L".join(placed)


def text(
    x: float, y: float, words: str, class_: str, anchor: str = "start", dy: str | None = None, dx: str | None = None
) -> Markup:
    """Words."""
    return tag("text", words, x=x, y=y, dx=dx, dy=dy, text_anchor=anchor, class_=class_)


def drawing(size: tuple[int, int], title: str, *content: Content, class_: str = "") -> Markup:
    """A picture that scales, with what it shows in words."""
    width, height = size
    named = tag("title", title)
    box = f"0 0 {width} {height}"
    return tag("svg", named, *content, viewBox=box, role="img", aria_label=title, class_=f"chart {class_}".strip())


def bar(share: float, class_: str, whole: float = 1.0) -> Markup:
    """A bar of the width of its place; what is filled, in 0..1, of what would be all."""
    width = f"{number(100 * min(max(share, 0.0), 1.0))}%"
    all_of_it = f"{number(100 * min(max(whole, 0.0), 1.0))}%"
    return tag(
        "svg",
        tag("rect", width=all_of_it, height="100%", class_="rest"),
        tag("rect", width=width, height="100%", class_=class_),
        class_="bar",
        aria_hidden="true",
        preserveAspectRatio="none",
    )


def thinned(points: Points, most: int) -> Points:
    """At most so many of many points, evenly, the last among them."""
    if len(points) <= most:
        return points
    step = (len(points) - 1) / (most - 1)
    return [points[round(index * step)] for index in range(most)]


def _apart(low: float, high: float) -> tuple[float, float]:
    """A range that has a width."""
    return (low, high) if high - low > 1e-9 else (low - 0.5, high + 0.5)
