"""Whether refitted weights survive training: largest weights, what batch statistics change, accuracy after finetuning.

    python tools/bench_survival.py CFG WEIGHTS --data F [--iterations N] [--device D]

For each target of `prune` the network is pruned in two ways, each by an analysis of its own:

unguarded    least squares alone: inputs don't count as noisy, and statistics aren't restated
guarded      as `prune` does it, then `finetune` by default

Printed: the largest |weight| of any layer over its largest before pruning; by how much of its variance a head input
changes when batches of 8 calibration images are normalized by their own statistics instead of the running ones (the
worst head); accuracy before and after training, its least on the way, and whether all weights are numbers.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final
from unittest import mock

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from yoloprune.api import ana, prune
from yoloprune.darknet import weights as weights_file
from yoloprune.darknet.model import Model
from yoloprune.darknet.network import Network
from yoloprune.errors import NothingGoesError
from yoloprune.options import AnalysisOptions, FinetuneOptions
from yoloprune.progress import Progress
from yoloprune.prune import channel_units, compensate
from yoloprune.steps.finetune import finetune
from yoloprune.steps.job import open_job

TARGETS: Final[Sequence[Mapping[str, float]]] = (
    {"threshold": 0.01},
    {"total_loss": 0.02},
    {"ratio": 0.05},
    {"ratio": 0.2},
    {"ratio": 0.5},
)
BATCH: Final = 8
NOTHING_GOES: Final = ("nothing goes", "", "")


def main() -> None:
    """Prune, measure, train, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cfg", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--iterations", type=int, default=60)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as unguarded:
        guarded, alone = (Path(folder) / name for name in ("guarded", "unguarded"))
        ana(args.cfg, args.weights, args.data, workspace=guarded, device=args.device)
        unguarded.enter_context(mock.patch.object(compensate, "NOISE", 0.0))
        unguarded.enter_context(mock.patch.object(channel_units, "restate", lambda model, pruned, *_, **__: pruned))
        ana(args.cfg, args.weights, args.data, workspace=alone, device=args.device)
        rows = [_pruned(alone, target, args.device) for target in TARGETS]
        unguarded.close()
        accuracy = open_job(guarded).original.accuracy
        table = Table(title=f"{args.cfg.stem}, {accuracy:.4f} before pruning, {args.iterations} iterations")
        headings = ("unguarded", "largest weight", "statistics", "guarded", "largest weight", "statistics")
        for heading in ("target", *headings, "best", "least", "last", "numbers"):
            table.add_column(heading, justify="right")
        for target, before in zip(TARGETS, rows, strict=True):
            name = " ".join(f"{key} {value:g}" for key, value in target.items())
            after = _pruned(guarded, target, args.device)
            trained = _trained(guarded, args.iterations, args.device) if after else ("",) * 4
            table.add_row(name, *(before or NOTHING_GOES), *(after or NOTHING_GOES), *trained)
            print(f"{name} done", file=sys.stderr)
        Console(width=160).print(table)


def _pruned(workspace: Path, target: Mapping[str, float], device: str) -> tuple[str, str, str] | None:
    """Accuracy, largest weight and change by batch statistics after the first round; None if nothing goes."""
    options: Any = target
    try:
        done = prune(**options, multiple=1, workspace=workspace, device=device, force=True)
    except NothingGoesError:
        return None
    job = open_job(workspace, device)
    batches = job.inputs.calibration_batches(AnalysisOptions().calibrate)
    grown = max(
        float(np.abs(after["weight"]).max() / np.abs(before["weight"]).max())
        for before, after in zip(job.inputs.original.weights.layers, job.model.weights.layers, strict=True)
        if "weight" in before
    )
    return f"{done.after.accuracy:.4f}", f"{grown:.1f}", f"{_changed(job.model, batches, device):.2f}"


def _changed(model: Model, batches: Sequence[Tensor], device: str) -> float:
    network = Network(model.graph)
    network.set_weights(model.weights)
    network.to(device)
    heads = sorted(set(model.graph.head_inputs))
    every = torch.cat(list(batches))
    outputs: list[list[list[Tensor]]] = []
    for training in (False, True):
        network.train(training)
        with torch.no_grad():
            made = [network(part.to(device), heads) for part in torch.split(every, BATCH) if len(part) == BATCH]
        outputs.append([[each[head].double() for each in made] for head in heads])
    shares = []
    for running, batch in zip(*outputs, strict=True):
        a, b = torch.cat(running), torch.cat(batch)
        spread = (a - a.mean((0, 2, 3), keepdim=True)).square().sum()
        shares.append(float((b - a).square().sum() / spread))
    return max(shares)


def _trained(workspace: Path, iterations: int, device: str) -> tuple[str, ...]:
    """Best, least and last accuracy on the way, and whether the written weights are numbers."""

    def progress(step: Progress) -> None:
        if step.text:
            print(f"  {step.text}", file=sys.stderr)

    done = finetune(FinetuneOptions(iterations=iterations), workspace=workspace, device=device, progress=progress)
    (log,) = workspace.rglob("log.csv")
    with log.open() as file:
        measured = [float(row["metric"]) for row in csv.DictReader(file) if row["metric"]]
    best = open_job(workspace).model
    last = weights_file.read(done.last, best.graph.layers)
    layers = (*best.weights.layers, *last.layers)
    finite = all(np.isfinite(array).all() for layer in layers for array in layer.values())
    accuracies = (done.after.accuracy, min(measured), measured[-1])
    return *(f"{accuracy:.4f}" for accuracy in accuracies), "yes" if finite else "NO"


if __name__ == "__main__":
    main()
