"""How far ONNX files are from our own numbers, in onnxruntime and in OpenCV 5 (`make opencv5`), original and slim.

python tools/bench_onnx.py CFG WEIGHTS [CFG WEIGHTS ...]     trained networks, as they are
python tools/bench_onnx.py --random 64 CFG [CFG ...]         random weights, at 64x64

The largest difference over the largest value of any output, for what enters the heads; slim: half of each group's
channels, by chance. With trained networks also boxes and scores.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import opencv5

from yoloprune.darknet import cfg as cfg_file
from yoloprune.darknet.dialect import ALEXEYAB
from yoloprune.darknet.layers import TensorSpec
from yoloprune.darknet.model import Model, build_graph, load
from yoloprune.darknet.weights import Header, Weights
from yoloprune.formats.onnx import INPUT, convert
from yoloprune.prune.channels import trace
from yoloprune.prune.slim import slim
from yoloprune.readers.base import Floats
from yoloprune.steps.onnx_file import difference, expected


def random_model(cfg: Path, size: int) -> Model:
    """Weights by chance, of a size that keeps values as they are; batch norm too."""
    text = cfg_file.read(cfg)
    graph = build_graph(cfg_file.edit(text, {0: {"width": str(size), "height": str(size)}}), ALEXEYAB)
    rng = np.random.default_rng(1)

    def drawn(spec: TensorSpec) -> Floats:
        if spec.variance or spec.start:
            return rng.uniform(0.5, 1.5, spec.shape).astype(np.float32)
        bound = spec.bound * 1.5 or 0.5
        return rng.uniform(-bound, bound, spec.shape).astype(np.float32)

    arrays = tuple({spec.name: drawn(spec) for spec in layer.tensors()} for layer in graph.layers)
    return Model(graph, Weights(Header(), arrays))


def halved(model: Model) -> Model:
    """About half of each group's units."""
    channels = trace(model.graph)
    keep, rng = channels.all_kept(), np.random.default_rng(3)
    for group in channels.groups:
        for unit in rng.permutation(len(group.units))[: len(group.units) // 2]:
            keep[group.units[unit]] = False
    return slim(model, channels, keep)


def models(args: argparse.Namespace) -> Iterator[tuple[str, Model]]:
    """By name."""
    if args.random:
        yield from ((path.stem, random_model(path, args.random)) for path in args.files)
        return
    for cfg, weights in zip(args.files[::2], args.files[1::2], strict=True):
        yield cfg.stem, load(cfg, weights, ALEXEYAB)


def rows(args: argparse.Namespace) -> Iterator[tuple[str, Model, bool]]:
    """Name, network, and whether boxes and scores are wanted."""
    for name, model in models(args):
        for how, each in (("", model), (" slim", halved(model))):
            for decode in (False,) if args.random or not model.graph.detection_heads else (False, True):
                yield f"{name}{how}{', boxes and scores' if decode else ''}", each, decode


def main() -> None:
    """A row for each network and kind of output."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE")
    parser.add_argument("--random", type=int, default=0, metavar="SIZE", help="Of the input; weights by chance.")
    args = parser.parse_args()
    made: list[tuple[str, bool, list[Floats], float]] = []
    inputs: list[Floats] = []
    with tempfile.TemporaryDirectory() as name:
        files: list[Path] = []
        for row, model, decode in rows(args):
            inputs.append(np.random.default_rng(2).random((1, *model.graph.net.input), np.float32))
            files.append(Path(name) / f"{len(files)}.onnx")
            files[-1].write_bytes(convert(model, decode=decode).SerializeToString())
            ours = expected(model, inputs[-1], decode=decode)
            session = onnxruntime.InferenceSession(files[-1], providers=["CPUExecutionProvider"])
            theirs = list(session.run(None, {INPUT: inputs[-1]}))
            made.append((row, decode, ours, difference(ours, theirs, decode=decode)))
        reason = opencv5.available()
        found = ["-"] * len(files) if reason else opencv5.outputs(files, inputs)
    print(f"{'':46}{'onnxruntime':>12}{'OpenCV 5':>12}")
    for (row, decode, ours, diff), each in zip(made, found, strict=True):
        other = each if isinstance(each, str) else f"{difference(ours, list(each.values()), decode=decode):.1e}"
        print(f"{row:46}{diff:12.1e}{other:>12}")


if __name__ == "__main__":
    main()
