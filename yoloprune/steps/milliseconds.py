"""How long networks take in the readers on this machine: in turns, so that what else it does meets all alike."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np

from yoloprune.artefacts import load_json, save_json, typed
from yoloprune.darknet import cfg as cfg_file
from yoloprune.darknet import weights as weights_file
from yoloprune.darknet.dialect import ALEXEYAB, Dialect, dialect_named
from yoloprune.darknet.model import Graph, Model, load_graph, plain
from yoloprune.errors import InputError
from yoloprune.progress import OnProgress, Progress
from yoloprune.readers import READERS, ReaderError
from yoloprune.readers.base import Floats
from yoloprune.readers.board import spread
from yoloprune.workspace import Figures

ROUNDS: Final = 30
"""How often a network is timed."""


@dataclass(frozen=True)
class Milliseconds:
    """Time of a forward pass of one image."""

    median: float
    low: float
    """Four fifths of the times lie between this"""
    high: float
    """and this."""


@dataclass(frozen=True, eq=False)
class Network:
    """Files of a network that is timed."""

    name: str
    """What answers call it."""
    cfg: Path
    weights: Path
    dialect: Dialect = ALEXEYAB

    @cached_property
    def graph(self) -> Graph:
        """Of the cfg."""
        return load_graph(self.cfg, self.dialect)

    @cached_property
    def model(self) -> Model:
        """Of both files. InputError where they don't belong together."""
        return Model(self.graph, weights_file.read(self.weights, self.graph.layers))

    @property
    def image(self) -> Floats:
        """A random one [C, H, W], the same for the same shape."""
        return np.random.default_rng(0).random(self.graph.net.input, np.float32)


@dataclass(frozen=True)
class Raced:
    """Times by the network's name, then the reader's."""

    ms: Mapping[str, Mapping[str, Milliseconds]]
    refused: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Likewise, why a reader doesn't run a network that others run."""

    @property
    def medians(self) -> dict[str, dict[str, float]]:
        """By the network's name, then the reader's."""
        return {name: {reader: each.median for reader, each in known.items()} for name, known in self.ms.items()}


def networks_of(files: Sequence[Path], dialect: str) -> list[Network]:
    """Networks by their files in turns. InputError for an odd file, what can't be read, or the same two files twice."""
    if not files or len(files) % 2:
        raise InputError(f"expected CFG WEIGHTS [CFG WEIGHTS ...], found {len(files)} files")
    pairs = list(zip(files[::2], files[1::2], strict=True))
    known = dialect_named(dialect)
    cfgs, weights = ([pair[at] for pair in pairs] for at in (0, 1))
    # A network is called by its cfg; by its weights where a cfg comes twice.
    names = cfgs if len(set(cfgs)) == len(cfgs) else weights
    if len(set(names)) < len(names):
        raise InputError("expected each network once, or its files under other names, found one twice")
    networks = [Network(str(name), *pair, known) for name, pair in zip(names, pairs, strict=True)]
    for each in networks:
        each.model  # noqa: B018 - whose reading checks both files
    return networks


def usable_readers(wanted: Sequence[str] | None = None) -> tuple[list[str], dict[str, str]]:
    """Names of the readers on this machine, and why the others aren't. InputError for a name that is none."""
    for name in wanted or ():
        if name not in READERS:
            raise InputError(f"--reader: expected some of {', '.join(READERS)}, found {name!r}")
    reasons = {name: reader.available() for name, reader in READERS.items() if wanted is None or name in wanted}
    return (
        [name for name, reason in reasons.items() if reason is None],
        {name: reason for name, reason in reasons.items() if reason is not None},
    )


def race(
    networks: Sequence[Network], readers: Sequence[str], progress: OnProgress, *, rounds: int = ROUNDS, threads: int = 1
) -> Raced:
    """Time networks in readers. rounds: how often, after once that isn't counted.

    threads: 1 for time of the processor, which is what passes where nothing else runs; more for time by the clock.
    """
    ms: dict[str, dict[str, Milliseconds]] = {each.name: {} for each in networks}
    refused: dict[str, dict[str, str]] = {}
    for number, reader in enumerate(readers):
        on = "1 thread" if threads == 1 else f"{threads} threads"
        progress(Progress(f"bench on {on}", number, len(readers), f"{len(networks)} networks in {reader}"))
        times, reasons = _race_in(reader, networks, rounds, threads)
        for name, time in times.items():
            ms[name][reader] = time
        for name, reason in reasons.items():
            refused.setdefault(name, {})[reader] = reason
    return Raced(ms, refused)


def _race_in(
    reader: str, networks: Sequence[Network], rounds: int, threads: int
) -> tuple[dict[str, Milliseconds], dict[str, str]]:
    """Times in a reader by the network's name, and why it doesn't run the others."""
    files = {each.name: (each.cfg, each.weights) for each in networks}
    images = {each.name: each.image for each in networks}

    def times(names: Sequence[str]) -> dict[str, Milliseconds]:
        found = READERS[reader].race([files[each] for each in names], [images[each] for each in names], rounds, threads)
        return {each: Milliseconds(**spread(seconds)) for each, seconds in zip(names, found, strict=True)}

    try:
        return times(list(files)), {}
    except ReaderError as error:
        found = {name: READERS[reader].loads(*pair) for name, pair in files.items()}
        reasons = {name: reason for name, reason in found.items() if reason is not None}
        if not reasons:  # all are read, and one doesn't run
            return {}, dict.fromkeys(files, str(error))
    left = [name for name in files if name not in reasons]
    return times(left) if left else {}, reasons


@dataclass(frozen=True)
class Times:
    """Median milliseconds of a workspace's networks, timed in turns: `milliseconds.json`."""

    networks: Mapping[str, Mapping[str, float]]
    """Of `original` and `round K`, by reader."""

    @classmethod
    def keep(cls, file: Path, figures: Mapping[str, Figures]) -> None:
        """Write those of figures that are timed."""
        save_json(file, "milliseconds", asdict(cls({name: each.ms for name, each in figures.items()})))

    @classmethod
    def load(cls, file: Path) -> Times:
        """Read them. InputError if the file is not what `keep` writes."""
        return typed(cls, load_json(file, "milliseconds", "without it, networks are timed anew"), file)


def timed(figures: Sequence[Figures], models: Sequence[Model], progress: OnProgress) -> tuple[Figures, ...]:
    """Figures of models with the median milliseconds of each on one thread, in the readers that run it."""
    readers, _ = usable_readers()
    with _written(models) as networks:
        medians = race(networks, readers, progress).medians
    return tuple(replace(each, ms=medians[network.name]) for each, network in zip(figures, networks, strict=True))


@contextmanager
def _written(models: Sequence[Model]) -> Iterator[list[Network]]:
    """Files of models for the block, in the words that every Darknet understands."""
    with tempfile.TemporaryDirectory(prefix="yoloprune-bench-") as folder:
        networks = []
        for number, model in enumerate(models):
            cfg, weights = (Path(folder) / f"{number}.{suffix}" for suffix in ("cfg", "weights"))
            cfg_file.write(cfg, cfg_file.legal(plain(model.graph)))
            weights_file.write(weights, model.weights, model.graph.layers)
            networks.append(Network(str(number), cfg, weights, model.graph.dialect))
        yield networks
