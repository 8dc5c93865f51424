"""Accuracy and size with weights of few bits, dense and with zeros, without training.

    python tools/bench_bits.py CFG WEIGHTS --data F --shares 0,0.5,0.8 --bits 8,6,5,4 --grids uniform,kmeans

The first images of the valid list choose and calibrate, the others measure. Shares are of the weights that go, of all
layers but depthwise ones, divided by LAMP and refitted. `error` is that of the head inputs on images that chose
nothing, as a share of their variance. KB are those of the packed network (.ypz).

With --float16 each is also measured with biases and batch norm rounded to float16, at 2 bytes each. --layers also gives
each layer alone few bits, in turn, and prints those that lose most.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from bench_oneshot import arguments, divided
from bench_weights import left_units, weights_of
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch import Tensor

from yoloprune.darknet.data import load_split, read_data
from yoloprune.darknet.dialect import ALEXEYAB
from yoloprune.darknet.model import Model, load
from yoloprune.darknet.network import build
from yoloprune.detect.measure import Measure, network_for_measuring
from yoloprune.formats import ypz
from yoloprune.formats.layout import files_of
from yoloprune.prune.grids import GRIDS
from yoloprune.prune.patterns import Single
from yoloprune.prune.quantize import Quantization, quantizable_layers, quantize
from yoloprune.prune.sparsify import Sparsification, sparsify
from yoloprune.prune.weight_allocations import WEIGHT_ALLOCATIONS

HEADINGS = ("off", "bits", "grid", "rounding", "mAP@0.50", "error", "KB", "s")
WORST = 12


def main() -> None:
    """Measure all and print a table."""
    parser = arguments(__doc__, choose=64)
    parser.add_argument("--shares", default="0,0.5,0.8", help="of the weights that go")
    parser.add_argument("--bits", default="8,6,5,4", help="of a weight")
    parser.add_argument("--grids", default="uniform,kmeans", help=f"of {', '.join(GRIDS)}")
    parser.add_argument("--rounding", default="nearest,feedback", help="of these")
    parser.add_argument("--float16", action="store_true", help="biases and batch norm in float16, too")
    parser.add_argument("--layers", action="store_true", help="each layer alone, too")
    args = parser.parse_args()

    model = load(args.cfg, args.weights, ALEXEYAB)
    split = load_split(read_data(args.data), "valid", ALEXEYAB, classes=model.graph.classes)
    chosen, fresh = divided(model, split, args.choose)
    bench = Bench(model, [batch.inputs for batch in chosen.pictures], fresh)
    for share in map(float, args.shares.split(",")):
        table = Table(title=f"{args.cfg.name}: {len(fresh.pictures)} images, {share:.0%} of the weights off")
        for heading in HEADINGS:
            table.add_column(heading, justify="right")
        sparse = bench.sparse(share)
        add(table, f"{share:.0%}", "32", "-", "-", *bench.measured(sparse), "")
        for bits in map(int, args.bits.split(",")):
            for grid in args.grids.split(","):
                for rounding in args.rounding.split(","):
                    started = time.perf_counter()
                    how = Quantization(bits, grid, feedback=rounding == "feedback")
                    done, _ = quantize(sparse, how, bench.batches)
                    seconds = f"{time.perf_counter() - started:.0f}"
                    add(table, f"{share:.0%}", str(bits), grid, rounding, *bench.measured(done), seconds)
                    if args.float16:
                        half = with_half_floats(done)
                        add(table, "", "", "", "and float16", *bench.measured(half, halved=True), "")
        Console().print(table)
    if args.layers:
        Console().print(bench.layers([int(bits) for bits in args.bits.split(",")]))


def add(table: Table, *cells: str) -> None:
    """A row, told at once."""
    print(*cells, file=sys.stderr, flush=True)
    table.add_row(*cells)


@dataclass
class Bench:
    """A model, calibration images, and a measure on others."""

    model: Model
    batches: Sequence[Tensor]
    fresh: Measure

    def sparse(self, share: float) -> Model:
        """With a share of the weights gone."""
        if not share:
            return self.model
        left = left_units(self.model, Single(), WEIGHT_ALLOCATIONS["lamp"](weights_of(self.model), 1 - share))
        whole = {index: np.ones(array.shape, np.bool_) for index, array in weights_of(self.model).items()}
        return sparsify(self.model, left, whole, Sparsification(Single()), self.batches)[0]

    def measured(self, done: Model, *, halved: bool = False) -> list[str]:
        """Accuracy, error and size."""
        accuracy = self.fresh.accuracy(network_for_measuring(done))
        return [f"{accuracy:.3f}", f"{self.error(done):.5f}", f"{size(done, halved) / 1000:.0f}"]

    def error(self, done: Model) -> float:
        """Mean over the heads of the squared change of their inputs over their variance, on the measure's images."""
        at = self.model.graph.head_inputs
        before, after = build(self.model), build(done)
        change, square, total, count = (np.zeros(len(at)) for _ in range(4))
        with torch.inference_mode():
            for batch in self.fresh.pictures:
                old, new = before(batch.inputs, at), after(batch.inputs, at)
                for number, index in enumerate(at):
                    change[number] += float((old[index] - new[index]).double().square().sum())
                    square[number] += float(old[index].double().square().sum())
                    total[number] += float(old[index].double().sum())
                    count[number] += old[index].numel()
        return float((change / (square - total**2 / count)).mean())

    def layers(self, bits: Sequence[int]) -> Table:
        """What few bits in each layer alone cost."""
        table = Table(title="error with few bits in one layer alone, feedback")
        for heading in ("layer", "weights", *map(str, bits)):
            table.add_column(heading, justify="right")
        errors = {
            index: [self.error(quantize(self.model, Quantization({index: each}), self.batches)[0]) for each in bits]
            for index in quantizable_layers(self.model.graph)
        }
        for index in sorted(errors, key=lambda index: -errors[index][-1])[:WORST]:
            weights = self.model.weights.layers[index]["weight"].size
            table.add_row(
                escape(str(self.model.graph.layers[index])), str(weights), *(f"{e:.5f}" for e in errors[index])
            )
        return table


def with_half_floats(model: Model) -> Model:
    """Everything but the weights rounded to float16."""
    changed = {}
    for index in quantizable_layers(model.graph):
        arrays = model.weights.layers[index]
        changed[index] = {
            name: array if name == "weight" else array.astype(np.float16).astype(np.float32)
            for name, array in arrays.items()
        }
    return model.with_arrays(changed)


def size(model: Model, halved: bool) -> int:
    """Bytes of the packed network; halved: if all but weights took two bytes instead of four."""
    others = (array for arrays in model.weights.layers for name, array in arrays.items() if name != "weight")
    return len(ypz.dump(files_of(model))) - (2 * sum(array.size for array in others) if halved else 0)


if __name__ == "__main__":
    main()
