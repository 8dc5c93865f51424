"""Accuracy after cut and finetuning, the same budget for all: ours against simpler ways of choosing what goes.

    python tools/bench_finetuned.py CFG WEIGHTS --data F [--ratios 0.5,0.75] [--seeds 3] [--iterations 60]

Every way removes the same share of BFLOPs, is finetuned for as many updates by the same recipe, and is measured on the
valid list at the end (not at its best, so that no measurement chooses). Printed: mean and spread (half the range) over
the seeds, beside the accuracy right after the cut.

ours             analysis with refitting, groups trade as with `prune --ratio`, elimination order, joint refit
unrefitted       the same with plain cuts and L1 order
uniform-l1       the same sparsity for every group, L1 order, plain cut
uniform-scale    the same sparsity for every group, batch-norm scale, plain cut
tp-magnitude     Torch-Pruning, GroupMagnitudeImportance, global_pruning=True (needs `pip install yoloprune[bench]`)

The analysis looks at the first --choose pictures of the train list, so the valid list chooses nothing.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from bench_oneshot import Bench, measure_of
from rich.console import Console
from rich.table import Table
from torch_pruning_twin import torch_pruning_cut

from yoloprune.darknet.data import load_split, read_data
from yoloprune.darknet.dialect import ALEXEYAB
from yoloprune.darknet.model import Model, load
from yoloprune.darknet.network import build
from yoloprune.detect.load import load_measure
from yoloprune.detect.measure import network_for_measuring
from yoloprune.prune.channels import KeepMask
from yoloprune.prune.slim import free, slim_graph
from yoloprune.train.loop import train
from yoloprune.train.recipe import Recipe

WAYS = ("ours", "unrefitted", "uniform-l1", "uniform-scale", "tp-magnitude")


def main() -> None:
    """Cut in every way, finetune with every seed, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cfg", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--ratios", default="0.5,0.75", help="shares of BFLOPs to remove")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=60, help="updates of finetuning")
    parser.add_argument("--choose", type=int, default=64, help="pictures of the train list to choose and to refit on")
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
    table = Table(title=f"{len(measure.pictures)} pictures, mAP@0.50 {original:.4f}; {args.iterations} updates")
    for heading in ("way", "BFLOPs off", "cut", "finetuned", "spread", "minutes"):
        table.add_column(heading, justify="right")
    for ratio in map(float, args.ratios.split(",")):
        for way in args.ways.split(","):
            started = time.monotonic()
            keep, cut = cut_by(way, bench, ratio)
            share = 1 - slim_graph(model.graph, bench.channels, keep).bflops / model.graph.bflops
            before = measure.accuracy(network_for_measuring(cut))
            mask = free(model.graph, bench.channels, keep)
            finals = []
            for seed in range(args.seeds):
                with TemporaryDirectory() as folder:
                    last = train(cut, images, recipe, folder=Path(folder), seed=seed, mask=mask).last
                finals.append(measure.accuracy(build(cut.with_weights(last))))
            minutes = (time.monotonic() - started) / 60
            figures = f"{share:.1%}", f"{before:.4f}", f"{np.mean(finals):.4f}", f"{np.ptp(finals) / 2:.4f}"
            table.add_row(way, *figures, f"{minutes:.1f}")
    Console().print(table)


def cut_by(way: str, bench: Bench, ratio: float) -> tuple[KeepMask, Model]:
    """The way's cut that removes about `ratio` of the BFLOPs."""
    if way == "ours":
        return bench.traded(bench.refitted, "elimination", ratio)
    if way == "unrefitted":
        return bench.traded(bench.plain, "l1", ratio)
    by_share: dict[str, Callable[[float], KeepMask]] = {
        "uniform-l1": lambda share: bench.uniformly("l1", share),
        "uniform-scale": lambda share: bench.uniformly("bn-scale", share),
        "tp-magnitude": lambda share: torch_pruning_cut(bench.model, bench.channels, share, "magnitude"),
    }
    low, high = 0.0, 0.99
    for _ in range(10):  # the share of channels at which that share of BFLOPs goes
        middle = (low + high) / 2
        if 1 - slim_graph(bench.model.graph, bench.channels, by_share[way](middle)).bflops / bench.bflops < ratio:
            low = middle
        else:
            high = middle
    keep = by_share[way](high)
    return keep, bench.plain.together(keep)


if __name__ == "__main__":
    main()
