"""Accuracy after pruning and finetuning, the same budget for all: ours against simpler ways of choosing what is pruned.

    python tools/bench_finetuned.py CFG WEIGHTS --data F [--ratios 0.5,0.75] [--seeds 3] [--iterations 60]

Every way removes the same share of BFLOPs, is finetuned for as many updates by the same recipe, and is measured on the
valid list at the end (not at its best, so that no measurement chooses). Printed: mean and spread (half the range) over
the seeds, beside the accuracy right after pruning.

ours             analysis with refitting, Lagrangian allocator as with `prune --ratio`, elimination order, joint refit
unrefitted       the same, only masked, in L1 order
uniform-l1       the same sparsity for every group, L1 order, only masked
uniform-scale    the same sparsity for every group, batch-norm scale, only masked
tp-magnitude     Torch-Pruning, GroupMagnitudeImportance, global_pruning=True (needs `pip install yoloprune[bench]`)

The analysis measures on the first --choose images of the train list, so the valid list chooses nothing.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from bench_oneshot import Bench, Pruned, measure_of
from rich.console import Console
from rich.table import Table

from yoloprune.darknet.data import load_split, read_data
from yoloprune.darknet.dialect import ALEXEYAB
from yoloprune.darknet.model import load
from yoloprune.darknet.network import build
from yoloprune.detect.load import load_measure
from yoloprune.detect.measure import network_for_measuring
from yoloprune.prune.channel_units import ChannelUnits
from yoloprune.train.loop import train
from yoloprune.train.masks import Masks
from yoloprune.train.recipe import Recipe

WAYS = ("ours", "unrefitted", "uniform-l1", "uniform-scale", "tp-magnitude")


def main() -> None:
    """Prune in every way, finetune with every seed, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cfg", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--ratios", default="0.5,0.75", help="shares of BFLOPs to remove")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=60, help="updates of finetuning")
    parser.add_argument("--choose", type=int, default=64, help="images of the train list to choose and to refit on")
    parser.add_argument("--ways", default=",".join(WAYS))
    args = parser.parse_args()

    model = load(args.cfg, args.weights, ALEXEYAB)
    data = read_data(args.data)
    images = load_split(data, "train", ALEXEYAB, classes=model.graph.classes)
    choosing = load_split(data, "train", ALEXEYAB, classes=model.graph.classes, limit=args.choose)
    bench = Bench(model, measure_of(model, choosing), choosing)
    measure = load_measure(model.graph, data)
    recipe = Recipe.for_finetuning(model.graph, args.iterations)
    original = measure.accuracy(network_for_measuring(model))
    table = Table(title=f"{len(measure.pictures)} images, mAP@0.50 {original:.4f}; {args.iterations} updates")
    for heading in ("way", "BFLOPs off", "pruned", "finetuned", "spread", "minutes"):
        table.add_column(heading, justify="right")
    for ratio in map(float, args.ratios.split(",")):
        for way in args.ways.split(","):
            started = time.monotonic()
            units, pruned = pruned_by(way, bench, ratio)
            before = measure.accuracy(network_for_measuring(pruned))
            mask = units.mask()
            finals = []
            for seed in range(args.seeds):
                with TemporaryDirectory() as folder:
                    last = train(pruned, images, recipe, folder=Path(folder), seed=seed, masks=Masks(mask)).last
                finals.append(measure.accuracy(build(pruned.with_weights(last))))
            minutes = (time.monotonic() - started) / 60
            figures = (
                f"{bench.removed(units):.1%}",
                f"{before:.4f}",
                f"{np.mean(finals):.4f}",
                f"{np.ptp(finals) / 2:.4f}",
            )
            table.add_row(way, *figures, f"{minutes:.1f}")
    Console().print(table)


def pruned_by(way: str, bench: Bench, ratio: float) -> Pruned:
    """What is left of the units and the model where the way removes about `ratio` of the BFLOPs."""
    if way == "ours":
        return bench.allocated(bench.refitted, "elimination", ratio)
    if way == "unrefitted":
        return bench.allocated(bench.plain, "l1", ratio)
    by_share: dict[str, Callable[[float], ChannelUnits]] = {
        "uniform-l1": lambda share: bench.uniform("l1", share),
        "uniform-scale": lambda share: bench.uniform("bn-scale", share),
        "tp-magnitude": lambda share: bench.torch_pruning("magnitude", share),
    }
    low, high = 0.0, 0.99
    for _ in range(10):  # the share of channels at which that share of BFLOPs goes
        middle = (low + high) / 2
        if bench.removed(by_share[way](middle)) < ratio:
            low = middle
        else:
            high = middle
    return bench.masked(by_share[way](high))


if __name__ == "__main__":
    main()
