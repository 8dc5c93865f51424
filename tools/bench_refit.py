"""What refitting and the order are worth in joint pruning: accuracy with the same share of every group gone.

    python tools/bench_refit.py CFG WEIGHTS --data F [--choose N] [--shares 0.1,0.2]

The first N images of the valid list choose and are refitted on; accuracy is that on the other images.

masked      L1 order, only masked              recalibrated   the same, batch norm's statistics measured anew
refitted    L1 order, refitted                 eliminated     elimination order, refitted
enough E    as eliminated, with the least ridge that gains E of what the strong ones do (compensate.ENOUGH, 0.7)
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from unittest import mock

from bench_oneshot import arguments, divided
from rich.console import Console
from rich.table import Table

from yoloprune.choices import RECALIBRATE
from yoloprune.darknet.data import load_split, read_data
from yoloprune.darknet.dialect import ALEXEYAB
from yoloprune.darknet.model import Model, load
from yoloprune.detect.measure import network_for_measuring
from yoloprune.prune import compensate
from yoloprune.prune.channel_units import ChannelUnits
from yoloprune.prune.pruner import Pruner


def main() -> None:
    """Prune in every way, print."""
    parser = arguments(__doc__, choose=64)
    parser.add_argument("--shares", default="0.1,0.2", help="of every group")
    args = parser.parse_args()

    model = load(args.cfg, args.weights, ALEXEYAB)
    split = load_split(read_data(args.data), "valid", ALEXEYAB, classes=model.graph.classes)
    chosen, fresh = divided(model, split, args.choose)
    units = ChannelUnits.of(model.graph)
    batches = [batch.inputs for batch in chosen.pictures]
    masked = Pruner(model, units)
    recalibrated = Pruner(model, units, lambda: batches, RECALIBRATE)
    refitted = Pruner(model, units, lambda: batches)
    curves = cache(refitted.first_curves)  # ordering the channels takes longer than pruning

    def pruned(pruner: Pruner, criterion: str, share: float) -> Model:
        counts = {each.label: round(share * each.size) for each in curves(criterion)}
        return pruner.together(counts, {each.label: each.order for each in curves(criterion)})[1]

    def with_enough(enough: float, share: float) -> Model:
        with mock.patch.object(compensate, "ENOUGH", enough):
            return pruned(refitted, "elimination", share)

    ways: dict[str, Callable[[float], Model]] = {
        "masked": partial(pruned, masked, "l1"),
        "recalibrated": partial(pruned, recalibrated, "l1"),
        "refitted": partial(pruned, refitted, "l1"),
        "eliminated": partial(pruned, refitted, "elimination"),
        **{f"enough {enough:.1f}": partial(with_enough, enough) for enough in (1.0, 0.9, 0.5)},
    }
    shares = [float(share) for share in args.shares.split(",")]
    original = fresh.accuracy(network_for_measuring(model))
    table = Table(title=f"{len(fresh.pictures)} images, mAP@0.50 {original:.3f}")
    for heading in ("way", *(f"{share:.0%} gone" for share in shares)):
        table.add_column(heading, justify="right")
    for name, way in ways.items():
        table.add_row(name, *(f"{fresh.accuracy(network_for_measuring(way(share))):.3f}" for share in shares))
    Console().print(table)


if __name__ == "__main__":
    main()
