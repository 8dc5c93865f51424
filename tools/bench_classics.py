"""The detectors' tables of the papers: BFLOPs off against mAP after the same short training, for every way of pruning.

    python tools/bench_classics.py CFG WEIGHTS --data F -o DIR [--ratios 0.5,0.75,0.85] [--seeds 3] [--updates 60]
        [--ways NAME,..] [--sparse-updates 600] [--bn-l1 0.02] [--reg 0.005]
    python tools/make_shapes.py --out shapes --train 400 --valid 100         # the drawn set, for cfg/shapes.cfg

Each piece (a way, a ratio, a seed) is a JSON file in DIR: a run that was ended goes on, and others may add seeds, ways
and ratios. Printed, in Markdown, is what DIR holds for this network and this number of updates: mean and half the range
of the mAP over the seeds, and for each way the largest ratio that lost at most one point, as did all smaller ones.

All updates count, those between two steps of pruning too. What is measured is the slim network at the end of its
training, on the valid list, which chose nothing: analyses and choices are on the first --choose images of the train
list.

ours               analysis with refitting, Lagrangian allocator (`prune --ratio`), elimination order, joint refit
ours-iterative     the same in three steps of equal factors, an eighth of the updates after each of the first two
ours-distill       as ours-iterative; the unpruned network teaches, too (`finetune --distill`)
thinet             ThiNet layer by layer as `run --layer-by-layer`; half of the updates between the groups
thinet-epochs      the same with a whole epoch after each group: many more updates than all others have
uniform-l1         the same sparsity for every group, L1 order, only masked (Li et al. 2017)
slimming           `train --bn-l1` for --sparse-updates, then one scale of batch norm for all layers (Liu et al. 2017)
tp-magnitude       Torch-Pruning 1.6.1, GroupMagnitudeImportance, global_pruning=True
tp-taylor          the same with GroupTaylorImportance (Darknet's loss on the images that choose)
tp-group-norm      the same with GroupNormPruner: its own sparsity training for --sparse-updates, then group norms

The last three need `pip install yoloprune[bench]`. The paper's L1 of 1e-4 is for tens of thousands of updates; over so
few, scales hardly move by it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import torch
from bench_oneshot import Bench, Pruned, arguments, measure_of, part
from torch_pruning_twin import sparse_learning, torch_pruning_mask

from yoloprune.artefacts import sha256
from yoloprune.darknet import weights as weights_file
from yoloprune.darknet.data import Split, load_split, read_data
from yoloprune.darknet.dialect import ALEXEYAB
from yoloprune.darknet.model import Model, load
from yoloprune.darknet.network import build
from yoloprune.detect.detection_measure import DetectionMeasure
from yoloprune.errors import InputError
from yoloprune.options import UnitOptions
from yoloprune.prune.allocate import removed_share
from yoloprune.prune.channel_units import ChannelUnits
from yoloprune.prune.cost import flops
from yoloprune.prune.granularity import Allocation, Selection
from yoloprune.prune.layer_by_layer import counts_for_ratio, inner_groups
from yoloprune.prune.limits import Limits
from yoloprune.prune.prescribed import globally_by_scale
from yoloprune.prune.pruner import Pruner
from yoloprune.train.loop import Resources, train
from yoloprune.train.masks import UNMASKED, Masks
from yoloprune.train.recipe import Recipe
from yoloprune.train.supervision import LABELS, Supervision

STEPS: Final = 3
"""Of iterative pruning."""
PLACES: Final = 10
"""Outputs of an image, of ThiNet's sample."""
BISECTIONS: Final = 10


@dataclass(frozen=True)
class Budget:
    """How long is trained."""

    updates: int
    """Between and behind all pruning."""
    sparse: int
    """Before it, where scales or norms are first made small."""
    bn_l1: float
    reg: float


class Classics:
    """One network, its images, and every way to prune and train it."""

    def __init__(self, model: Model, images: Split, choose: int, budget: Budget, folder: Path) -> None:
        self.model, self.images, self.budget, self.folder = model, images, budget, folder
        choosing = part(images, range(choose))
        self.bench = Bench(model, measure_of(model, choosing), choosing, folder / "analyses")
        self._fixed: dict[tuple[str, float], Pruned] = {}
        self._sparse: dict[str, Model] = {}

    def trained(
        self, pruned: Pruned, updates: int, seed: int, supervision: Supervision = LABELS, **recipe: Any
    ) -> Model:
        """After so many updates with the mask held."""
        units, model = pruned
        how = replace(Recipe.for_finetuning(model.graph, updates), **recipe)
        masks = UNMASKED if units.keep.all() else Masks(units.mask())
        with TemporaryDirectory() as folder:
            where: Any = {"folder": Path(folder), "resources": Resources(workers=0)}
            found = train(model, self.images, how, seed=seed, masks=masks, supervision=supervision, **where)
        return model.with_weights(found.last)

    def fixed(self, way: str, ratio: float) -> Pruned:
        """Of ways that train nothing between, the same for all seeds."""
        if (way, ratio) not in self._fixed:
            self._fixed[way, ratio] = FIXED[way](self, ratio)
        return self._fixed[way, ratio]

    def beyond(self, before: Allocation, ratio: float) -> Allocation:
        """About the least that our allocator prunes on top of `before` for that share of BFLOPs."""
        allocator = self.bench.allocator(self.bench.refitted, "elimination")
        low, high, found = 0.0, ratio, allocator.for_ratio(ratio)
        found = {label: max(count, before.get(label, 0)) for label, count in found.items()}
        for _ in range(BISECTIONS if before else 0):  # it doesn't grow group by group, so both are more than needed
            middle = (low + high) / 2
            counts = {label: max(n, before[label]) for label, n in allocator.for_ratio(middle).items()}
            if removed_share(allocator.costs, counts) < ratio:
                low = middle
            else:
                high, found = middle, counts
        return found

    def at_ratio(self, by_share: Callable[[float], ChannelUnits], model: Model, ratio: float) -> Pruned:
        """By the share of channels at which that share of BFLOPs goes, only masked."""
        low, high = 0.0, 0.995
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            if self.bench.removed(by_share(middle)) < ratio:
                low = middle
            else:
                high = middle
        units = by_share(high)
        if self.bench.removed(units) < ratio:
            raise InputError(f"so much can't go: {self.bench.removed(units):.3f}")
        return units, units.mask().apply(model)

    def globally(self, share: float) -> ChannelUnits:
        """Network slimming's choice at a share of all channels."""
        model = self.sparse("slimming")
        curves = Pruner(model, self.bench.units).first_curves("bn-scale")
        counts = globally_by_scale(self.bench.units, model, curves, Limits(), share)
        orders = {curve.label: curve.order for curve in curves}
        return self.bench.units.rechosen(counts, orders, model.weights)

    def by_norm(self, share: float) -> ChannelUnits:
        """Torch-Pruning's choice by group norms, after its sparsity training."""
        keep = torch_pruning_mask(self.sparse("tp-group-norm"), self.bench.units.channels, share, "magnitude")
        return replace(self.bench.units, keep=keep)

    def sparse(self, way: str) -> Model:
        """After sparsity training; kept in a file."""
        budget = self.budget
        strength = budget.bn_l1 if way == "slimming" else budget.reg
        file = self.folder / f"{way}-{budget.sparse}-{strength:g}.weights"
        layers = self.model.graph.layers
        if not file.exists():
            recipe = Recipe.for_finetuning(self.model.graph, budget.sparse)
            if way == "slimming":
                made = self.trained((self.bench.units, self.model), budget.sparse, 0, bn_l1=strength)
            else:
                made = sparse_learning(self.model, self.bench.units.channels, self.images, recipe, reg=strength)
            weights_file.write(file, made.weights, layers)
        if way not in self._sparse:
            self._sparse[way] = Model(self.model.graph, weights_file.read(file, layers))
        return self._sparse[way]


def iteratively(classics: Classics, ratio: float, seed: int, *, distill: bool = False) -> tuple[Pruned, int]:
    """By the curves of the first analysis, refitted to the network as trained so far; updates that are done."""
    bench, updates = classics.bench, classics.budget.updates // 8
    allocator = bench.allocator(bench.refitted, "elimination")
    units, model = bench.units, classics.model
    supervision = Supervision(classics.model, labels=True) if distill else LABELS
    counts: Allocation = {}
    for step in range(1, STEPS + 1):
        counts = classics.beyond(counts, 1 - (1 - ratio) ** (step / STEPS))
        found, model = Pruner(model, units, lambda: bench.batches).together(counts, allocator.sensitivity.orders)
        assert isinstance(found, ChannelUnits)
        units = found
        if step < STEPS:
            model = classics.trained((units, model), updates, seed + 1000 * step, supervision)
    return (units, model), (STEPS - 1) * updates


def layer_by_layer(classics: Classics, ratio: float, seed: int, *, epochs: bool = False) -> tuple[Pruned, int]:
    """ThiNet as `run --layer-by-layer --criterion thinet`; updates that are done, with `epochs` none that count."""
    bench, model, units = classics.bench, classics.model, classics.bench.units
    orders = {group.label: range(group.size) for group in units.groups}
    groups = inner_groups(model.graph, units.channels)
    counts = counts_for_ratio(groups, Limits(), units.costs(flops(model.graph), orders), ratio)
    each = max(classics.budget.updates // 2 // len(counts), 1)
    if epochs:
        each = -(-len(classics.images.images) // Recipe.for_finetuning(model.graph, 1).images)
    for number, (label, count) in enumerate(counts.items()):
        group = units.channels.group(label)
        seen = replace(
            units.statistics(model, bench.batches, "cpu"),
            layers=frozenset(units.changed(group)), places=PLACES, seed=seed,
        )  # fmt: skip
        selection = Selection({label: count}, {label: units.rank(group, "thinet", seen)}, "thinet", "scale")
        model = units.prune_group(model, selection, seen, "cpu")
        units = units.rechosen(selection.counts, selection.orders, model.weights)
        if number + 1 < len(counts):
            model = classics.trained((units, model), each, seed + 1000 * number)
    return (units, model), 0 if epochs else each * (len(counts) - 1)


FIXED: Final[Mapping[str, Callable[[Classics, float], Pruned]]] = {
    "ours": lambda classics, ratio: classics.bench.allocated(classics.bench.refitted, "elimination", ratio),
    "uniform-l1": lambda classics, ratio: classics.at_ratio(
        lambda share: classics.bench.uniform("l1", share), classics.model, ratio
    ),
    "slimming": lambda classics, ratio: classics.at_ratio(classics.globally, classics.sparse("slimming"), ratio),
    "tp-magnitude": lambda classics, ratio: classics.at_ratio(
        lambda share: classics.bench.torch_pruning("magnitude", share), classics.model, ratio
    ),
    "tp-taylor": lambda classics, ratio: classics.at_ratio(
        lambda share: classics.bench.torch_pruning("taylor", share), classics.model, ratio
    ),
    "tp-group-norm": lambda classics, ratio: classics.at_ratio(
        classics.by_norm, classics.sparse("tp-group-norm"), ratio
    ),
}
SEEDED: Final[Mapping[str, Callable[[Classics, float, int], tuple[Pruned, int]]]] = {
    "ours-iterative": iteratively,
    "ours-distill": lambda classics, ratio, seed: iteratively(classics, ratio, seed, distill=True),
    "thinet": layer_by_layer,
    "thinet-epochs": lambda classics, ratio, seed: layer_by_layer(classics, ratio, seed, epochs=True),
}
WAYS: Final = ("ours", "ours-iterative", "ours-distill", "thinet", "thinet-epochs", *list(FIXED)[1:])


def piece(classics: Classics, measure: DetectionMeasure, way: str, ratio: float, seed: int) -> dict[str, Any]:
    """A way, a ratio and a seed."""
    started = time.monotonic()
    if way in FIXED:
        (units, model), done = classics.fixed(way, ratio), 0
    else:
        (units, model), done = SEEDED[way](classics, ratio, seed)
    pruned = measure.accuracy(build(model))
    left = classics.budget.updates - done
    if way == "ours-distill":  # features of the layers as they were are compared: not slim yet
        model = classics.trained((units, model), left, seed, Supervision(classics.model, labels=True))
        finished = units.slim(model)
    else:  # slim networks compute the same in less time
        slim = units.slim(model)
        finished = classics.trained((ChannelUnits.of(slim.graph, UnitOptions("channel")), slim), left, seed)
    return {
        "way": way,
        "ratio": ratio,
        "seed": seed,
        "updates": classics.budget.updates,
        "off": 1 - finished.graph.bflops / classics.model.graph.bflops,
        "pruned": pruned,
        "finetuned": measure.accuracy(build(finished)),
        "minutes": (time.monotonic() - started) / 60,
    }


def markdown(pieces: list[dict[str, Any]], original: float, updates: int) -> str:
    """The table, and for each way the largest ratio within a point."""
    ratios = sorted({each["ratio"] for each in pieces})
    listed = " | ".join(f"{ratio:.0%}" for ratio in ratios)
    lines = [f"mAP@0.50 {original:.4f} before; {updates} updates", ""]
    lines += [f"| way | {listed} | within a point |", f"|---|{'---|' * len(ratios)}---|"]
    for way in WAYS:
        cells, best, holds = [], 0.0, True
        for ratio in ratios:
            found = [each["finetuned"] for each in pieces if (each["way"], each["ratio"]) == (way, ratio)]
            known = [value for value in found if value is not None]
            if not known:
                cells.append("can't" if found else "")
                continue
            cells.append(f"{np.mean(known):.4f} ± {np.ptp(known) / 2:.4f} ({len(known)})")
            holds = holds and original - float(np.mean(known)) <= 0.01
            best = ratio if holds else best
        if any(cells):
            lines.append(f"| {way} | {' | '.join(cells)} | {best:.0%} |")
    return "\n".join(lines)


def main() -> None:
    """Every piece that isn't there yet; then the table."""
    parser = arguments(__doc__, choose=64)
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder of the pieces")
    parser.add_argument("--ratios", default="0.5,0.75,0.85", help="shares of BFLOPs to remove")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--updates", type=int, default=60)
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--sparse-updates", type=int, default=600)
    parser.add_argument("--bn-l1", type=float, default=0.02)
    parser.add_argument("--reg", type=float, default=0.005, help="of tp-group-norm")
    args = parser.parse_args()

    model = load(args.cfg, args.weights, ALEXEYAB)
    folder = args.out / sha256(args.weights)[:8]
    folder.mkdir(parents=True, exist_ok=True)
    data = read_data(args.data)
    images = load_split(data, "train", ALEXEYAB, classes=model.graph.classes)
    measure = measure_of(model, load_split(data, "valid", ALEXEYAB, classes=model.graph.classes))
    budget = Budget(args.updates, args.sparse_updates, args.bn_l1, args.reg)
    classics = Classics(model, images, args.choose, budget, folder)
    for seed in range(args.seeds):
        for ratio in map(float, args.ratios.split(",")):
            for way in args.ways.split(","):
                file = folder / f"{way}-{ratio:g}-{seed}-{args.updates}.json"
                if file.exists():
                    continue
                try:
                    found = piece(classics, measure, way, ratio, seed)
                except InputError as error:  # so much can't go by this way
                    found = {"way": way, "ratio": ratio, "seed": seed, "updates": args.updates, "finetuned": None}
                    print(f"{way} {ratio}: {error}", file=sys.stderr)
                file.with_suffix(".tmp").write_text(json.dumps(found, indent=1))
                file.with_suffix(".tmp").replace(file)
                print(json.dumps(found), file=sys.stderr)
    pieces = [json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))]
    pieces = [each for each in pieces if each["updates"] == args.updates]
    print(markdown(pieces, measure.accuracy(build(model)), args.updates))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
