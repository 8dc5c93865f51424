"""BFLOPs that go at a joint loss of 1, 2, 5 and 10 points, without any training: ours against simpler ways.

    python tools/bench_oneshot.py CFG WEIGHTS --data F [--choose N] [--calibrate N] [--ways NAME,..]

The first N images of the valid list choose; the loss is that of the other images, which chose nothing. Each way prunes
more and more, and is measured each time; printed is the largest share of BFLOPs whose loss, there and at every smaller
share, stays within the points. Every count of channels is allowed, as with `prune --multiple 1`.

ours             analysis with refitting, Lagrangian allocator as with `prune --ratio`, elimination order, joint refit
unrefitted       the same, only masked, in L1 order
uniform-l1       the same sparsity for every group, L1 order, only masked
uniform-scale    the same sparsity for every group, batch-norm scale, only masked
tp-magnitude     Torch-Pruning, GroupMagnitudeImportance, global_pruning=True
tp-taylor        Torch-Pruning, GroupTaylorImportance (Darknet's loss on the calibration images), global_pruning=True

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
from torch_pruning_twin import torch_pruning_mask

from yoloprune.choices import CALIBRATE
from yoloprune.darknet.data import Split, load_split, read_data
from yoloprune.darknet.dialect import ALEXEYAB
from yoloprune.darknet.model import Model, load
from yoloprune.detect.detection_measure import DetectionMeasure
from yoloprune.detect.load import fit_for
from yoloprune.detect.measure import network_for_measuring
from yoloprune.detect.pictures import Pictures
from yoloprune.options import AnalysisOptions
from yoloprune.prune.channel_units import ChannelUnits
from yoloprune.prune.cost import flops
from yoloprune.prune.group_evaluator import GroupEvaluator
from yoloprune.prune.lagrangian import LagrangianAllocator
from yoloprune.prune.limits import Limits
from yoloprune.prune.pruner import Pruner
from yoloprune.prune.search import analyse
from yoloprune.prune.sensitivity import TOLERANCES, Sensitivity, Setup

POINTS = (0.01, 0.02, 0.05, 0.10)
SHARES = (0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
"""Of BFLOPs, or of channels for ways that have no loss to choose by."""
Pruned = tuple[ChannelUnits, Model]
"""What is left of the units, and the model pruned to that."""


def main() -> None:
    """Prune in every way, print."""
    parser = arguments(__doc__, choose=36)
    parser.add_argument(
        "--calibrate", type=int, default=CALIBRATE, help="unmeasured images of the train list to refit on"
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
    choosing, fresh = divided(model, valid, args.choose)
    bench = Bench(model, choosing, train)
    original = fresh.accuracy(network_for_measuring(model))
    table = Table(title=f"share of BFLOPs off; {len(fresh.pictures)} images, mAP@0.50 {original:.4f}")
    for heading in ("way", *(f"{points:.0%}" for points in POINTS), "minutes"):
        table.add_column(heading, justify="right")
    for name in args.ways.split(","):
        started = time.monotonic()
        best = dict.fromkeys(POINTS, 0.0)
        holding = set(POINTS)
        for units, pruned in WAYS[name](bench):
            loss = original - fresh.accuracy(network_for_measuring(pruned))
            share = bench.removed(units)
            holding = {points for points in holding if loss <= points}
            best.update(dict.fromkeys(holding, share))
            print(f"{name}: {share:.1%} of BFLOPs off, loss {loss:.4f}", file=sys.stderr)
            if not holding:
                break
        minutes = (time.monotonic() - started) / 60
        table.add_row(name, *(f"{best[points]:.1%}" for points in POINTS), f"{minutes:.1f}")
    Console().print(table)


def arguments(doc: str | None, choose: int) -> argparse.ArgumentParser:
    """A network, its data, and how many images of the valid list choose."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cfg", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--choose", type=int, default=choose, help="images of the valid list that choose")
    return parser


def divided(model: Model, split: Split, choose: int) -> tuple[DetectionMeasure, DetectionMeasure]:
    """mAP@0.50 on the first images, which choose, and on the others."""
    return measure_of(model, part(split, range(choose))), measure_of(
        model, part(split, range(choose, len(split.images)))
    )


def part(split: Split, numbers: Sequence[int]) -> Split:
    """Some of a split's images."""
    return replace(
        split,
        images=tuple(split.images[number] for number in numbers),
        truths=tuple(split.truths[number] for number in numbers),
        difficult=tuple(split.difficult[number] for number in numbers),
    )


def measure_of(model: Model, split: Split) -> DetectionMeasure:
    """mAP@0.50 on these images."""
    return DetectionMeasure(model.graph, split, Pictures(split.images, model.graph, fit_for(model.graph, None)))


class Bench:
    """One network, and the ways to prune it."""

    def __init__(
        self, model: Model, choosing: DetectionMeasure, calibration: Split, folder: Path | None = None
    ) -> None:
        """folder: where analyses are kept."""
        self.model, self.choosing, self.calibration, self.folder = model, choosing, calibration, folder
        images = Pictures(calibration.images, model.graph, fit_for(model.graph, None))
        self.batches = [batch.inputs for batch in images]
        self.units = ChannelUnits.of(model.graph)
        self.refitted = Pruner(model, self.units, lambda: self.batches)
        self.plain = Pruner(model, self.units)
        self._allocators: dict[tuple[int, str], LagrangianAllocator] = {}

    def removed(self, units: ChannelUnits) -> float:
        """Share of BFLOPs that is gone."""
        return 1 - units.slim_graph().bflops / self.model.graph.bflops

    def masked(self, units: ChannelUnits) -> Pruned:
        """Pruned to that, nothing refitted."""
        return units, units.mask().apply(self.model)

    def allocator(self, pruner: Pruner, criterion: str) -> LagrangianAllocator:
        """By the analysis of every group alone, on the images that choose; made once for each way."""
        key = (id(pruner), criterion)
        if key not in self._allocators:
            analysed = self._analysis(pruner, criterion)
            costs = self.units.costs(flops(self.model.graph), analysed.orders)
            self._allocators[key] = LagrangianAllocator(analysed, Limits(), costs)
        return self._allocators[key]

    def _analysis(self, pruner: Pruner, criterion: str) -> Sensitivity:
        file = self.folder / f"analysis-{criterion}-{pruner is self.refitted}.json" if self.folder else None
        if file and file.exists():
            return Sensitivity.load(file)
        found = self.choosing.predictions(network_for_measuring(self.model))
        evaluator = GroupEvaluator(pruner, self.choosing, lambda: found)
        setup = Setup("", "", "", "alexeyab", False, "map50", len(self.choosing.pictures))
        options = AnalysisOptions(criterion=criterion, tolerances=TOLERANCES)
        curves = pruner.first_curves(criterion)
        start = Sensitivity(setup, options, evaluator.baseline, evaluator.baseline, curves)
        analysed = analyse(start, evaluator, lambda *_: None)
        if file:
            analysed.save(file)
        return analysed

    def allocated(self, pruner: Pruner, criterion: str, ratio: float) -> Pruned:
        """The least loss for that share of BFLOPs, as `prune --ratio` has it."""
        allocator = self.allocator(pruner, criterion)
        units, model = pruner.together(allocator.for_ratio(ratio), allocator.sensitivity.orders)
        assert isinstance(units, ChannelUnits)
        return units, model

    def uniform(self, criterion: str, sparsity: float) -> ChannelUnits:
        """The same share of every group goes."""
        orders = {group.label: self.plain.order(criterion, group) for group in self.plain.prunable}
        return self.units.without({label: order[: int(sparsity * len(order))] for label, order in orders.items()})

    def torch_pruning(self, importance: str, share: float) -> ChannelUnits:
        """What Torch-Pruning leaves at its own share of all channels."""
        keep = torch_pruning_mask(self.model, self.units.channels, share, importance, self._labelled())
        return replace(self.units, keep=keep)

    def _labelled(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The calibration images with what is on them; rows behind the last object have class -1."""
        rows = [torch.from_numpy(each) for each in self.calibration.truths]
        truths = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1.0)
        yield from zip(self.batches, torch.split(truths, [len(batch) for batch in self.batches]), strict=True)


WAYS: Final[Mapping[str, Callable[[Bench], Iterator[Pruned]]]] = {
    "ours": lambda bench: (bench.allocated(bench.refitted, "elimination", share) for share in SHARES),
    "unrefitted": lambda bench: (bench.allocated(bench.plain, "l1", share) for share in SHARES),
    "uniform-l1": lambda bench: (bench.masked(bench.uniform("l1", share)) for share in SHARES),
    "uniform-scale": lambda bench: (bench.masked(bench.uniform("bn-scale", share)) for share in SHARES),
    "tp-magnitude": lambda bench: (bench.masked(bench.torch_pruning("magnitude", share)) for share in SHARES),
    "tp-taylor": lambda bench: (bench.masked(bench.torch_pruning("taylor", share)) for share in SHARES),
}


if __name__ == "__main__":
    main()
