"""Analysis against the classic way: how much cheaper, whether what it says holds, how close it is to a fine grid.

    python tools/bench_analysis.py CFG WEIGHTS --data F [--tolerances 0.01] [--processes N] [--every N] [--reference 10]

classic   every group at nine sparsities, only masked, L1 order, the whole network on all images each time; one
          process, as many threads as there are processes of ours
ours      the command `ana`, from its start to its end: refitted, proxy measurements, measured where it matters;
          calibration and refitting counted; under torchrun with --processes 2 and more, each with one thread
held      for every group and each of --tolerances (0.005, 0.01, 0.02, 0.05): the count that ours says is prunable,
          pruned again and measured by the whole network on the same images, loses at most that
rates     images a second of the unpruned network, forward alone and with boxes and matching, beside what the device's
          arithmetic and memory allow at most (roofline.py)
close     for groups drawn at random: within 5 points of what a 2.5 % grid says, pruned and refitted alike; beside it
          how often the nine sparsities of that grid are, read as `prune` reads a grid

Both use the same evaluator. Half of the classic points are measured before ours runs, half behind it. --every N
measures every N-th of them and counts their time N times.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from roofline import Roofline, seconds

from yoloprune.choices import CALIBRATE, GRID
from yoloprune.cli.device import prepare
from yoloprune.darknet.data import load_split, read_data
from yoloprune.darknet.dialect import ALEXEYAB
from yoloprune.darknet.model import load
from yoloprune.detect.load import fit_for, load_measure
from yoloprune.detect.measure import network_for_measuring
from yoloprune.detect.pictures import Pictures
from yoloprune.malloc import keep_freed_memory
from yoloprune.prune.channel_units import ChannelUnits
from yoloprune.prune.group_evaluator import GroupEvaluator
from yoloprune.prune.limits import prunable_count
from yoloprune.prune.pruner import Pruner
from yoloprune.prune.sensitivity import RESOLUTION, ROUNDING, TOLERANCES, Curve, Sensitivity, grid_counts
from yoloprune.workspace import Workspace

FINE = tuple(step / 40 for step in range(1, 40))


def main() -> None:
    """Measure in turns, check, print."""
    parser = arguments(__doc__)
    parser.add_argument("--tolerances", default=",".join(map(str, TOLERANCES)), help="as of ana, for ours")
    parser.add_argument("--processes", type=int, default=1, help="that share the analysis; threads of the classic way")
    parser.add_argument("--every", type=int, default=1, help="measure every N-th classic point, count it N times")
    parser.add_argument("--reference", type=int, default=10, help="groups for which a fine grid is measured")
    args = parser.parse_args()

    # As the command does.
    keep_freed_memory()
    torch.backends.cudnn.allow_tf32 = False
    prepare(args.device)
    if args.device == "cpu":
        torch.set_num_threads(args.processes)
    bench = Bench(args, tuple(map(float, args.tolerances.split(","))))
    points = bench.classic_points()[:: args.every]
    classic = bench.classic(points[::2])
    sensitivity, ours = bench.ours(args.processes)
    classic = (classic + bench.classic(points[1::2])) * args.every
    measured = sum(len(curve.points) for curve in sensitivity.curves)
    print(f"{args.cfg.name}: {len(sensitivity.curves)} groups, {bench.images} images, accuracy {bench.baseline:.4f}")
    print(f"classic {classic:.1f} s ({len(points)} points), ours {ours:.1f} s ({measured} points)")
    print(f"ratio {classic / ours:.2f}; {args.processes} process(es) of ours, threads of the classic way", flush=True)
    for line in bench.rates():
        print(line, flush=True)
    held, worst = bench.held(sensitivity)
    counts = len(sensitivity.curves) * len(bench.tolerances)
    print(f"held: {held} of {counts} counts, worst excess {worst:+.5f}", flush=True)
    Console(width=100).print(bench.close(sensitivity, args.reference))


def arguments(doc: str | None) -> argparse.ArgumentParser:
    """Those that say what a `Bench` is of."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cfg", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--calibrate", type=int, default=CALIBRATE, help="images of the train list to refit on")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    return parser


class Bench:
    """One network, measured both ways."""

    def __init__(self, args: argparse.Namespace, tolerances: tuple[float, ...] = TOLERANCES) -> None:
        """args: of `arguments`."""
        self.files, self.calibrate, self.device = (args.cfg, args.weights, args.data), args.calibrate, args.device
        self.tolerances = tolerances
        self.model = load(args.cfg, args.weights, ALEXEYAB)
        data = read_data(args.data)
        self.measure = load_measure(self.model.graph, data, device=args.device)
        classes = self.model.graph.classes
        train = load_split(data, "train", ALEXEYAB, classes=classes, limit=args.calibrate, labels=False)
        calibration = Pictures(train.images, self.model.graph, fit_for(self.model.graph, None), args.device)
        units = ChannelUnits.of(self.model.graph)
        self.refitted = Pruner(self.model, units, lambda: [each.inputs for each in calibration], device=args.device)
        self.plain = Pruner(self.model, units, device=args.device)
        self.images = len(self.measure.pictures)
        self.variant = network_for_measuring(self.model, self.device)
        self.baseline = self.measure.accuracy(self.variant)  # decodes the images, too

    def classic_points(self) -> list[tuple[Curve, int]]:
        """Every group with each of nine counts of dropped units."""
        curves = self.plain.first_curves("l1")
        return [(curve, count) for curve in curves for count in grid_counts(curve, GRID)]

    def classic(self, points: Sequence[tuple[Curve, int]]) -> float:
        """Seconds for these groups and counts, only masked, each measured whole."""
        started = time.perf_counter()
        for curve, count in points:
            self._accuracy(self.plain, curve, count)
        return time.perf_counter() - started

    def ours(self, processes: int) -> tuple[Sensitivity, float]:
        """What `ana` finds, and its seconds."""
        several = ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"]
        cfg, weights, data = map(str, self.files)
        with TemporaryDirectory() as folder:
            workspace = Path(folder) / "workspace"
            command = [sys.executable, "-m", *(several if processes > 1 else []), "yoloprune", "ana", cfg, weights]
            command += ["--data", data, "--calibrate", str(self.calibrate), "-w", str(workspace), "--quiet"]
            command += ["--tolerances", ",".join(map(str, self.tolerances)), "--device", self.device]
            environment = {**os.environ, "OMP_NUM_THREADS": "1"} if self.device == "cpu" else None
            started = time.perf_counter()
            subprocess.run(command, check=True, env=environment)
            seconds = time.perf_counter() - started
            return Sensitivity.load(Workspace.load(workspace).sensitivity_file(1)), seconds

    def rates(self) -> Iterator[str]:
        """Images a second of the unpruned network, and of what the device could do at best."""
        batches = list(self.measure.pictures)
        network = network_for_measuring(self.model, self.device)

        def forward() -> None:
            with torch.inference_mode():
                for batch in batches:
                    network(batch.inputs)

        roofline = Roofline.of(self.device)
        most = roofline.images(self.model.graph)
        rates = f"{roofline.flops / 1e12:.2f} TFLOP/s, {roofline.bytes / 1e9:.0f} GB/s"
        yield f"{self.device}: {rates}, which allow {most:.0f} images/s"
        for name, work in (("forward", forward), ("measured", lambda: self.measure.accuracy(network))):
            rate = self.images / seconds(work, self.device)
            yield f"{name}: {rate:.0f} images/s, {rate / most:.1%} of that"

    def held(self, sensitivity: Sensitivity) -> tuple[int, float]:
        """How many counts lose at most their tolerance when measured again, and the worst excess."""
        known: dict[tuple[str, int], float] = {}
        excesses = []
        for curve in sensitivity.curves:
            for tolerance in self.tolerances:
                count = prunable_count(sensitivity, curve, tolerance)
                if (curve.label, count) not in known:
                    known[curve.label, count] = self.baseline - self._accuracy(self.refitted, curve, count)
                excesses.append(known[curve.label, count] - tolerance)
        return sum(excess <= ROUNDING for excess in excesses), max(excesses)

    def close(self, sensitivity: Sensitivity, groups: int) -> Table:
        """Ours beside a fine grid, for groups drawn at random."""
        found = self.measure.predictions(network_for_measuring(self.model, self.device))
        evaluator = GroupEvaluator(self.refitted, self.measure, lambda: found)
        drawn = np.random.default_rng(0).permutation(len(sensitivity.curves))[:groups]
        table = Table(
            "group", "channels", *(f"at {each:g}" for each in self.tolerances), title="prunable: ours, fine grid"
        )
        within, nine_within = dict.fromkeys(self.tolerances, 0), dict.fromkeys(self.tolerances, 0)
        for number in sorted(drawn):
            curve = sensitivity.curves[number]
            fine = replace(curve, points=tuple(evaluator.point(curve, count) for count in grid_counts(curve, FINE)))
            nine = replace(fine, points=tuple(p for p in fine.points if p.dropped in grid_counts(fine, GRID)))
            reference = replace(sensitivity, options=replace(sensitivity.options, tolerances=()), curves=(fine,))
            pairs = [
                (sensitivity.prunable_within(curve, each), reference.prunable_within(fine, each))
                for each in self.tolerances
            ]
            for tolerance, (mine, theirs) in zip(self.tolerances, pairs, strict=True):
                near = RESOLUTION * curve.size + 1e-9
                within[tolerance] += abs(mine - theirs) <= near
                nine_within[tolerance] += abs(prunable_count(reference, nine, tolerance) - theirs) <= near
            cells = [f"{mine / curve.size:.0%} {theirs / curve.size:.0%}" for mine, theirs in pairs]
            table.add_row(curve.label, str(curve.size), *cells)
        table.add_section()
        for name, counted in (("within 5 points", within), ("nine sparsities", nine_within)):
            table.add_row(name, "", *(f"{counted[each]} of {len(drawn)}" for each in self.tolerances))
        return table

    def _accuracy(self, pruner: Pruner, curve: Curve, count: int) -> float:
        """Of a group pruned alone, by the whole network on all images."""
        self.variant.set_weights(pruner.alone(curve, count).weights)
        return self.measure.accuracy(self.variant)


if __name__ == "__main__":
    main()
