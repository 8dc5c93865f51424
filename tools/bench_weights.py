"""Accuracy with single weights, blocks or n of m gone, in one shot, without training.

    python tools/bench_weights.py CFG WEIGHTS --data F --choose 64 --shares 0.5,0.65 --patterns single,2:4,1x2

The first images of the valid list choose and calibrate, the others measure. Shares are of the weights that go, of all
layers but depthwise ones. Magnitude (Han et al. 2015) is the peer; batch norm measured anew helps it most.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from bench_oneshot import arguments, divided
from rich.console import Console
from rich.table import Table

from yoloprune.darknet.data import load_split, read_data
from yoloprune.darknet.dialect import ALEXEYAB
from yoloprune.darknet.model import Model, load
from yoloprune.detect.measure import Measure, network_for_measuring
from yoloprune.prune.channels import trace
from yoloprune.prune.patterns import Block, NofM, Pattern, Single
from yoloprune.prune.recalibrate import recalibrate
from yoloprune.prune.sparsify import ALLOCATIONS, sparsify, weights_of


def main() -> None:
    """Measure all and print a table."""
    parser = arguments(__doc__, choose=64)
    parser.add_argument("--shares", default="0.5,0.65,0.75", help="of the weights that go; patterns n:m have their own")
    parser.add_argument("--patterns", default="single,2:4", help="single, HEIGHTxWIDTH or N:M")
    parser.add_argument("--divide", default="lamp", help=f"among {', '.join(ALLOCATIONS)}")
    args = parser.parse_args()

    model = load(args.cfg, args.weights, ALEXEYAB)
    split = load_split(read_data(args.data), "valid", ALEXEYAB, classes=model.graph.classes)
    chosen, fresh = divided(model, split, args.choose)
    batches = [batch.inputs for batch in chosen.pictures]
    dense = fresh.accuracy(network_for_measuring(model))
    table = Table(title=f"{args.cfg.name}: {len(fresh.pictures)} images, dense {dense:.3f}")
    columns = (
        "pattern",
        "off",
        "divided by",
        "magnitude",
        "with new batch norm",
        "least squares",
        "with new batch norm",
    )
    for heading in (*columns, "s"):
        table.add_column(heading, justify="right")
    for name in args.patterns.split(","):
        pattern = pattern_of(name)
        shares = [1 - pattern.n / pattern.m] if isinstance(pattern, NofM) else map(float, args.shares.split(","))
        for share in shares:
            for way in ["uniform"] if isinstance(pattern, NofM) else args.divide.split(","):
                table.add_row(name, f"{share:.0%}", way, *row(model, pattern, way, share, batches, fresh))
    Console().print(table)


def row(
    model: Model, pattern: Pattern, way: str, share: float, batches: Sequence[torch.Tensor], fresh: Measure
) -> list[str]:
    """Accuracies, and seconds of the last."""
    kept = ALLOCATIONS[way](weights_of(model), 1 - share)
    channels = trace(model.graph)
    cells = []
    for images in ((), batches):
        started = time.perf_counter()
        sparse = sparsify(model, kept, pattern, images)
        seconds = time.perf_counter() - started
        again = recalibrate(model, sparse, channels, channels.all_kept(), batches)
        cells += [f"{fresh.accuracy(network_for_measuring(each)):.3f}" for each in (sparse, again)]
    return [*cells, f"{seconds:.1f}"]


def pattern_of(name: str) -> Pattern:
    """A pattern by what users call it."""
    if name == "single":
        return Single()
    first, second = map(int, name.replace("x", ":").split(":"))
    return NofM(first, second) if ":" in name else Block(first, second)


if __name__ == "__main__":
    main()
