"""Real time of slim networks against BFLOPs cut, and what choosing by latency gains over choosing by BFLOPs.

    python tools/bench_latency.py CFG... [--reader opencv,darknet] [--workspace DIR] [--cuts 0.25,0.5,0.75]

Times need no trained weights: they are random. For each reader and cut:

- bflops: the share of the time that goes, measured, over the share of BFLOPs that goes. Chosen to remove that share of
  BFLOPs at the least loss.
- latency: chosen for the least time at the same loss, by times of single layers. What these predict stands beside what
  is measured.

Loss curves are those of a workspace that has been analysed (one CFG then), else made: each group loses a tenth of the
square of its sparsity. Networks take turns on one thread; of many runs of each the least counts, in seconds of the
processor, since what else the machine does only adds.
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
from yoloprune.prune.allocate import drop_useless_pruning
from yoloprune.prune.channels import Channels, KeepMask, trace
from yoloprune.prune.cost import Costs, flops
from yoloprune.prune.lagrangian import LagrangianAllocator
from yoloprune.prune.latency import Latency, Timings
from yoloprune.prune.limits import Limits
from yoloprune.prune.sensitivity import Curve, Point, Sensitivity, Setup
from yoloprune.prune.slim import slim
from yoloprune.readers import READERS
from yoloprune.workspace import Workspace


def main() -> None:
    """Choose, time, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cfg", type=Path, nargs="+")
    parser.add_argument("--reader", default="opencv,darknet")
    parser.add_argument("--workspace", type=Path, help="of the one CFG: its loss curves")
    parser.add_argument("--cuts", default="0.25,0.5,0.75", help="shares of BFLOPs to remove")
    parser.add_argument("--rounds", type=int, default=40, help="runs of each network")
    args = parser.parse_args()
    cuts = [float(cut) for cut in args.cuts.split(",")]
    for cfg in args.cfg:
        for reader in args.reader.split(","):
            Console(width=100).print(table_of(cfg, reader, args.workspace, cuts, args.rounds))


@dataclass(frozen=True)
class Cut:
    """A network that was chosen."""

    objective: str
    keep: KeepMask
    predicted: float
    """Seconds, by single layers."""


def table_of(cfg: Path, reader: str, workspace: Path | None, cuts: Sequence[float], rounds: int) -> Table:
    """One network in one reader."""
    graph = load_graph(cfg, ALEXEYAB)
    channels = trace(graph)
    sensitivity = curves_of(workspace) if workspace else made_curves(channels)
    with tempfile.TemporaryDirectory() as folder:

        def seconds(layers: Sequence[Graph]) -> list[float]:
            texts = [cfg_file.dump(each.cfg).decode("utf-8", "surrogateescape") for each in layers]
            return READERS[reader].layer_seconds(texts, [each.parameters for each in layers])

        latency = Latency(graph, channels, Timings(Path(folder) / "latency.json", reader, seconds))
    times = Costs(graph, channels, latency)
    operations = Costs(graph, channels, flops(graph))
    by_bflops, by_time = (LagrangianAllocator(sensitivity, channels, Limits(), costs) for costs in (operations, times))
    chosen = [Cut("original", channels.all_kept(), times.whole)]
    for share in cuts:
        plain = by_bflops.for_ratio(share)
        fast = drop_useless_pruning(sensitivity, channels, Limits(), times, by_time.at(by_bflops.loss(plain)))
        for objective, choice in (("bflops", plain), ("latency", fast)):
            keep = keep_mask(sensitivity, channels, choice)
            chosen.append(Cut(objective, keep, times.total(keep)))
    measured = race(reader, random_model(graph), channels, [each.keep for each in chosen], rounds)
    table = Table(title=f"{cfg.stem} in {reader}, {latency.step} filters at once")
    for heading in ("objective", "BFLOPs off", "predicted ms", "measured ms", "time off", "time off / BFLOPs off"):
        table.add_column(heading, justify="right")
    for each, time in zip(chosen, measured, strict=True):
        bflops, off = 1 - operations.total(each.keep) / operations.whole, 1 - time / measured[0]
        row = (each.objective, f"{bflops:.1%}", f"{each.predicted * 1e3:.2f}", f"{time * 1e3:.2f}")
        table.add_row(*row, f"{off:.1%}", f"{off / bflops:.2f}" if bflops else "")
    return table


def made_curves(channels: Channels) -> Sensitivity:
    """Each group loses a tenth of the square of its sparsity."""
    curves = []
    for group in channels.groups:
        units = len(group.units)
        counts = sorted({round(share * units) for share in (*GRID, 0.95)} - {0, units})
        points = tuple(Point(count, 1 - 0.1 * (count / units) ** 2) for count in counts)
        curves.append(Curve(group.producers, units, tuple(range(units)), 0, points))
    setup = Setup("", "", "", ALEXEYAB.name, False, "made", 0, "none", "none")
    return Sensitivity(setup, 1.0, 1.0, (), GRID, tuple(curve for curve in curves if curve.points))


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


def race(reader: str, model: Model, channels: Channels, keeps: Sequence[KeepMask], rounds: int) -> list[float]:
    """The least seconds of each slim network."""
    image = np.random.default_rng(0).random(model.graph.net.input, np.float32)
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for number, keep in enumerate(keeps):
            slimmed = slim(model, channels, keep)
            cfg, weights = Path(folder) / f"{number}.cfg", Path(folder) / f"{number}.weights"
            cfg_file.write(cfg, cfg_file.legal(slimmed.graph.cfg))
            weights_file.write(weights, slimmed.weights, slimmed.graph.layers)
            files.append((cfg, weights))
        return [min(each) for each in READERS[reader].race(files, image, rounds)]


if __name__ == "__main__":
    main()
