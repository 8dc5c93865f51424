"""Analysis against the classic way: how much cheaper, whether what it says holds, how close it is to a fine grid.

    python tools/bench_analysis.py CFG WEIGHTS --data F [--every N] [--reference 10]

classic   every group at nine sparsities, plain cut by weight sum, the whole network on all pictures each time
ours      `ana`: refitted cuts, drift looked at, measured where it matters; calibration and refitting counted
held      for every group and loss of 0.005, 0.01, 0.02, 0.05: the sparsity that ours says may go, cut again and
          measured by the whole network on the same pictures, loses at most that
close     for groups drawn at random: within 5 points of what a 2.5 % grid of the same refitted cuts says

Both use the same evaluator and take turns, group by group, in one process. --every N measures every N-th of the
classic points and counts their time N times.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from yoloprune.darknet.data import load_split, read_data
from yoloprune.darknet.dialect import ALEXEYAB
from yoloprune.darknet.model import load
from yoloprune.detect.measure import Pictures, fit_for, load_measure, network_for_measuring
from yoloprune.prune.channels import trace
from yoloprune.prune.cutter import Cutter
from yoloprune.prune.plan import bearable
from yoloprune.prune.search import analyse
from yoloprune.prune.sensitivity import GRID, LOSSES, RESOLUTION, ROUNDING, Curve, Sensitivity, Setup, grid_counts
from yoloprune.prune.trials import Trials

FINE = tuple(step / 40 for step in range(1, 40))


def main() -> None:
    """Measure in turns, check, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cfg", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--calibrate", type=int, default=64, help="pictures of the train list to refit on")
    parser.add_argument("--every", type=int, default=1, help="measure every N-th classic point, count it N times")
    parser.add_argument("--reference", type=int, default=10, help="groups for which a fine grid is measured")
    args = parser.parse_args()

    bench = Bench(args.cfg, args.weights, args.data, args.calibrate, args.every)
    sensitivity = bench.run()
    classic, ours = bench.classic_seconds, bench.our_seconds
    points = sum(len(curve.points) for curve in sensitivity.curves)
    print(f"{args.cfg.name}: {len(sensitivity.curves)} groups, {bench.images} pictures, accuracy {bench.baseline:.4f}")
    print(f"classic {classic:.1f} s ({bench.classic_points} points), ours {ours:.1f} s ({points} points)")
    print(f"ratio {classic / ours:.2f}; before the first point {bench.setup_seconds:.1f} s of ours", flush=True)
    held, worst = bench.held(sensitivity)
    print(f"held: {held} of {len(sensitivity.curves) * len(LOSSES)} choices, worst excess {worst:+.5f}", flush=True)
    Console(width=100).print(bench.close(sensitivity, args.reference))


class Bench:
    """One network, measured both ways."""

    def __init__(self, cfg: Path, weights: Path, data_file: Path, calibrate: int, every: int) -> None:
        self.every = every
        self.model = load(cfg, weights, ALEXEYAB)
        data = read_data(data_file)
        self.measure = load_measure(self.model.graph, data)
        classes = self.model.graph.classes
        train = load_split(data, "train", ALEXEYAB, classes=classes, limit=calibrate, labels=False)
        calibration = Pictures(train.images, self.model.graph, fit_for(self.model.graph, None))
        self.channels = trace(self.model.graph)
        self.refitted, self.plain = (
            Cutter(self.model, self.channels, self.channels.all_kept(), pictures)
            for pictures in (lambda: [batch.inputs for batch in calibration], list)
        )
        self.images = len(self.measure.pictures)
        self.baseline = self.accuracy(network_for_measuring(self.model))  # decodes the pictures, for both
        self.plain_curves = {curve.label: curve for curve in self.plain.first_curves("l1")}
        self.variant = network_for_measuring(self.model)
        self.classic_seconds = self.our_seconds = self.setup_seconds = 0.0
        self.classic_points = 0

    def accuracy(self, network: object) -> float:
        """By the whole network on all pictures."""
        return self.measure.accuracy(network)  # type: ignore[arg-type]

    def run(self) -> Sensitivity:
        """The analysis, and after each group the classic way for the same group."""
        started = time.perf_counter()
        found = [each for batch in self.measure.run(network_for_measuring(self.model)) for each in batch]
        self.trials = Trials(self.refitted, self.measure, lambda: found)
        curves = self.refitted.first_curves("elimination")
        setup = Setup("", "", "", "alexeyab", False, "map50", self.images, "elimination", "")
        start = Sensitivity(setup, self.baseline, self.baseline, LOSSES, (), curves)
        self.setup_seconds = self.our_seconds = time.perf_counter() - started
        group = curves[0].label
        started = time.perf_counter()

        def on_change(_: Sensitivity, curve: Curve) -> None:
            nonlocal group, started
            self.our_seconds += time.perf_counter() - started
            if curve.label != group:
                self.classic(self.plain_curves[group])
                group = curve.label
            started = time.perf_counter()

        result = analyse(start, self.trials, on_change)
        self.classic(self.plain_curves[group])
        return result

    def classic(self, curve: Curve) -> None:
        """Nine plain cuts of a group, each measured whole."""
        for number, count in enumerate(grid_counts(curve, GRID)):
            self.classic_points += 1
            if (self.classic_points + number) % self.every:
                continue
            started = time.perf_counter()
            keep = curve.keep(self.channels, self.plain.keep, count)
            self.variant.set_weights(self.plain.alone(keep).weights)
            self.accuracy(self.variant)
            self.classic_seconds += (time.perf_counter() - started) * self.every

    def held(self, sensitivity: Sensitivity) -> tuple[int, float]:
        """How many choices lose at most what they may when measured again, and the worst excess."""
        known: dict[tuple[str, int], float] = {}
        excesses = []
        for curve in sensitivity.curves:
            for loss in LOSSES:
                count = bearable(sensitivity, curve, loss)
                if (curve.label, count) not in known:
                    keep = curve.keep(self.channels, self.refitted.keep, count)
                    self.variant.set_weights(self.refitted.alone(keep).weights)
                    known[curve.label, count] = self.baseline - self.accuracy(self.variant)
                excesses.append(known[curve.label, count] - loss)
        return sum(excess <= ROUNDING for excess in excesses), max(excesses)

    def close(self, sensitivity: Sensitivity, groups: int) -> Table:
        """Ours beside a fine grid, for groups drawn at random."""
        drawn = np.random.default_rng(0).permutation(len(sensitivity.curves))[:groups]
        table = Table("group", "channels", *(f"at {loss:g}" for loss in LOSSES), title="may go: ours, fine grid")
        within = dict.fromkeys(LOSSES, 0)
        for number in sorted(drawn):
            curve = sensitivity.curves[number]
            fine = replace(curve, points=tuple(self.trials.point(curve, count) for count in fine_counts(curve)))
            reference = replace(sensitivity, losses=(), curves=(fine,))
            pairs = [(sensitivity.holds(curve, loss), reference.holds(fine, loss)) for loss in LOSSES]
            for loss, (mine, theirs) in zip(LOSSES, pairs, strict=True):
                within[loss] += abs(mine - theirs) <= RESOLUTION * curve.atoms + 1e-9
            cells = [f"{mine / curve.atoms:.0%} {theirs / curve.atoms:.0%}" for mine, theirs in pairs]
            table.add_row(curve.label, str(curve.atoms), *cells)
        table.add_section()
        table.add_row("within 5 points", "", *(f"{within[loss]} of {len(drawn)}" for loss in LOSSES))
        return table


def fine_counts(curve: Curve) -> Sequence[int]:
    """A 2.5 % grid."""
    return grid_counts(curve, FINE)


if __name__ == "__main__":
    main()
