"""Train a network from scratch by its cfg, and keep the best: so weights/shapes.weights was made.

    python tools/make_weights.py --cfg cfg/shapes.cfg --out weights/shapes.weights [--data F]

Without --data it draws the built-in set. Everything follows from --seed; the cfg says how long and how fast. It is
`yoloprune train` in a folder of its own, which goes on if it was interrupted.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from tempfile import gettempdir

from make_shapes import write as draw_set

from yoloprune.darknet import weights as weights_file
from yoloprune.darknet.dialect import ALEXEYAB
from yoloprune.darknet.model import load
from yoloprune.options import TrainOptions
from yoloprune.progress import Progress
from yoloprune.steps.train import train_network

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Draw, train, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cfg", type=Path, default=ROOT / "cfg" / "shapes.cfg")
    parser.add_argument("--out", type=Path, default=ROOT / "weights" / "shapes.weights")
    parser.add_argument("--data", type=Path, help="train on this set instead")
    parser.add_argument("--folder", type=Path, default=Path(gettempdir()) / "yoloprune-shapes", help="images and log")
    parser.add_argument("--train", type=int, default=6000, help="images to train on")
    parser.add_argument("--iterations", type=int, default=0, help="updates; 0: the cfg's max_batches")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    pictures = args.folder / "pictures"
    if args.data is None and not (pictures / "shapes.data").exists():
        draw_set(pictures, {"train": args.train, "valid": 300}, 160, args.seed, processes=2, force=False)

    def say(step: Progress) -> None:
        if step.done % 50 == 0:
            print(f"{step.stage}: {step.done} of {step.total}: {step.text}", file=sys.stderr, flush=True)

    folder = args.folder / "training" / args.cfg.stem
    started = time.monotonic()
    made = train_network(
        args.cfg,
        args.data or pictures / "shapes.data",
        folder,
        TrainOptions(iterations=args.iterations, seed=args.seed),
        force=(folder / f"{args.cfg.stem}-best.weights").exists(),
        progress=say,
    )
    assert made.figures is not None
    best = load(args.cfg, made.best, ALEXEYAB)
    weights_file.write(args.out, best.weights.with_seen(0), best.graph.layers, force=True)
    minutes = (time.monotonic() - started) / 60
    print(f"{made.figures.metric} {made.figures.accuracy:.4f}, {minutes:.1f} min -> {args.out}")


if __name__ == "__main__":
    main()
