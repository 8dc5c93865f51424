"""Milliseconds of networks, as tables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from yoloprune.report.cells import NONE, only_if, short, table_of
from yoloprune.report.tables import figures_table
from yoloprune.workspace import Figures

if TYPE_CHECKING:
    from yoloprune.steps.bench import Bench
    from yoloprune.steps.milliseconds import Milliseconds


def figures_tables(rows: Mapping[str, Figures]) -> tuple[Table, ...]:
    """`figures_table`, and the times where there are any."""
    timed = any(each.ms for each in rows.values())
    return (figures_table(rows), *((ms_table(rows),) if timed else ()))


def ms_table(rows: Mapping[str, Figures]) -> Table:
    """Milliseconds of networks in readers."""
    readers = list(dict.fromkeys(reader for each in rows.values() for reader in each.ms))
    table = table_of("network", *readers)
    table.title = "milliseconds of an image, one thread: median"
    for name, each in rows.items():
        table.add_row(name, *(f"{each.ms[reader]:.2f}" if reader in each.ms else NONE for reader in readers))
    return table


def bench_table(done: Bench) -> Table:
    """Times of each network in each reader, and how much faster than the first it is, against what was to be expected.

    Gain: times as fast as the first, over times fewer operations.
    """
    compared = len(done.ms) > 1
    on_all = f"{done.threads} threads"
    columns = ("network", "reader", "1 thread", *only_if(bool(done.ms_all_threads), on_all))
    table = table_of(*columns, *only_if(compared, "BFLOPs", "speed-up", "of BFLOPs"))
    table.title = "milliseconds of an image: median (four fifths of the times)"
    if compared:
        table.caption = "speed-up: times as fast as the first; of BFLOPs: that over how many times fewer they are"
    first = next(iter(done.bflops.values()))
    bare = {file: Path(file).name for file in done.ms}
    names = bare if len(set(bare.values())) == len(bare) else {file: file for file in done.ms}
    for file, known in done.ms.items():
        table.add_section()
        for reader, time in known.items():
            several = done.ms_all_threads.get(file, {}).get(reader)
            faster, fewer = done.speed_up(file, reader), first / done.bflops[file]
            gain = ("", "") if faster is None else (f"{faster:.2f}", f"{faster / fewer:.2f}")
            table.add_row(
                names[file] if reader == next(iter(known)) else "",
                reader,
                _milliseconds(time),
                *only_if(bool(done.ms_all_threads), "" if several is None else _milliseconds(several)),
                *only_if(compared, short(done.bflops[file]), *gain),
            )
    return table


def _milliseconds(time: Milliseconds) -> str:
    digits = 1 if time.median >= 10 else 2
    return f"{time.median:.{digits}f} ({time.low:.{digits}f}-{time.high:.{digits}f})"
