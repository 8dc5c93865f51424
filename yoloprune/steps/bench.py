"""`bench`: milliseconds of networks in every reader on this machine."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from yoloprune.errors import InputError
from yoloprune.progress import OnProgress, silent
from yoloprune.shown import Shown
from yoloprune.steps.milliseconds import ROUNDS, Milliseconds, networks_of, race, usable_readers


@dataclass(frozen=True, repr=False)
class Bench(Shown):
    """Times of networks, by file, then by reader."""

    ms: Mapping[str, Mapping[str, Milliseconds]]
    """On one thread, of the processor."""
    ms_all_threads: Mapping[str, Mapping[str, Milliseconds]]
    """On all, by the clock; empty where there is but one."""
    threads: int
    """How many are all."""
    bflops: Mapping[str, float]
    """By file."""
    skipped: Mapping[str, str]
    """Readers that aren't on this machine, and why."""
    refused: Mapping[str, Mapping[str, str]]
    """By file, then reader: why it doesn't run there."""

    def speed_up(self, file: str, reader: str) -> float | None:
        """How many times as fast as the first network; None for itself, or where one isn't timed."""
        first = next(iter(self.ms))
        before, after = self.ms[first].get(reader), self.ms[file].get(reader)
        return None if file == first or before is None or after is None else before.median / after.median

    def rows(self) -> Mapping[str, Mapping[str, object]]:
        """Medians by file."""
        return {
            file: {f"{reader} ms": each.median for reader, each in known.items()} for file, known in self.ms.items()
        }


def bench(
    files: Sequence[Path],
    *,
    reader: tuple[str, ...] | None = None,
    rounds: int = ROUNDS,
    threads: int | None = None,
    dialect: str = "alexeyab",
    progress: OnProgress = silent,
) -> Bench:
    """Time networks (cfg, weights, cfg, weights ...) in readers, in turns.

    reader: names; None for all that are here. rounds: how often each runs. threads: what all are; None for as many as
    the machine has cores. InputError for files that can't be read, a reader that isn't here, or none.
    """
    networks = networks_of(files, dialect)
    if rounds < 1 or (threads or 1) < 1:
        raise InputError(f"--rounds and --threads: expected 1 or more, found {rounds} and {threads}")
    readers, skipped = usable_readers(reader)
    if not readers or (reader is not None and skipped):
        listed = "; ".join(f"{name}: {reason}" for name, reason in skipped.items())
        raise InputError(f"expected a reader on this machine, found none of those asked for ({listed})")
    every = threads or os.cpu_count() or 1
    alone = race(networks, readers, progress, rounds=rounds)
    together = race(networks, readers, progress, rounds=rounds, threads=every).ms if every > 1 else {}
    bflops = {each.name: each.graph.bflops for each in networks}
    return Bench(alone.ms, together, every, bflops, skipped, alone.refused)
