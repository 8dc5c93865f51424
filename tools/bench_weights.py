"""Accuracy with single weights, blocks or n of m gone, in one shot, without training.

    python tools/bench_weights.py CFG WEIGHTS --data F --shares 0.5,0.65 --patterns single,2:4,1x2 \
        --criteria magnitude,wanda,sparsegpt,alps --allocations lamp,uniform

The first images of the valid list choose and calibrate, the others measure. Shares are of the weights that go, of all
layers but depthwise ones. Each criterion's choice is measured with the values that were there and with refitted ones,
each as it is and with batch norm recalibrated; seconds are of the pruning with a refit.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np
from bench_oneshot import arguments, divided
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch import Tensor

from yoloprune.darknet.data import load_split, read_data
from yoloprune.darknet.dialect import ALEXEYAB
from yoloprune.darknet.model import Model, load
from yoloprune.detect.measure import Measure, network_for_measuring
from yoloprune.prune.channels import trace
from yoloprune.prune.patterns import Block, NofM, Pattern, Single
from yoloprune.prune.recalibrate import recalibrate
from yoloprune.prune.sparse_fit import WEIGHT_CRITERIA
from yoloprune.prune.sparsify import Sparsification, sparse_layers, sparsify
from yoloprune.prune.weight_allocations import WEIGHT_ALLOCATIONS

HEADINGS = (
    *("pattern", "off", "allocation", "criterion"),
    *("as they were", "and batch norm", "refitted", "and batch norm", "s"),
)


def main() -> None:
    """Measure all and print a table."""
    parser = arguments(__doc__, choose=64)
    parser.add_argument("--shares", default="0.5,0.65,0.75", help="of the weights that go; patterns n:m have their own")
    parser.add_argument("--patterns", default="single,2:4", help="single, HEIGHTxWIDTH or N:M")
    parser.add_argument("--criteria", default="magnitude,alps", help=f"of {', '.join(WEIGHT_CRITERIA)}")
    parser.add_argument("--allocations", default="lamp", help=f"of {', '.join(WEIGHT_ALLOCATIONS)}; n:m is uniform")
    args = parser.parse_args()

    model = load(args.cfg, args.weights, ALEXEYAB)
    split = load_split(read_data(args.data), "valid", ALEXEYAB, classes=model.graph.classes)
    chosen, fresh = divided(model, split, args.choose)
    batches = [batch.inputs for batch in chosen.pictures]
    dense = fresh.accuracy(network_for_measuring(model))
    table = Table(title=f"{args.cfg.name}: {len(fresh.pictures)} images, dense {dense:.3f}")
    for heading in HEADINGS:
        table.add_column(heading, justify="right")
    for name in args.patterns.split(","):
        pattern = pattern_of(name)
        shares, allocations = [float(share) for share in args.shares.split(",")], args.allocations.split(",")
        if isinstance(pattern, NofM):
            shares, allocations = [1 - pattern.n / pattern.m], ["uniform"]
        for share in shares:
            for allocation in allocations:
                left = left_units(model, pattern, WEIGHT_ALLOCATIONS[allocation](weights_of(model), 1 - share))
                for criterion in args.criteria.split(","):
                    cells = row(model, left, pattern, criterion, batches, fresh)
                    table.add_row(name, f"{share:.0%}", allocation, criterion, *cells)
    Console().print(table)


def row(
    model: Model,
    left: Mapping[int, int],
    pattern: Pattern,
    criterion: str,
    batches: Sequence[Tensor],
    fresh: Measure,
) -> list[str]:
    """Accuracies, and seconds of the last."""
    whole = {index: np.ones(array.shape, np.bool_) for index, array in weights_of(model).items()}
    channels = trace(model.graph)
    cells = []
    for refit in (False, True):
        started = time.perf_counter()
        sparse, _ = sparsify(model, left, whole, Sparsification(pattern, criterion, refit), batches)
        seconds = time.perf_counter() - started
        again = recalibrate(model, sparse, channels, channels.all_kept(), batches)
        cells += [f"{fresh.accuracy(network_for_measuring(each)):.3f}" for each in (sparse, again)]
    return [*cells, f"{seconds:.1f}"]


def weights_of(model: Model) -> dict[int, NDArray[np.floating]]:
    """Of the layers whose weights can go."""
    return {index: model.weights.layers[index]["weight"] for index in sparse_layers(model.graph)}


def left_units(model: Model, pattern: Pattern, shares: Mapping[int, float]) -> dict[int, int]:
    """How many of the pattern's units stay in each layer, where these shares of their weights do."""
    known = sparse_layers(model.graph)
    left = {}
    for index, array in weights_of(model).items():
        groups = known[index].groups
        left[index] = round(shares[index] * pattern.size(groups, len(array) // groups, known[index].columns))
    return left


def pattern_of(name: str) -> Pattern:
    """A pattern by what users call it."""
    if name == "single":
        return Single()
    first, second = map(int, name.replace("x", ":").split(":"))
    return NofM(first, second) if ":" in name else Block(first, second)


if __name__ == "__main__":
    main()
