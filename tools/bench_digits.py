"""MNIST through the papers' methods and ours: accuracy and bytes, by the commands that anyone types.

    python tools/bench_digits.py --mnist FOLDER -o DIR [--seeds 1,2,3] [--parts a,b,c,d,e] [--table]

It draws the set (make_digits.py), trains cfg/digits.cfg and cfg/digits-mobile.cfg for each seed, and goes through

a   Han et al. 2015: weights of the connected layers by magnitude, 10 rounds with training between, stored packed
b   Zhu and Gupta 2017: all weights by magnitude, 50 to 90 % along a cubic while training; then fewer bits
c   PaddlePaddle's dynamic pruning: pointwise and connected layers of the small network, a logarithm to 75 %
d   ours: weights by what their loss costs, the dense network as teacher, then fewer bits; both networks
e   channels of every layer, 50 and 70 %, by ThiNet, weight sum, zeros (APoZ), chance and ours; then one epoch

All choices are made on 5000 of the 60,000 pictures to train on; what a row says is measured once on the test's 10,000.
A command that ended isn't run again, and one that was killed goes on: start the tool again. DIR/seed-N/commands.txt has
the commands and their seconds. --limit and --epochs make it small, for a try.
"""

from __future__ import annotations

import argparse
import gzip
import json
import statistics
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from typing import Any

import make_digits
import numpy as np

from yoloprune.cli import app
from yoloprune.darknet import weights as weights_file
from yoloprune.darknet.dialect import ALEXEYAB
from yoloprune.darknet.model import load_graph
from yoloprune.malloc import keep_freed_memory
from yoloprune.workspace import Workspace

CFGS = Path(__file__).resolve().parents[1] / "cfg"
LARGE, SMALL = "digits", "digits-mobile"
MAGNITUDES = (0.3, 0.5, 0.62, 0.7, 0.76, 0.8, 0.84, 0.87, 0.9, 0.9166)
"""Of part a: shares that are gone after each round. At the last one as many weights stay as in the repository that is
compared with."""
SHOWN = (5, 10)
ROUNDS = {
    LARGE: ((0.9, 1.5, 0.005), (0.97, 1, 0.005)),
    SMALL: ((0.5, 1, 0.03), (0.75, 2, 0.03)),
}
"""Of part d: the share of weights that is gone, epochs, learning rate."""
CHANNELS = (0.5, 0.7)
WAYS = {
    "ThiNet": ("--criterion", "thinet", "--no-compensate"),
    "weight sum": ("--criterion", "l1", "--no-compensate"),
    "APoZ": ("--criterion", "apoz", "--no-compensate"),
    "random": ("--criterion", "random", "--no-compensate"),
    "ThiNet refitted": ("--criterion", "thinet"),
    "ours refitted": ("--criterion", "elimination"),
}
"""Of part e: shares of all layers' channels that go, and ways to choose them."""
MAGNITUDE = ("--granularity", "weight", "--criterion", "magnitude", "--no-compensate", "--calibrate", 0)
DROPOUT = 0.15
"""Where weights are gone: half of the outputs, times the root of the share that stays (Han et al. 2015, 3.2)."""
PARTS = "d,a,b,e,c"


def main(words: Sequence[str] | None = None) -> None:
    """Run what is left to do, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", type=Path, help="folder of the four original files")
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder for everything")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--parts", default=PARTS, help="in this order")
    parser.add_argument("--table", action="store_true", help="only print what is done")
    parser.add_argument("--workers", type=int, default=1, help="processes that prepare pictures")
    parser.add_argument("--epochs", type=float, default=1.0, help="factor of all epochs")
    parser.add_argument("--limit", type=int, help="most pictures of a list")
    args = parser.parse_args(words)
    if not args.table:
        if args.mnist is None:
            parser.error("--mnist: expected a folder")
        keep_freed_memory()
        pictures = args.out / "set"
        if not (pictures / "digits-test.data").exists():
            make_digits.write(args.mnist, pictures, args.limit)
        for seed in map(int, args.seeds.split(",")):
            bench = Bench(args.out / f"seed-{seed}", pictures, seed, args.workers, args.epochs)
            for part in args.parts.split(","):
                {"a": part_a, "b": part_b, "c": part_c, "d": part_d, "e": part_e}[part](bench)
    print(table(json.loads(file.read_text()) for file in sorted(args.out.glob("seed-*/rows/*.json"))))


def part_a(bench: Bench) -> None:
    """Rounds of magnitude pruning of the connected layers, the last one trained for longer."""
    net, count = bench.dense(LARGE), len(MAGNITUDES)
    shares = ",".join(map(str, MAGNITUDES[:-1]))
    bench.run("a", net, *MAGNITUDE, "--only", "connected", "--sparsity", shares, epochs=0.5, rate=0.003)
    space = bench.folder / "a" / "space"
    bench.round("a", space, count, ("--sparsity", MAGNITUDES[-1]), bench.trained(3, 0.01))
    for number in SHOWN:
        what = f"connected layers, {MAGNITUDES[number - 1]:.1%} off in {number} rounds"
        bench.row(f"a-{number}", LARGE, what, Net(net.cfg, Workspace.load(space).finetuned_file(number)))


def part_b(bench: Bench) -> None:
    """All weights along a cubic, then fewer bits."""
    net = bench.dense(LARGE)
    grow = ("--schedule", "polynomial", "--initial-sparsity", 0.5)
    slim = bench.run("b", net, *MAGNITUDE, "--sparsity", 0.9, *grow, epochs=3, rate=0.01)
    bench.row("b-cubic", LARGE, "90 % along a cubic", slim)
    for bits in (8, 4):
        bench.row(f"b-cubic-{bits}", LARGE, f"90 % along a cubic, {bits} bits", slim, bits)


def part_c(bench: Bench) -> None:
    """Pointwise and connected layers along a logarithm."""
    net = bench.dense(SMALL)
    grow = ("--only", "1x1,connected", "--schedule", "log", "--every", "1epochs")
    slim = bench.run("c", net, *MAGNITUDE, "--sparsity", 0.75, *grow, epochs=6, rate=0.03)
    bench.row("c-log", SMALL, "75 % along a logarithm", slim)


def part_d(bench: Bench) -> None:
    """Rounds of weights by what their loss costs, packed with few bits."""
    for name, rounds in ROUNDS.items():
        net, space = bench.dense(name), bench.folder / f"d-{name}"
        files = (net.cfg, net.weights, *bench.data, "--granularity", "weight", "--calibrate", 1024)
        bench.command(f"d-{name}-ana", "ana", *files, "-w", space)
        for number, (share, epochs, rate) in enumerate(rounds, start=1):
            how = ("--distill", *bench.trained(epochs, rate))
            tuned = bench.round(f"d-{name}", space, number, ("--ratio", share), how)
            for bits in (None, 5, 4) if number > 1 else (None,):
                what = f"{share:.1%} by loss" + (f", {bits} bits" if bits else "")
                bench.row(f"d-{name}-{number}-{bits}", name, what, Net(net.cfg, tuned), bits)


def part_e(bench: Bench) -> None:
    """Channels by several criteria, before and after training."""
    net = bench.dense(LARGE)
    for share in CHANNELS:
        for way, words in WAYS.items():
            name = f"e-{share}-{way.replace(' ', '-')}"
            how = ("--calibrate", 1000, "--sparsity", share, "--multiple", 1)
            slim = bench.run(name, net, *words, *how, epochs=1, rate=0.005)
            pruned = net.cfg, Workspace.load(bench.folder / name / "space").pruned_file(1)
            bench.row(f"{name}-before", LARGE, f"{share:.0%} of channels, {way}, before training", Net(*pruned))
            bench.row(f"{name}-after", LARGE, f"{share:.0%} of channels, {way}", slim)


@dataclass(frozen=True)
class Net:
    """A network's files."""

    cfg: Path
    weights: Path


@dataclass(frozen=True)
class Bench:
    """A seed's networks and what is made of them."""

    folder: Path
    pictures: Path
    seed: int
    workers: int
    epochs: float
    """Factor."""

    def dense(self, name: str) -> Net:
        """A trained network, with its row; its cfg has less dropout."""
        cfg, out = CFGS / f"{name}.cfg", self.folder / name
        best, last = out / f"{name}-best.weights", out / f"{name}-last.weights"
        updates = round(load_graph(cfg, ALEXEYAB).net.max_batches * self.epochs) or 1
        if not (best.exists() and last.exists()):
            best.unlink(missing_ok=True)
            self.command(f"dense-{name}", "train", cfg, *self.data, "-o", out, "--iterations", updates, *self._how)
        self.row(f"dense-{name}", name, "dense", Net(cfg, best))
        pruned = self.folder / "cfg" / cfg.name
        if not pruned.exists():
            pruned.parent.mkdir(exist_ok=True)
            pruned.write_text(cfg.read_text().replace("probability=0.5", f"probability={DROPOUT}"))
        return Net(pruned, best)

    def run(self, name: str, net: Net, *words: object, epochs: float, rate: float) -> Net:
        """What `run` makes of a network."""
        folder = self.folder / name
        if not self._answer(f"{name}-run").exists():
            rmtree(folder / "out", ignore_errors=True)
        files = (net.cfg, net.weights, *self.data, "-w", folder / "space", "-o", folder / "out")
        self.command(f"{name}-run", "run", *files, *words, *self.trained(epochs, rate))
        return Net(*(folder / "out" / f"{net.cfg.stem}-slim.{kind}" for kind in ("cfg", "weights")))

    def round(self, name: str, space: Path, number: int, goal: Sequence[object], how: Sequence[object]) -> Path:
        """The weights after a round in a workspace."""
        if len(Workspace.load(space).rounds) < number:
            self.command(f"{name}-{number}-prune", "prune", *goal, "-w", space)
        if not Workspace.load(space).rounds[number - 1].finetuned:
            self.command(f"{name}-{number}-finetune", "finetune", *how, "-w", space)
        return Workspace.load(space).finetuned_file(number)

    def row(self, name: str, network: str, what: str, net: Net, bits: int | None = None) -> None:
        """A row of the table: packed, unpacked and measured."""
        file = self.folder / "rows" / f"{name}.json"
        if file.exists():
            return
        packed, unpacked = self.folder / "packed" / f"{name}.ypz", self.folder / "unpacked"
        few = ("--bits", bits, "--calibrate", 1024, *self.data) if bits else ()
        self.command(f"{name}-pack", "pack", net.cfg, net.weights, "-o", packed, "--force", *few)
        self.command(f"{name}-unpack", "unpack", packed, "-o", unpacked, "--force")
        cfg, weights = unpacked / f"{name}.cfg", unpacked / f"{name}.weights"
        test = self.pictures / "digits-test.data"
        measured = self.command(f"{name}-map", "map", cfg, weights, "--data", test)
        content = weights.read_bytes()
        arrays = weights_file.read(weights, load_graph(cfg, ALEXEYAB).layers, content).layers
        file.parent.mkdir(parents=True, exist_ok=True)
        row = {
            "part": name.split("-")[0],
            "network": network,
            "what": what,
            "seed": self.seed,
            "top1": measured["top1"],
            "nonzero": sum(int(np.count_nonzero(array)) for layer in arrays for array in layer.values()),
            "weights": len(content),
            "gzip": len(gzip.compress(content)),
            "packed": packed.stat().st_size,
        }
        file.write_text(json.dumps(row, indent=1))
        for each in (cfg, weights):
            each.unlink()

    def command(self, name: str, *words: object) -> Mapping[str, Any]:
        """What a command of yoloprune answers, which is run unless it has been."""
        file, said = self._answer(name), list(map(str, words))
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            print("yoloprune", *said, flush=True)
            started = time.monotonic()
            if status := app([*said, "--json", str(file)], standalone_mode=False):
                sys.exit(status)
            with (self.folder / "commands.txt").open("a") as log:
                print(f"{time.monotonic() - started:.0f} s: yoloprune", *said, file=log)
        answer: Mapping[str, Any] = json.loads(file.read_text())
        return answer

    def _answer(self, name: str) -> Path:
        return self.folder / "answers" / f"{name}.json"

    def trained(self, epochs: float, rate: float) -> tuple[object, ...]:
        """How a pruned network is trained."""
        return "--epochs", epochs * self.epochs, "--learning-rate", rate, "--batch", 128, *self._how

    @property
    def data(self) -> tuple[object, ...]:
        """What all commands choose and train on."""
        return "--data", self.pictures / "digits.data"

    @property
    def _how(self) -> tuple[object, ...]:
        """How everything is trained."""
        return "--seed", self.seed, "--workers", self.workers, "--bf16"


def table(rows: Iterable[Mapping[str, Any]]) -> str:
    """Markdown: means over the seeds, and how far they are apart."""
    by_what: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    dense = {}
    for row in rows:
        by_what.setdefault((row["part"], row["network"], row["what"]), []).append(row)
        if row["part"] == "dense":
            dense[row["network"], row["seed"]] = row["top1"]
    lines = [
        "| part | network | what | top-1, % | lost, points | not 0 | .weights, KB | gzip, KB | packed, KB | seeds |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (part, network, what), found in sorted(by_what.items(), key=lambda each: (each[0][1], each[0][0])):
        lost = [100 * (dense[network, row["seed"]] - row["top1"]) for row in found]
        cells = [
            spread([100 * row["top1"] for row in found]),
            spread(lost),
            f"{statistics.mean(row['nonzero'] for row in found):,.0f}",
            *(f"{statistics.mean(row[key] for row in found) / 1000:,.0f}" for key in ("weights", "gzip", "packed")),
            str(len(found)),
        ]
        lines.append(f"| {part} | {network} | {what} | {' | '.join(cells)} |")
    return "\n".join(lines)


def spread(values: list[float]) -> str:
    """The mean, and half the range where there are several."""
    mean = f"{statistics.mean(values):.2f}"
    return mean if len(values) == 1 else f"{mean} +-{(max(values) - min(values)) / 2:.2f}"


if __name__ == "__main__":
    main()
