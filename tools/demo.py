"""The main job on the built-in network: ana, prune, finetune, export, then what came of it.

    python tools/demo.py [--out demo]

Draws its images, prints each command before it runs, and ends with a table measured on fresh images that neither
training nor choosing has seen, and with images before and after in OUT/before and OUT/after.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
from make_shapes import write as draw_set
from rich.console import Console
from rich.table import Table

from yoloprune.darknet.dialect import ALEXEYAB
from yoloprune.darknet.model import load
from yoloprune.readers import READERS, STOCK, ReaderError

ROOT = Path(__file__).resolve().parents[1]
CFG, WEIGHTS = ROOT / "cfg" / "shapes.cfg", ROOT / "weights" / "shapes.weights"
SIDE = 160
TRAIN, CHOOSE, TEST, SHOWN = 1500, 150, 300, 8
THRESHOLD = 0.01
ITERATIONS = 500


@dataclass(frozen=True)
class Row:
    """What the table says of one network."""

    name: str
    accuracy: float
    bflops: float
    bytes: int
    milliseconds: dict[str, float | None]


def main() -> None:
    """All of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("demo"))
    parser.add_argument("--iterations", type=int, default=ITERATIONS, help="of finetuning")
    args = parser.parse_args()
    out: Path = args.out
    if out.exists() and not (out / "pictures" / "shapes.data").exists():
        sys.exit(f"{out} exists and is no demo; --out names another folder")
    started = time.monotonic()
    shutil.rmtree(out, ignore_errors=True)
    draw(out)
    data, workspace = out / "pictures" / "shapes.data", out / "workspace"
    yoloprune("ana", CFG, WEIGHTS, "--data", data, "-w", workspace)
    yoloprune("prune", "--threshold", THRESHOLD, "-w", workspace)
    yoloprune("finetune", "--iterations", args.iterations, "-w", workspace)
    yoloprune("export", "-o", out / "slim", "-w", workspace)
    slim, slim_weights = out / "slim" / "shapes-slim.cfg", out / "slim" / "shapes-slim.weights"
    yoloprune("verify", CFG, workspace / "round-1" / "finetuned.weights", slim, slim_weights)

    test = out / "test" / "shapes.data"
    shown = sorted((out / "test" / "images").glob("valid_*.jpg"))[:SHOWN]
    for folder, cfg, weights in (("before", CFG, WEIGHTS), ("after", slim, slim_weights)):
        yoloprune("detect", cfg, weights, *shown, "--data", test, "-o", out / folder)
    rows = [
        row("original", CFG, WEIGHTS, test),
        row("pruned", CFG, workspace / "round-1" / "pruned.weights", test),
        row("finetuned, slim", slim, slim_weights, test),
    ]
    Console().print(table(rows))
    print(f"images: {out}/before and {out}/after; files for Darknet: {out}/slim")
    print(f"{(time.monotonic() - started) / 60:.1f} minutes")


def draw(out: Path) -> None:
    """Images to train on, to choose by, and fresh ones to report on."""
    processes = min(os.cpu_count() or 1, 4)
    print(f"drawing {TRAIN + CHOOSE + TEST} images into {out}/pictures and {out}/test", flush=True)
    draw_set(out / "pictures", {"train": TRAIN, "valid": CHOOSE}, SIDE, 1, processes, force=False)
    draw_set(out / "test", {"train": 1, "valid": TEST}, SIDE, 2, processes, force=False)


def yoloprune(*arguments: object) -> None:
    """Print the command as a user would type it, then run it."""
    words = [str(argument) for argument in arguments]
    print(f"\n$ yoloprune {shlex.join(words)}", flush=True)
    done = subprocess.run([sys.executable, "-m", "yoloprune", *words], check=False)
    if done.returncode:
        sys.exit(done.returncode)


def row(name: str, cfg: Path, weights: Path, data: Path) -> Row:
    """Accuracy on fresh images, size, and time an image in the stock readers (masks alone gain nothing)."""
    words = ["map", str(cfg), str(weights), "--data", str(data), "--json", "-"]
    answer = subprocess.run([sys.executable, "-m", "yoloprune", *words], check=True, capture_output=True)
    model = load(cfg, weights, ALEXEYAB)
    image = np.random.default_rng(0).random(model.graph.net.input, np.float32)
    times: dict[str, float | None] = {}
    for reader_name, reader in READERS.items():
        if reader_name not in STOCK:
            continue
        try:
            missing = reader.available()
            times[reader_name] = None if missing else 1000 * median(reader.race([(cfg, weights)], [image], 30)[0])
        except ReaderError as error:
            sys.exit(f"{reader_name}: {error}")
    accuracy = json.loads(answer.stdout)["map50_present"]
    return Row(name, accuracy, model.graph.bflops, weights.stat().st_size, times)


def table(rows: list[Row]) -> Table:
    """One line a network."""
    result = Table(title=f"accuracy on {TEST} fresh images; milliseconds an image on one thread")
    for heading in ("network", "mAP@0.50", "BFLOPs", "bytes"):
        result.add_column(heading, justify="left" if heading == "network" else "right")
    for name in rows[0].milliseconds:
        result.add_column(f"{name} ms", justify="right")
    for each in rows:
        times = ["-" if value is None else f"{value:.1f}" for value in each.milliseconds.values()]
        result.add_row(each.name, f"{each.accuracy:.3f}", f"{each.bflops:.3f}", f"{each.bytes:,}", *times)
    return result


if __name__ == "__main__":
    main()
