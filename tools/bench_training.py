"""Images a second of our training: with its data path, on tensors in memory, and stock Darknet's on the same machine.

    python tools/bench_training.py CFG --data F [--iterations 20] [--repeats 3] [--darknet 2] [--workers 1]

The three take turns. Ours are the same loop, once on the images of the train list (decoded when a turn first comes to
them, then kept in memory; augmented anew every time), once on one random batch that lies in memory. Darknet's is
`darknet detector train`, in a folder of its own, by what its log says of each iteration, loading apart; without
--darknet N it is left out. Printed are medians and medians of the ratios of neighbouring turns. Last come the images
alone, made without training.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import re
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import torch
from torch import Tensor

from yoloprune.darknet import cfg as cfg_file
from yoloprune.darknet import weights as weights_file
from yoloprune.darknet.data import DataFile, Split, load_split, read_data
from yoloprune.darknet.dialect import ALEXEYAB
from yoloprune.darknet.model import Graph, Model, load_graph
from yoloprune.malloc import keep_freed_memory
from yoloprune.train.batches import batches
from yoloprune.train.loop import Resources, train
from yoloprune.train.progress import TrainingProgress
from yoloprune.train.recipe import Recipe
from yoloprune.train.samples import Samples


def main() -> None:
    """Take turns, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cfg", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--iterations", type=int, default=20, help="of ours, a turn")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--darknet", type=int, default=0, help="iterations of Darknet's, a turn")
    parser.add_argument("--limit", type=float, default=600, help="seconds that a turn of Darknet's may take")
    parser.add_argument("--workers", type=int, default=1, help="processes that prepare our images")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()

    keep_freed_memory()  # as the command line does
    graph, data = load_graph(args.cfg, ALEXEYAB), read_data(args.data)
    images = load_split(data, "train", ALEXEYAB, classes=graph.classes)
    turns = []
    for turn in range(args.repeats + 1):
        real = ours(graph, images, args.iterations, args.workers, args.device, memory=False)
        memory = ours(graph, images, args.iterations, args.workers, args.device, memory=True)
        theirs = darknets(graph, data, images, args.darknet, args.limit) if args.darknet and turn else float("nan")
        if turn:  # the first one warms up
            turns.append((real, memory, theirs))
    for name, each in zip(
        ("with the data path", "tensors in memory", "Darknet"), zip(*turns, strict=True), strict=True
    ):
        print(f"{name}: {statistics.median(each):.1f} images/s ({', '.join(f'{value:.1f}' for value in each)})")
    print(f"with the data path / tensors in memory: {statistics.median(a / b for a, b, _ in turns):.2f}")
    if args.darknet:
        print(f"with the data path / Darknet: {statistics.median(a / c for a, _, c in turns):.1f}")
    print(f"images alone: {images_alone(graph, images, args.iterations, args.workers):.0f} images/s")


def ours(graph: Graph, images: Split, iterations: int, workers: int, device: str, *, memory: bool) -> float:
    """Images a second of the training loop, the last that it tells."""
    told: list[TrainingProgress] = []
    recipe = replace(Recipe.from_graph(graph, iterations=iterations), checkpoint_every=iterations)
    source = _in_memory if memory else batches
    with tempfile.TemporaryDirectory() as folder, patch("yoloprune.train.loop.batches", source):
        model = Model(graph, weights_file.initial(graph.layers, 0))
        train(
            model,
            images,
            recipe,
            folder=Path(folder),
            seed=0,
            resources=Resources(device, workers),
            progress=told.append,
        )
    return told[-1].images_per_second


def images_alone(graph: Graph, images: Split, iterations: int, workers: int) -> float:
    """Images a second that the data path makes when nobody trains, once all are decoded."""
    recipe = Recipe.from_graph(graph, iterations=iterations)
    size = recipe.mini_batch
    samples = Samples.of(images, graph, recipe, 0, 1 << 30)
    epoch = -(-len(images.images) // size)
    with contextlib.closing(batches(samples, itertools.count(0, size), size, workers)) as parts:
        for _ in itertools.islice(parts, epoch + 3 * workers):
            pass
        start = time.perf_counter()
        for _ in itertools.islice(parts, 4 * epoch):
            pass
        return 4 * epoch * size / (time.perf_counter() - start)


def _in_memory(samples: Samples, starts: Iterable[int], size: int, workers: int) -> Iterator[tuple[Tensor, Tensor]]:
    c, h, w = samples.graph.net.input
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (size, h, w, c), generator=generator, dtype=torch.uint8)
    truths = samples.collate([samples.at(index)[1] for index in range(size)])
    for _ in starts:
        yield pixels, truths


def darknets(graph: Graph, data: DataFile, images: Split, iterations: int, limit: float) -> float:
    """Images a second of `darknet detector train`, by the iterations that it finishes within the limit."""
    program = shutil.which("darknet")
    if program is None:
        return float("nan")
    net = graph.net
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "backup").mkdir()
        changed = cfg_file.edit(graph.cfg, {0: {"max_batches": str(iterations)}})
        (folder / "net.cfg").write_bytes(cfg_file.dump(changed))
        (folder / "train.txt").write_text("".join(f"{image.resolve()}\n" for image in images.images))
        (folder / "names").write_text("".join(f"{each}\n" for each in images.names))
        (folder / "net.data").write_text(
            f"classes={graph.classes}\ntrain=train.txt\nvalid=train.txt\nnames=names\nbackup=backup\n"
        )
        with (folder / "log").open("w") as log, contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(
                [program, "detector", "train", "net.data", "net.cfg"],
                cwd=folder,
                stdout=log,
                stderr=subprocess.STDOUT,
                timeout=limit,
                check=False,
            )
        seconds = re.findall(r"^\d+: .* rate, ([\d.]+) seconds, \d+ images", (folder / "log").read_text(), re.M)
    return net.batch * len(seconds) / sum(map(float, seconds)) if seconds else float("nan")


if __name__ == "__main__":
    main()
