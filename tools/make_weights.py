"""Train a network from scratch by its cfg, and keep the best: so weights/shapes.weights was made.

    python tools/make_weights.py --cfg cfg/shapes.cfg --out weights/shapes.weights [--data F]

Without --data it draws the built-in set. Everything follows from --seed; the cfg says how long and how fast.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from tempfile import gettempdir

from make_shapes import write as draw_set

from yoloprune.darknet import weights as weights_file
from yoloprune.darknet.data import load_split, read_data
from yoloprune.darknet.dialect import ALEXEYAB
from yoloprune.darknet.model import Model, load_graph
from yoloprune.detect.measure import load_measure
from yoloprune.train.loop import train
from yoloprune.train.progress import Progress
from yoloprune.train.recipe import Recipe

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Draw, train, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cfg", type=Path, default=ROOT / "cfg" / "shapes.cfg")
    parser.add_argument("--out", type=Path, default=ROOT / "weights" / "shapes.weights")
    parser.add_argument("--data", type=Path, help="train on this set instead")
    parser.add_argument("--folder", type=Path, default=Path(gettempdir()) / "yoloprune-shapes", help="pictures and log")
    parser.add_argument("--train", type=int, default=6000, help="pictures to train on")
    parser.add_argument("--iterations", type=int, default=0, help="updates; 0: the cfg's max_batches")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    pictures = args.folder / "pictures"
    if args.data is None and not (pictures / "shapes.data").exists():
        draw_set(pictures, {"train": args.train, "valid": 300}, 160, args.seed, processes=2, force=False)
    graph = load_graph(args.cfg, ALEXEYAB)
    data = read_data(args.data or pictures / "shapes.data")
    images = load_split(data, "train", ALEXEYAB, classes=graph.classes)
    measure = load_measure(graph, data)
    recipe = replace(Recipe.from_graph(graph, iterations=args.iterations, seed=args.seed), evaluate_every=250)
    print(f"{graph.parameters} parameters, {graph.bflops:.3f} BFLOPs; {recipe.iterations} updates of {recipe.images}")

    def say(now: Progress) -> None:
        if now.record.metric is not None or now.record.iteration % 50 == 0:
            metric = "" if now.record.metric is None else f", mAP@0.50 {now.record.metric:.4f}"
            text = f"{now.record.iteration}: avg loss {now.record.average:.3f}, {now.images_per_second:.0f} images/s"
            print(f"{text}, {now.seconds_left / 60:.1f} min left{metric}", flush=True)

    started = time.monotonic()
    trained = train(
        Model(graph, weights_file.initial(graph.layers, args.seed)),
        images,
        recipe,
        folder=args.folder / "training",
        seed=args.seed,
        evaluate=measure.accuracy,
        resume=True,
        progress=say,
    )
    weights_file.write(args.out, trained.best.with_seen(0), graph.layers, force=True)
    print(f"mAP@0.50 {trained.best_metric:.4f}, {(time.monotonic() - started) / 60:.1f} min -> {args.out}")


if __name__ == "__main__":
    main()
