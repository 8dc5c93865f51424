"""Real time of slim networks against BFLOPs removed, and what allocating by latency gains over allocating by BFLOPs.

    python tools/bench_latency.py CFG... [--reader opencv,darknet] [--workspace DIR] [--ratios 0.25,0.5,0.75]

Times need no trained weights: they are random. For each reader and ratio:

- bflops: the share of the time that goes, measured, over the share of BFLOPs that goes. Allocated to remove that share
  of BFLOPs at the least loss.
- latency: allocated for the least time at the same loss, by times of single layers. What these predict stands beside
  what is measured.

Sensitivity curves are those of a workspace that has been analysed (one CFG then), else made up: each group loses a
tenth of the square of its sparsity. Networks take turns on one thread; of many runs of each the least counts, in
seconds of the processor, since what else the machine does only adds.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from yoloprune.choices import GRID
from yoloprune.darknet import cfg as cfg_file
from yoloprune.darknet import weights as weights_file
from yoloprune.darknet.dialect import ALEXEYAB
from yoloprune.darknet.model import Graph, Model, load_graph
from yoloprune.darknet.weights import Weights
from yoloprune.options import AnalysisOptions
from yoloprune.prune.allocate import drop_useless_pruning, removed_share
from yoloprune.prune.channel_units import ChannelUnits
from yoloprune.prune.cost import flops
from yoloprune.prune.lagrangian import LagrangianAllocator
from yoloprune.prune.latency import Latency, Timings
from yoloprune.prune.limits import Limits
from yoloprune.prune.sensitivity import Curve, Point, Sensitivity, Setup, grid_counts
from yoloprune.readers import READERS
from yoloprune.workspace import Workspace


def main() -> None:
    """Allocate, time, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cfg", type=Path, nargs="+")
    parser.add_argument("--reader", default="opencv,darknet")
    parser.add_argument("--workspace", type=Path, help="of the one CFG: its sensitivity curves")
    parser.add_argument("--ratios", default="0.25,0.5,0.75", help="shares of BFLOPs to remove")
    parser.add_argument("--rounds", type=int, default=40, help="runs of each network")
    args = parser.parse_args()
    ratios = [float(ratio) for ratio in args.ratios.split(",")]
    for cfg in args.cfg:
        for reader in args.reader.split(","):
            Console(width=100).print(table_of(cfg, reader, args.workspace, ratios, args.rounds))


@dataclass(frozen=True)
class Pruned:
    """What is left of the units by one objective."""

    objective: str
    units: ChannelUnits
    bflops_off: float
    """Share of the BFLOPs that is gone."""
    predicted: float
    """Seconds, by single layers."""


def table_of(cfg: Path, reader: str, workspace: Path | None, ratios: Sequence[float], rounds: int) -> Table:
    """One network in one reader."""
    graph = load_graph(cfg, ALEXEYAB)
    units = ChannelUnits.of(graph)
    sensitivity = curves_of(workspace) if workspace else made_curves(units)
    with tempfile.TemporaryDirectory() as folder:

        def seconds(layers: Sequence[Graph]) -> list[float]:
            texts = [cfg_file.dump(each.cfg).decode("utf-8", "surrogateescape") for each in layers]
            return READERS[reader].layer_seconds(texts, [each.parameters for each in layers])

        latency = Latency(graph, units.channels, Timings(Path(folder) / "latency.json", reader, seconds))
    operations, times = (units.costs(price, sensitivity.orders) for price in (flops(graph), latency))
    by_bflops, by_time = (LagrangianAllocator(sensitivity, Limits(), costs) for costs in (operations, times))
    networks = [Pruned("original", units, 0.0, times.whole)]
    for ratio in ratios:
        plain = by_bflops.for_ratio(ratio)
        fast = drop_useless_pruning(sensitivity, Limits(), times, by_time.at(by_bflops.loss(plain)))
        for objective, allocation in (("bflops", plain), ("latency", fast)):
            left = units.without({label: order[: allocation[label]] for label, order in sensitivity.orders.items()})
            off = removed_share(operations, allocation)
            networks.append(Pruned(objective, left, off, times.total(allocation)))
    measured = race(reader, random_model(graph), [each.units for each in networks], rounds)
    table = Table(title=f"{cfg.stem} in {reader}, {latency.step} filters at once")
    for heading in ("objective", "BFLOPs off", "predicted ms", "measured ms", "time off", "time off / BFLOPs off"):
        table.add_column(heading, justify="right")
    for each, time in zip(networks, measured, strict=True):
        share, off = each.bflops_off, 1 - time / measured[0]
        row = (each.objective, f"{share:.1%}", f"{each.predicted * 1e3:.2f}", f"{time * 1e3:.2f}")
        table.add_row(*row, f"{off:.1%}", f"{off / share:.2f}" if share else "")
    return table


def made_curves(units: ChannelUnits) -> Sensitivity:
    """Each group loses a tenth of the square of its sparsity."""
    curves = []
    for group in units.groups:
        curve = Curve(group.producers, group.size, tuple(range(group.size)), 0)
        counts = grid_counts(curve, (*GRID, 0.95))
        points = tuple(Point(count, 1 - 0.1 * (count / group.size) ** 2) for count in counts)
        curves.append(replace(curve, points=points))
    setup = Setup("", "", "", ALEXEYAB.name, False, "made", 0)
    options = AnalysisOptions(sparsities=GRID)
    return Sensitivity(setup, options, 1.0, 1.0, tuple(curve for curve in curves if curve.points))


def curves_of(folder: Path) -> Sensitivity:
    """Of a workspace's first round."""
    return Sensitivity.load(Workspace.load(folder).sensitivity_file(1))


def random_model(graph: Graph) -> Model:
    """Weights of a new network, variances 1."""
    start = weights_file.initial(graph.layers, seed=0)
    layers = tuple(
        {name: np.ones_like(array) if name == "variance" else array for name, array in arrays.items()}
        for arrays in start.layers
    )
    return Model(graph, Weights(replace(start.header), layers))


def race(reader: str, model: Model, networks: Sequence[ChannelUnits], rounds: int) -> list[float]:
    """The least seconds of the model slimmed to each."""
    image = np.random.default_rng(0).random(model.graph.net.input, np.float32)
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for number, units in enumerate(networks):
            slimmed = units.slim(model)
            cfg, weights = Path(folder) / f"{number}.cfg", Path(folder) / f"{number}.weights"
            cfg_file.write(cfg, cfg_file.legal(slimmed.graph.cfg))
            weights_file.write(weights, slimmed.weights, slimmed.graph.layers)
            files.append((cfg, weights))
        return [min(each) for each in READERS[reader].race(files, [image] * len(files), rounds)]


if __name__ == "__main__":
    main()
