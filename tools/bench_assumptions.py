"""What the analysis takes for granted (docs/method.md, "Where it is measured"), seen on single groups pruned alone.

    python tools/bench_assumptions.py CFG WEIGHTS --data F [--every N]

Every N-th group is pruned by steps of 5 points, refitted, and measured whole. Printed are

early     how far the loss seen on the first images is off the loss on all (root mean square): images that contribute
          most to AP first and the others as the original finds them; and the first images of the list alone
proxy     correlation of the loss with the square root of the output error on the first 16 images: of the head inputs,
          and of what the heads rank their answers by, which is what the analysis measures
expected  loss = a error^b: the best b, and what it leaves of the logarithm of the loss (standard deviation), in all
          and between groups
noise     how far measured losses are off their group's isotonic regression (root mean square)
bfloat16  time of the unpruned network's forward passes in it as a share of float32's, and what it does to the accuracy
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from bench_analysis import Bench, arguments
from numpy.typing import NDArray

from yoloprune.darknet.network import Network
from yoloprune.darknet.predictions import Predictions, join
from yoloprune.detect.measure import network_for_measuring
from yoloprune.malloc import keep_freed_memory
from yoloprune.prune.criteria import default_criterion
from yoloprune.prune.group_evaluator import PROXY_IMAGES
from yoloprune.prune.search import STEPS
from yoloprune.prune.sensitivity import grid_counts, monotone

SMALL = 0.03
"""Losses up to this one are decided on, ..."""
TELLING = (0.003, 0.08)
"""... and those between these are neither noise nor ruin."""
Floats = NDArray[np.float64]


def main() -> None:
    """Prune, measure, print."""
    parser = arguments(__doc__)
    parser.add_argument("--every", type=int, default=4, help="prune every N-th group")
    args = parser.parse_args()
    keep_freed_memory()
    bench = Groups(Bench(args))
    pruned = list(bench.pruned(args.every))
    print(f"{args.cfg.name}: {len(pruned)} measurements, {bench.images} images, accuracy {bench.accuracy:.4f}")
    for line in (*early(pruned, bench.seen), *proxy(pruned), *expected(pruned), noise(pruned), bench.bfloat16()):
        print(line)


@dataclass(frozen=True)
class Pruned:
    """A group pruned alone, measured."""

    group: str
    loss: float
    by_contribution: Sequence[float]
    """Loss after the first so many images, those that contribute most to AP first."""
    by_list: Sequence[float]
    """Loss on the first so many of the list."""
    input_error: float
    """Relative squared change of the head inputs, ..."""
    output_error: float
    """... and of what the heads rank their answers by."""


class Groups:
    """One network, its groups pruned alone."""

    def __init__(self, bench: Bench) -> None:
        self.model, self.measure, self.pruner = bench.model, bench.measure, bench.refitted
        self.device = bench.device
        self.network = network_for_measuring(self.model, self.device)
        self.found = self.measure.predictions(self.network)
        outcome = self.measure.outcome(self.found)
        self.accuracy, self.order = outcome.accuracy, np.argsort(-outcome.contributions, kind="stable")
        self.images = len(self.measure.pictures)
        self.seen = tuple(self.images * quarters // 4 for quarters in (1, 2, 3))
        first = self.measure.pictures.select(self.order[:PROXY_IMAGES].tolist())
        self.first = [batch.inputs for batch in first]

    def pruned(self, every: int) -> Iterator[Pruned]:
        """Of every so many groups, by steps of 5 points."""
        before = self._heads(self.network)
        alone = self._by_list(self.found)
        variant = network_for_measuring(self.model, self.device)
        for curve in self.pruner.first_curves(default_criterion(True))[::every]:
            for count in grid_counts(curve, STEPS):
                variant.set_weights(self.pruner.alone(curve, count).weights)
                found = self.measure.predictions(variant)
                pairs = zip(before, self._heads(variant), strict=True)
                input_error, output_error = (float((b - a).square().sum() / a.square().sum()) for a, b in pairs)
                yield Pruned(
                    curve.label,
                    self.accuracy - self._accuracy(found),
                    [self.accuracy - self._accuracy(self._mixed(found, count)) for count in self.seen],
                    [was - now for was, now in zip(alone, self._by_list(found), strict=True)],
                    input_error,
                    output_error,
                )

    def bfloat16(self) -> str:
        """Its time and what it does to the accuracy."""
        accuracies, seconds = [], []
        for half in (False, True):
            started = time.perf_counter()
            with torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=half), torch.inference_mode():
                results = [(batch, self.network(batch.inputs)) for batch in self.measure.pictures]
            seconds.append(time.perf_counter() - started)
            exact = ((batch, {index: x.float() for index, x in outputs.items()}) for batch, outputs in results)
            accuracies.append(self._accuracy(join(part for _, part in self.measure.predict(exact))))
        return f"bfloat16: {seconds[1] / seconds[0]:.2f} of the time, accuracy {accuracies[1] - accuracies[0]:+.4f}"

    def _mixed(self, found: Predictions, count: int) -> Predictions:
        images = self.order[:count].tolist()
        mixed: Predictions = self.found.replaced(images, _of_images(found, images))
        return mixed

    def _by_list(self, found: Predictions) -> list[float]:
        """Accuracy on the first so many of the list alone."""
        return [self._accuracy(_of_images(found, range(count))) for count in self.seen]

    def _accuracy(self, found: Predictions) -> float:
        return self.measure.outcome(found).accuracy

    def _heads(self, network: Network) -> tuple[torch.Tensor, torch.Tensor]:
        """Of the first images, the head inputs and what the heads rank their answers by; float64."""
        heads = [self.model.graph.layers[index] for index in self.model.graph.outputs]
        entering, ranking = [], []
        with torch.inference_mode():
            for inputs in self.first:
                outputs = network(inputs, {index for head in heads for index in (head.index, head.sources[0])})
                entering += [outputs[head.sources[0]].double().flatten() for head in heads]
                ranking += [head.scores(outputs[head.index]).double().flatten() for head in heads]
        return torch.cat(entering), torch.cat(ranking)


def _of_images(found: Predictions, images: Sequence[int]) -> Predictions:
    """The rows of some images."""
    return found.rows(torch.isin(found.image, torch.tensor(images)).nonzero().squeeze(1))


def early(pruned: Sequence[Pruned], seen: Sequence[int]) -> Iterator[str]:
    """How far off the first images are, for losses that are decided on."""
    small = [each for each in pruned if abs(each.loss) <= SMALL]
    whole = np.array([[each.loss] for each in small])
    for name, field in (("contribution", "by_contribution"), ("list", "by_list")):
        off = np.sqrt(np.square(np.array([getattr(each, field) for each in small]) - whole).mean(0))
        after = ", ".join(f"{value:.4f} after {count}" for value, count in zip(off, seen, strict=True))
        yield f"early, by {name}: off by {after} ({len(small)} measurements)"


def proxy(pruned: Sequence[Pruned]) -> Iterator[str]:
    """How well the output error tells the loss."""
    telling = [each for each in pruned if each.loss < TELLING[1]]
    losses = [each.loss for each in telling]
    for name, field in (("head inputs", "input_error"), ("what heads rank by", "output_error")):
        correlation = np.corrcoef(np.sqrt([getattr(each, field) for each in telling]), losses)[0, 1]
        yield f"proxy, {name}: correlation {correlation:.2f} ({len(telling)} measurements)"


def expected(pruned: Sequence[Pruned]) -> Iterator[str]:
    """The best power of the output error."""
    telling = [each for each in pruned if TELLING[0] <= each.loss <= TELLING[1]]
    x, y = (np.log([getattr(each, name) for each in telling]) for name in ("output_error", "loss"))
    power, scale = np.polyfit(x, y, 1)
    left = y - power * x - scale
    groups = np.array([each.group for each in telling])
    means = np.array([left[groups == group].mean() for group in groups])
    spread = f"{left.std():.2f}, between groups {means.std():.2f}"
    yield f"expected: b {power:.2f}, leaves {spread} ({len(telling)} measurements)"


def noise(pruned: Sequence[Pruned]) -> str:
    """Of single measurements, for losses that are not ruin."""
    off: list[Floats] = []
    for group in dict.fromkeys(each.group for each in pruned):
        losses = np.array([each.loss for each in pruned if each.group == group and each.loss <= TELLING[1]])
        off.append(losses - monotone(losses, np.ones_like(losses)))
    return f"noise: {np.sqrt(np.square(np.concatenate(off)).mean()):.4f}"


if __name__ == "__main__":
    main()
