"""What a teacher wins back without labels, against labels alone and both, after the same pruning.

    python tools/bench_distill.py CFG WEIGHTS --data F [--ratio 0.5] [--iterations 150] [--seeds 3]

Prunes in L1 order without refitting, so that much is lost (the library's own way would lose little), and finetunes from
there. Accuracy is of the valid list: at the end, and the best of ten measurements in between. The same seed means the
same images in the same order.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

from yoloprune.api import ana, prune
from yoloprune.options import FinetuneOptions
from yoloprune.steps.finetune import finetune

WAYS = {"labels": (False, True), "teacher, no labels": (True, False), "teacher and labels": (True, True)}
"""Whether the unpruned network teaches, and whether labels do."""


def main() -> None:
    """Prune once, finetune in all ways, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cfg", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--ratio", type=float, default=0.5, help="share of BFLOPs to remove")
    parser.add_argument("--iterations", type=int, default=150)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as name:
        workspace = Path(name) / "pruned"
        files = (args.cfg, args.weights, args.data)
        ana(*files, workspace=workspace, criterion="l1", calibrate=0, sparsities=(0.25, 0.5, 0.75))
        pruned = prune(ratio=args.ratio, multiple=1, workspace=workspace)
        start, low = pruned.original.accuracy, pruned.after.accuracy
        off = 1 - pruned.after.bflops / pruned.original.bflops
        print(f"{start:.4f} before, {low:.4f} after {off:.0%} of BFLOPs went; {args.iterations} iterations", flush=True)
        found: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
        for seed in range(args.seeds):
            for way, (distill, labels) in WAYS.items():
                began = time.monotonic()
                place = Path(name) / f"{way} {seed}"
                shutil.copytree(workspace, place)
                options = FinetuneOptions(
                    iterations=args.iterations, distill=distill, labels=labels, seed=seed, workers=args.workers
                )
                tuned = finetune(options, workspace=place)
                with (tuned.last.parent / "log.csv").open() as log:
                    last = float(list(csv.DictReader(log))[-1]["metric"])
                found[way].append((last, tuned.after.accuracy))
                took = time.monotonic() - began
                print(f"seed {seed}, {way}: {last:.4f} at the end, {took:.0f} s", file=sys.stderr, flush=True)
    print(f"{'way':20} {'at the end, by seed':28} {'mean':>7} {'won back':>9} {'best, mean':>11}")
    for way, pairs in found.items():
        ends = [last for last, _ in pairs]
        mean = statistics.mean(ends)
        best = statistics.mean(best for _, best in pairs)
        shown = "  ".join(f"{end:.4f}" for end in ends)
        print(f"{way:20} {shown:28} {mean:7.4f} {(mean - low) / (start - low):9.0%} {best:11.4f}")


if __name__ == "__main__":
    main()
