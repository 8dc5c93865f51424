"""BFLOPs that go at a joint loss of 1, 2, 5 and 10 points, without any training: ours against simpler ways.

    python tools/bench_oneshot.py CFG WEIGHTS --data F [--choose N] [--calibrate N] [--ways NAME,..]

The first N pictures of the valid list choose; the loss is that of the other pictures, which chose nothing. For each way
cuts of growing size are made and measured; printed is the largest share of BFLOPs whose loss, there and at every
smaller cut, stays within the points. Every count of channels is allowed, as with `prune --multiple 1`.

ours             analysis with refitting, groups trade as with `prune --ratio`, elimination order, joint refit
unrefitted       the same with plain cuts and L1 order
uniform-l1       the same sparsity for every group, L1 order, plain cut
uniform-scale    the same sparsity for every group, batch-norm scale, plain cut
tp-magnitude     Torch-Pruning, GroupMagnitudeImportance, global_pruning=True
tp-taylor        Torch-Pruning, GroupTaylorImportance (Darknet's loss on the calibration pictures), global_pruning=True

The last two need `pip install yoloprune[bench]`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch_pruning_twin import torch_pruning_cut

from yoloprune.darknet.data import Split, load_split, read_data
from yoloprune.darknet.dialect import ALEXEYAB
from yoloprune.darknet.model import Model, load
from yoloprune.detect.detection_measure import DetectionMeasure
from yoloprune.detect.load import fit_for
from yoloprune.detect.measure import network_for_measuring
from yoloprune.detect.pictures import Pictures
from yoloprune.prune.channels import KeepMask, trace
from yoloprune.prune.cost import Costs, flops
from yoloprune.prune.group_evaluator import GroupEvaluator
from yoloprune.prune.lagrangian import LagrangianAllocator
from yoloprune.prune.limits import Limits
from yoloprune.prune.pruner import Pruner
from yoloprune.prune.search import analyse
from yoloprune.prune.sensitivity import TOLERANCES, Sensitivity, Setup
from yoloprune.prune.slim import slim_graph

POINTS = (0.01, 0.02, 0.05, 0.10)
SHARES = (0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
"""Of BFLOPs, or of channels for ways that have no loss to choose by."""


def main() -> None:
    """Cut in every way, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cfg", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--choose", type=int, default=36, help="pictures of the valid list that choose")
    parser.add_argument(
        "--calibrate", type=int, default=64, help="pictures of the train list to refit on, none measured"
    )
    parser.add_argument("--ways", default=",".join(WAYS), help="which, in this order")
    args = parser.parse_args()

    model = load(args.cfg, args.weights, ALEXEYAB)
    data = read_data(args.data)
    valid = load_split(data, "valid", ALEXEYAB, classes=model.graph.classes)
    train = load_split(data, "train", ALEXEYAB, classes=model.graph.classes)
    measured = set(valid.images[args.choose :])
    unseen = [number for number, image in enumerate(train.images) if image not in measured]
    train = part(train, unseen[: args.calibrate])
    choosing, fresh = (
        measure_of(model, part(valid, numbers))
        for numbers in (range(args.choose), range(args.choose, len(valid.images)))
    )
    bench = Bench(model, choosing, train)
    original = fresh.accuracy(network_for_measuring(model))
    table = Table(title=f"share of BFLOPs off; {len(fresh.pictures)} pictures, mAP@0.50 {original:.4f}")
    for heading in ("way", *(f"{points:.0%}" for points in POINTS), "minutes"):
        table.add_column(heading, justify="right")
    for name in args.ways.split(","):
        started = time.monotonic()
        best = dict.fromkeys(POINTS, 0.0)
        holding = set(POINTS)
        for keep, cut in WAYS[name](bench):
            loss = original - fresh.accuracy(network_for_measuring(cut))
            share = 1 - slim_graph(model.graph, bench.channels, keep).bflops / model.graph.bflops
            holding = {points for points in holding if loss <= points}
            best.update(dict.fromkeys(holding, share))
            print(f"{name}: {share:.1%} of BFLOPs off, loss {loss:.4f}", file=sys.stderr)
            if not holding:
                break
        minutes = (time.monotonic() - started) / 60
        table.add_row(name, *(f"{best[points]:.1%}" for points in POINTS), f"{minutes:.1f}")
    Console().print(table)


def part(split: Split, numbers: Sequence[int]) -> Split:
    """Some of a split's pictures."""
    return replace(
        split,
        images=tuple(split.images[number] for number in numbers),
        truths=tuple(split.truths[number] for number in numbers),
        difficult=tuple(split.difficult[number] for number in numbers),
    )


def measure_of(model: Model, split: Split) -> DetectionMeasure:
    """mAP@0.50 on these pictures."""
    return DetectionMeasure(model.graph, split, Pictures(split.images, model.graph, fit_for(model.graph, None)))


class Bench:
    """One network and the cuts of it."""

    def __init__(self, model: Model, choosing: DetectionMeasure, calibration: Split) -> None:
        self.model, self.choosing, self.calibration = model, choosing, calibration
        pictures = Pictures(calibration.images, model.graph, fit_for(model.graph, None))
        self.batches = [batch.inputs for batch in pictures]
        self.channels = trace(model.graph)
        keep = self.channels.all_kept()
        self.refitted = Pruner(model, self.channels, keep, lambda: self.batches)
        self.plain = Pruner(model, self.channels, keep)
        self._markets: dict[tuple[int, str], LagrangianAllocator] = {}

    @property
    def bflops(self) -> float:
        """Of the whole network."""
        return self.model.graph.bflops

    def market(self, pruner: Pruner, criterion: str) -> LagrangianAllocator:
        """Every group alone analysed, on the pictures that choose; once for each way."""
        key = (id(pruner), criterion)
        if key not in self._markets:
            found = self.choosing.predictions(network_for_measuring(self.model))
            trials = GroupEvaluator(pruner, self.choosing, lambda: found)
            setup = Setup("", "", "", "alexeyab", False, "map50", len(self.choosing.pictures), criterion, "")
            curves = pruner.first_curves(criterion)
            start = Sensitivity(setup, trials.baseline, trials.baseline, TOLERANCES, (), curves)
            costs = Costs(self.model.graph, self.channels, flops(self.model.graph))
            analysed = analyse(start, trials, lambda *_: None)
            self._markets[key] = LagrangianAllocator(analysed, self.channels, Limits(), costs)
        return self._markets[key]

    def traded(self, pruner: Pruner, criterion: str, ratio: float) -> tuple[KeepMask, Model]:
        """The joint cut for which groups trade loss against BFLOPs, as `prune --ratio` has it."""
        market = self.market(pruner, criterion)
        keep = keep_mask(market.sensitivity, self.channels, market.for_ratio(ratio))
        return keep, pruner.together(keep)

    def uniformly(self, criterion: str, sparsity: float) -> KeepMask:
        """The same share of every group goes."""
        keep = self.channels.all_kept()
        for group in self.channels.groups:
            if len(group.units) > 1:
                order = self.plain.order(criterion, group)
                keep[group.units[list(order[: int(sparsity * len(order))])]] = False
        return keep

    def uniform(self, criterion: str) -> Iterator[tuple[KeepMask, Model]]:
        """At growing shares."""
        for share in SHARES:
            keep = self.uniformly(criterion, share)
            yield keep, self.plain.together(keep)

    def torch_pruning(self, importance: str) -> Iterator[tuple[KeepMask, Model]]:
        """Its own share of all channels."""
        for share in SHARES:
            keep = torch_pruning_cut(self.model, self.channels, share, importance, self._labelled())
            yield keep, self.plain.together(keep)

    def _labelled(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The calibration pictures with what is on them; rows behind the last object have class -1."""
        rows = [torch.from_numpy(each) for each in self.calibration.truths]
        truths = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1.0)
        yield from zip(self.batches, torch.split(truths, [len(batch) for batch in self.batches]), strict=True)


WAYS: Final[Mapping[str, Callable[[Bench], Iterator[tuple[KeepMask, Model]]]]] = {
    "ours": lambda bench: (bench.traded(bench.refitted, "elimination", share) for share in SHARES),
    "unrefitted": lambda bench: (bench.traded(bench.plain, "l1", share) for share in SHARES),
    "uniform-l1": lambda bench: bench.uniform("l1"),
    "uniform-scale": lambda bench: bench.uniform("bn-scale"),
    "tp-magnitude": lambda bench: bench.torch_pruning("magnitude"),
    "tp-taylor": lambda bench: bench.torch_pruning("taylor"),
}


if __name__ == "__main__":
    main()
