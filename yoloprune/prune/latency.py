"""Time as a cost: layers are timed one by one in the program that will run the network, and summed up.

A layer is timed at a few channel counts (knots) and read between them: time grows about linearly with the channels it
reads, and in steps with the channels it gives, since programs compute several filters at once. How many, its own times
say. What is timed is kept in a file, by the layer's cfg.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, product
from pathlib import Path
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from yoloprune.artefacts import load_json, save_json, typed
from yoloprune.darknet.alone import alone
from yoloprune.darknet.cfg import dump
from yoloprune.darknet.layers.base import Layer
from yoloprune.darknet.model import Graph
from yoloprune.errors import InputError
from yoloprune.prune.channels import Channels

Timer = Callable[[Sequence[Graph]], Sequence[float]]
"""Seconds that the last layer of each network takes."""
_SHARES: Final = (1 / 8, 1 / 4, 1 / 2, 1)
"""Knots of an axis, as shares of its channels."""
_STEPS: Final = (8, 4)
"""Filters that a program may compute at once."""
_FEW: Final = (16, 17, 20, 24)
"""Filters by whose times that is found out."""
_WITNESSES: Final = 6
"""Layers that are asked for it."""
_HALVED: Final = 16
"""Layers that pass channels on are also timed with half of them, where all counts are multiples of this."""
_AT_ONCE: Final = 16
"""Networks timed between two writes of the file."""


class Timings:
    """Seconds of layers in one reader, in a file that grows; in one from elsewhere it doesn't."""

    def __init__(self, file: Path, reader: str, timer: Timer | None) -> None:
        """timer: None where the file, made on another machine, must have all. InputError where it has no such reader,
        or what isn't a time.
        """
        self._file, self._reader, self._timer = file, reader, timer
        self._readers: dict[str, dict[str, float]] = readers_in(file) if timer is None or file.exists() else {}
        if timer is None and reader not in self._readers:
            raise InputError(f"expected times in {reader}, found {', '.join(self._readers) or 'none'}", file=file)
        self._known = self._readers.setdefault(reader, {})

    def of(self, graphs: Iterable[Graph], progress: Callable[[int, int], None]) -> None:
        """Time what is not known yet; `progress` hears how many of how many are done."""
        missing = [
            (key, graph) for key, graph in {_key(graph): graph for graph in graphs}.items() if key not in self._known
        ]
        if missing and self._timer is None:
            raise InputError(
                f"lacks {len(missing)} layers of this network, among them {missing[0][0]!r}; bench --emit CFG WEIGHTS "
                "of the network that the job was started with writes what times them all",
                file=self._file,
            )
        for start in range(0, len(missing), _AT_ONCE):
            assert self._timer is not None
            progress(start, len(missing))
            some = missing[start : start + _AT_ONCE]
            seconds = self._timer([graph for _, graph in some])
            self._known.update(zip((key for key, _ in some), map(float, seconds), strict=True))
            save_json(self._file, "latency", {"readers": self._readers})

    def __getitem__(self, graph: Graph) -> float:
        return self._known[_key(graph)]


def _key(graph: Graph) -> str:
    """The cfg on one line."""
    return " ".join(dump(graph.cfg).decode("utf-8", "surrogateescape").split())


def readers_in(file: Path) -> dict[str, dict[str, float]]:
    """Seconds of layers, by reader and key. InputError for what is no time."""
    payload = load_json(file, "latency", "without it, layers are timed anew")
    readers = typed(_File, payload, file).readers
    for reader, known in readers.items():
        for key, seconds in known.items():
            if seconds < 0:
                raise InputError(f"readers.{reader}: {key!r}: expected seconds, found {seconds}", file=file)
    return {reader: dict(known) for reader, known in readers.items()}


@dataclass(frozen=True)
class _File:
    readers: Mapping[str, Mapping[str, float]]


class Latency:
    """Seconds of a layer by its channel counts: a price as `cost.Costs` takes it."""

    def __init__(
        self,
        graph: Graph,
        channels: Channels,
        timings: Timings,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        """Times what is not known yet of all layers' knots; `progress` hears how far it is."""
        self._graph, self._timings = graph, timings
        fixed = _fixed_sides(graph, channels)
        self.step = self._filters_at_once(_witnesses(graph, fixed))
        grids = _grids(graph, fixed, self.step)
        trials = [[alone(graph, index, *counts) for counts in knots.counts] for index, knots in enumerate(grids)]
        timings.of(chain.from_iterable(trials), progress)
        self._surfaces = [
            knots.surface([timings[each] for each in trial]) for knots, trial in zip(grids, trials, strict=True)
        ]

    def __call__(self, index: int, inputs: tuple[int, ...], output: int) -> float:
        """Between the knots; under the lowest, along the line of the lowest two."""
        layer = self._graph.layers[index]
        if _mixes(layer) and layer.groups_summed == 1:
            output = min(-(-output // self.step) * self.step, layer.out.c)
        return self._surfaces[index](sum(inputs), output)

    def _filters_at_once(self, trials: Sequence[Sequence[Graph]]) -> int:
        """By how many filters the program works, as witnesses show; 1 where no steps are seen."""
        self._timings.of(chain.from_iterable(trials), lambda done, total: None)
        times = dict.fromkeys(_FEW, 0.0)
        for trial in trials:
            for count, each in zip(_FEW, trial, strict=True):
                times[count] += self._timings[each] / self._timings[trial[-1]]
        rise = times[24] - times[16]
        for step in _STEPS:
            if (
                rise > 0 and times[16 + step] - times[17] < rise * (step - 1) / 8 / 2
            ):  # half of what it would be without steps
                return step
        return 1


def all_networks(graph: Graph, channels: Channels) -> dict[str, Graph]:
    """Every network that `Latency` may ask the time of, by its key in a file of timings, however a program computes."""
    fixed = _fixed_sides(graph, channels)
    found = list(chain.from_iterable(_witnesses(graph, fixed)))
    for step in (*_STEPS, 1):
        grids = _grids(graph, fixed, step)
        found += [alone(graph, index, *counts) for index, knots in enumerate(grids) for counts in knots.counts]
    return {_key(each): each for each in found}


_Sides = Sequence[tuple[bool, bool]]
"""For each layer, whether all that it reads stays whole, and all that it gives."""


def _fixed_sides(graph: Graph, channels: Channels) -> _Sides:
    frozen = np.ones(channels.units, np.bool_)
    for group in channels.groups:
        frozen[group.units] = False
    return [
        (all(frozen[units].all() for units in channels.inputs[index]), bool(frozen[channels.outputs[index]].all()))
        for index in range(len(graph.layers))
    ]


def _witnesses(graph: Graph, fixed: _Sides) -> list[list[Graph]]:
    """A few of the largest layers, each with so many filters as tell by how many a program works."""
    candidates = [
        layer
        for layer, sides in zip(graph.layers, fixed, strict=True)
        if _mixes(layer) and layer.groups_summed == 1 and not any(sides) and layer.out.c >= _FEW[-1]
    ]
    largest = sorted(candidates, key=lambda layer: -layer.flops)[:_WITNESSES]
    return [[alone(graph, layer.index, [layer.source_shapes[0].c], count) for count in _FEW] for layer in largest]


def _grids(graph: Graph, fixed: _Sides, step: int) -> list[_Knots]:
    return [_Knots.of(layer, *sides, step) for layer, sides in zip(graph.layers, fixed, strict=True)]


def _mixes(layer: Layer) -> bool:
    """Whether what it reads and what it gives can be narrowed apart."""
    return layer.sums_channels and layer.groups_summed < layer.source_shapes[0].c


@dataclass(frozen=True)
class _Knots:
    """Where a layer is timed."""

    reads: tuple[int, ...]
    """Channels of all sources together."""
    gives: tuple[int, ...]
    counts: tuple[tuple[tuple[int, ...], int], ...]
    """Channels of each source and of the output, row by row [reads * gives]; a layer that can't be: a row."""

    @classmethod
    def of(cls, layer: Layer, fixed_in: bool, fixed_out: bool, step: int) -> Self:
        """For a layer whose inputs, or whose output, stay whole where they are `fixed`."""
        c, n = sum(shape.c for shape in layer.source_shapes), layer.out.c
        if _mixes(layer):
            groups = layer.groups_summed
            reads = (c,) if fixed_in else _spread(c, groups)
            gives = (n,) if fixed_out else _spread(n, step if groups == 1 else groups)
            return cls(reads, gives, tuple(((read,), give) for read, give in product(reads, gives)))
        whole = tuple(shape.c for shape in layer.source_shapes)
        halves = () if fixed_in or any(each % _HALVED for each in (*whole, n)) else (2,)
        parts = (*halves, 1)
        counts = tuple((tuple(each // part for each in whole), n // part) for part in parts)
        return cls((c,), tuple(n // part for part in parts), counts)

    def surface(self, seconds: Sequence[float]) -> Callable[[int, int], float]:
        """What a layer takes that reads and gives so many channels."""
        rows = np.array(seconds).reshape(len(self.reads), len(self.gives))

        def seconds_of(read: int, give: int) -> float:
            by_read = [_line(self.gives, row, give) for row in rows]
            return max(by_read[0] if len(by_read) == 1 else _line(self.reads, by_read, read), 0.0)

        return seconds_of


def _spread(channels: int, unit: int) -> tuple[int, ...]:
    counts = {min(math.ceil(channels * share / unit) * unit, channels) for share in _SHARES}
    return tuple(sorted(counts))


def _line(knots: Sequence[int], values: Sequence[float] | NDArray[np.float64], at: int) -> float:
    """Piecewise linear; under the first knot as between the first two, through 0 where there is one."""
    if len(knots) == 1:
        return float(values[0]) * at / knots[0]
    if at < knots[0]:
        return float(values[0] + (values[1] - values[0]) * (at - knots[0]) / (knots[1] - knots[0]))
    return float(np.interp(at, knots, values))
