"""Read files that were spoilt at random: each must be read, or refused with our own error.

    python tools/fuzz.py --count 200000 [--seed 0]        counts by kind and outcome; exit status 1 if one failed
    python tools/fuzz.py --kind ypz --count 100000        of one kind alone
    python tools/fuzz.py --seed 0 --only 1234             that one again, with its traceback; its file is kept

Everything else than a file read or an InputError is a failure: another exception, more than 5 seconds, more than 1 GiB
above what an idle process has, or the end of the process. A failure names the seed and number that make it again.
What is read is what `stat` and `map` read before they compute: the cfg is parsed, its graph built in a dialect, it is
looked through by `check` and made legal; weights are read for their cfg; a .data file with its names, list and labels.
A packed network is unpacked; of most the size and the hash are right in spite of all.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import resource
import signal
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from types import FrameType
from typing import Final

import numpy as np
from good_files import DATA, LABELS, LISTED, NAMES, NETS
from spoil import signed, spoil

from yoloprune.compat import CONVERTERS, PROFILES, check
from yoloprune.darknet import cfg as cfg_file
from yoloprune.darknet import weights as weights_file
from yoloprune.darknet.data import load_classes, load_split, read_data, read_labels, read_names
from yoloprune.darknet.dialect import ALEXEYAB, DIALECTS
from yoloprune.darknet.model import Graph, build_graph
from yoloprune.errors import InputError, InputWarning
from yoloprune.formats import Files, ypz
from yoloprune.formats.layout import arrays_of

SECONDS: Final = 5
BYTES: Final = 1 << 30
CHUNK: Final = 10_000
"""Inputs of one process; a new one starts behind a failure."""
KINDS: Final = ("cfg", "cfg", "cfg", "weights", "weights", "data", "label", "names", "list", "ypz", "ypz")
"""Drawn from evenly."""


class TooSlow(BaseException):
    """An input took its time."""


@dataclass(frozen=True)
class Failure:
    """An input that was neither read nor refused."""

    number: int
    kind: str
    what: str


@dataclass
class Tally:
    """Outcomes of a run."""

    counts: Counter[tuple[str, str]]
    failures: list[Failure]


class Bench:
    """Good files to spoil, and how each kind is read; of `kinds`."""

    def __init__(self, folder: Path, kinds: Sequence[str] = KINDS) -> None:
        self.folder, self.kinds = folder, kinds
        for name in ("images", "labels"):
            (folder / name).mkdir(exist_ok=True)
        for name in ("a.jpg", "b.png", "c.bmp"):
            (folder / "images" / name).touch()
        for name, text in {"valid.txt": LISTED, "train.txt": LISTED, "a.names": "box\ndisc\n"}.items():
            (folder / name).write_text(text)
        (folder / "labels" / "a.txt").write_text(LABELS)
        self.cfgs = [text.encode() for text in NETS]
        self.nets = list(_graphs())
        self.weights = [
            weights_file.dump(weights_file.initial(graph.layers, seed), graph.layers)
            for seed, graph in enumerate(self.nets)
        ]
        self.packed = [_packed(graph, seed) for seed, graph in enumerate(self.nets)]
        self.weights.append(b"\0\0\0\0\1\0\0\0\0\0\0\0" + self.weights[0][16:])  # version 0.1: a narrow `seen`

    def make(self, rng: random.Random) -> tuple[str, bytes]:
        """A kind and a spoilt file of it."""
        kind = rng.choice(self.kinds)
        texts = [each.encode() for each in (DATA, LISTED, LABELS, NAMES)]
        others = {"cfg": self.cfgs, "weights": self.weights, "ypz": self.packed}.get(kind, [*texts, *self.cfgs])
        good = {"data": texts[0], "list": texts[1], "label": texts[2], "names": texts[3]}
        data = spoil(rng, good[kind] if kind in good else rng.choice(others), others)
        return kind, signed(data) if kind == "ypz" and rng.random() < 0.8 else data

    def read(self, kind: str, data: bytes, rng: random.Random) -> None:
        """As the package does. InputError for what it refuses."""
        path = self.folder / f"spoilt.{kind}"
        path.write_bytes(data)
        dialect = rng.choice(list(DIALECTS.values()))
        match kind:
            case "cfg":
                if rng.random() < 0.2:
                    check(cfg_file.read(path, lenient=True), [*PROFILES.values(), *CONVERTERS.values()])
                cfg = cfg_file.read(path)
                if cfg_file.dump(cfg) != data:
                    raise AssertionError("not byte for byte")
                cfg_file.legal(cfg)
                graph = build_graph(cfg, dialect)
                assert graph.parameters >= 0
                assert graph.bflops >= 0
            case "weights":
                weights_file.read(path, rng.choice(self.nets).layers)
            case "ypz":
                packed = ypz.read(path)
                sizes = sum(map(len, packed.weights()))
                assert sizes == len(packed.header) + 4 * sum(entry.size for entry in packed.entries)
            case "data":
                found = read_data(path)
                load_split(found, "valid", dialect, classes=2)
            case "label":
                read_labels(path, 2)
            case "names":
                read_names(path)
            case _:
                (self.folder / "valid.data").write_text(f"valid={path.name}\nnames=a.names\n")
                if rng.random() < 0.5:
                    load_split(read_data(self.folder / "valid.data"), "valid", dialect, classes=2)
                else:
                    load_classes(read_data(self.folder / "valid.data"), "valid", classes=2)


def _graphs() -> Iterator[Graph]:
    """The nets that the layer table takes whole."""
    for text in NETS:
        try:
            yield build_graph(cfg_file.parse(text.encode()), ALEXEYAB)
        except InputError:
            continue


def _packed(graph: Graph, seed: int) -> bytes:
    """A network packed: with zeros at random, or with weights on grids."""
    rng = np.random.default_rng(seed)
    floats = rng.normal(size=graph.parameters).astype(np.float32)
    floats[rng.random(floats.size) < rng.choice((0, 0.5, 0.95))] = 0
    if seed % 2:
        floats = (rng.integers(-7, 8, floats.size) / 4).astype(np.float32)
    header = weights_file.Header()
    arrays = arrays_of(graph.layers, header, floats)
    return ypz.dump(Files(cfg_file.dump(graph.cfg), b"box", header.dump(), arrays))


def one(bench: Bench, seed: int, number: int) -> tuple[str, str]:
    """Kind and outcome of one input: "read", "refused", or what went wrong."""
    rng = random.Random(f"{seed}/{number}")
    kind, data = bench.make(rng)
    with _alarm():
        try:
            bench.read(kind, data, rng)
        except InputError:
            return kind, "refused"
        except TooSlow:
            return kind, f"took more than {SECONDS} s"
        except MemoryError:
            return kind, "asked for more than 1 GiB"
        except Exception as error:  # whatever it is, it is a failure
            where = traceback.extract_tb(error.__traceback__)[-1]
            return kind, f"{type(error).__name__} at {Path(where.filename).name}:{where.lineno}: {str(error)[:100]}"
    return kind, "read"


@contextmanager
def _alarm() -> Iterator[None]:
    def ring(number: int, frame: FrameType | None) -> None:
        raise TooSlow

    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _limited() -> None:
    """From here on the process gets 1 GiB more at most."""
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else 0
    if pages:
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + BYTES, hard))


def _work(
    seed: int,
    kinds: Sequence[str],
    numbers: range,
    at: Synchronized[int],
    answers: multiprocessing.SimpleQueue[tuple[int, str, str]],
) -> None:
    with tempfile.TemporaryDirectory(prefix="yoloprune-fuzz-") as folder:
        bench = Bench(Path(folder), kinds)
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", InputWarning)  # what is odd and read is read
        _limited()
        for number in numbers:
            at.value = number
            kind, outcome = one(bench, seed, number)
            answers.put((number, kind, outcome))


def run(count: int, seed: int, kinds: Sequence[str] = KINDS) -> Tally:
    """Read `count` spoilt files in processes of their own."""
    tally = Tally(Counter(), [])
    context = multiprocessing.get_context("spawn")
    start = 0
    while start < count:
        numbers = range(start, min(start + CHUNK, count))
        at: Synchronized[int] = context.Value("q", start)
        answers: multiprocessing.SimpleQueue[tuple[int, str, str]] = context.SimpleQueue()
        process = context.Process(target=_work, args=(seed, kinds, numbers, at, answers))
        process.start()
        start = numbers.stop
        for _ in numbers:
            while answers.empty() and process.is_alive():
                process.join(0.02)
            if answers.empty():  # the process ended within an input
                start = at.value + 1
                tally.counts["?", "failed"] += 1
                tally.failures.append(Failure(at.value, "?", f"the process ended with status {process.exitcode}"))
                break
            number, kind, outcome = answers.get()
            good = outcome in ("read", "refused")
            tally.counts[kind, outcome if good else "failed"] += 1
            if not good:
                tally.failures.append(Failure(number, kind, outcome))
        process.join()
    return tally


def again(seed: int, number: int, kinds: Sequence[str] = KINDS) -> None:
    """Read one input once more; its file stays, its exception is shown."""
    bench = Bench(Path(tempfile.mkdtemp(prefix="yoloprune-fuzz-")), kinds)
    rng = random.Random(f"{seed}/{number}")
    kind, data = bench.make(rng)
    print(f"{kind}: {bench.folder / f'spoilt.{kind}'}")
    bench.read(kind, data, rng)


def main() -> int:
    """Run and count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=sorted(set(KINDS)), help="left out, all")
    parser.add_argument("--only", type=int, metavar="NUMBER", help="this one, with its traceback")
    args = parser.parse_args()
    kinds = (args.kind,) if args.kind else KINDS
    if args.only is not None:
        again(args.seed, args.only, kinds)
        return 0
    tally = run(args.count, args.seed, kinds)
    print(f"{'kind':10}{'read':>10}{'refused':>10}{'failed':>10}")
    for kind in sorted({kind for kind, _ in tally.counts}):
        print(f"{kind:10}" + "".join(f"{tally.counts[kind, each]:>10}" for each in ("read", "refused", "failed")))
    print(f"{sum(tally.counts.values())} inputs, {len(tally.failures)} failed")
    for failure in tally.failures[:50]:
        of_kind = f" --kind {args.kind}" if args.kind else ""
        print(f"--seed {args.seed}{of_kind} --only {failure.number}: {failure.kind}: {failure.what}")
    return 1 if tally.failures else 0


if __name__ == "__main__":
    sys.exit(main())
