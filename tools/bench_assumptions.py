"""What the analysis takes for granted (docs/method.md, "Where it is measured"), seen on cuts of single groups.

    python tools/bench_assumptions.py CFG WEIGHTS --data F [--every N]

Every N-th group is cut by steps of 5 points, refitted, and measured whole. Printed are

early     how far the loss seen on the first pictures is off the loss on all (root mean square): pictures with the most
          at stake first and the others as the original finds them; and the first pictures of the list alone
proxy     correlation of the loss with the square root of the output error on the first 16 pictures: of what enters the
          heads, and of what they rank their answers by, which is what the analysis measures
expected  loss = a error^b: the best b, and what it leaves of the logarithm of the loss (standard deviation), in all
          and between groups
noise     how far measured losses are off the closest rising curve of their group (root mean square)
bfloat16  time of the uncut network's forward passes in it as a share of float32's, and what it does to the accuracy
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from bench_analysis import Bench, arguments
from numpy.typing import NDArray

from yoloprune.allocator import keep_freed_memory
from yoloprune.darknet.network import Network
from yoloprune.darknet.predictions import Predictions, join
from yoloprune.detect.measure import network_for_measuring
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
    """Cut, measure, print."""
    parser = arguments(__doc__)
    parser.add_argument("--every", type=int, default=4, help="cut every N-th group")
    args = parser.parse_args()
    keep_freed_memory()
    bench = Cuts(Bench(args))
    cuts = list(bench.cuts(args.every))
    print(f"{args.cfg.name}: {len(cuts)} cuts, {bench.images} pictures, accuracy {bench.accuracy:.4f}")
    for line in (*early(cuts, bench.seen), *output_error(cuts), *expected(cuts), noise(cuts), bench.bfloat16()):
        print(line)


@dataclass(frozen=True)
class Cut:
    """A group's cut, measured."""

    group: str
    loss: float
    by_stake: Sequence[float]
    """Loss after the first so many pictures, those with the most at stake first."""
    by_list: Sequence[float]
    """Loss on the first so many of the list."""
    entering: float
    """The output error of what enters the heads."""
    output_error: float


class Cuts:
    """One network and its cuts."""

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

    def cuts(self, every: int) -> Iterator[Cut]:
        """Of every so many groups, by steps of 5 points."""
        before = self._heads(self.network)
        alone = [self._accuracy(_of_images(self.found, range(count))) for count in self.seen]
        variant = network_for_measuring(self.model, self.device)
        for curve in self.pruner.first_curves(default_criterion(True))[::every]:
            for count in grid_counts(curve, STEPS):
                keep = curve.keep(self.pruner.channels, self.pruner.keep, count)
                variant.set_weights(self.pruner.alone(keep).weights)
                found = self.measure.predictions(variant)
                pairs = zip(before, self._heads(variant), strict=True)
                entering, ranking = (float((b - a).square().sum() / a.square().sum()) for a, b in pairs)
                yield Cut(
                    curve.label,
                    self.accuracy - self._accuracy(found),
                    [self.accuracy - self._accuracy(self._mixed(found, count)) for count in self.seen],
                    [
                        was - self._accuracy(_of_images(found, range(count)))
                        for was, count in zip(alone, self.seen, strict=True)
                    ],
                    entering,
                    ranking,
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

    def _accuracy(self, found: Predictions) -> float:
        return self.measure.outcome(found).accuracy

    def _heads(self, network: Network) -> tuple[torch.Tensor, torch.Tensor]:
        """What enters the heads of the first pictures, and what they rank their answers by; float64."""
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


def early(cuts: Sequence[Cut], seen: Sequence[int]) -> Iterator[str]:
    """How far off the first pictures are, for losses that are decided on."""
    small = [cut for cut in cuts if abs(cut.loss) <= SMALL]
    whole = np.array([[cut.loss] for cut in small])
    for name, losses in (("contributions", [cut.by_stake for cut in small]), ("list", [cut.by_list for cut in small])):
        off = np.sqrt(np.square(np.array(losses) - whole).mean(0))
        after = ", ".join(f"{value:.4f} after {count}" for value, count in zip(off, seen, strict=True))
        yield f"early, by {name}: off by {after} ({len(small)} cuts)"


def output_error(cuts: Sequence[Cut]) -> Iterator[str]:
    """How well it tells the loss."""
    telling = [cut for cut in cuts if cut.loss < TELLING[1]]
    losses = [cut.loss for cut in telling]
    for name, output_errors in (
        ("entering the heads", [c.entering for c in telling]),
        ("ranking", [c.output_error for c in telling]),
    ):
        correlation = np.corrcoef(np.sqrt(output_errors), losses)[0, 1]
        yield f"output error, {name}: correlation {correlation:.2f} ({len(telling)} cuts)"


def expected(cuts: Sequence[Cut]) -> Iterator[str]:
    """The best power of output_error."""
    telling = [cut for cut in cuts if TELLING[0] <= cut.loss <= TELLING[1]]
    x, y = (np.log([getattr(cut, name) for cut in telling]) for name in ("output_error", "loss"))
    power, scale = np.polyfit(x, y, 1)
    left = y - power * x - scale
    groups = np.array([cut.group for cut in telling])
    means = np.array([left[groups == group].mean() for group in groups])
    yield f"expected: b {power:.2f}, leaves {left.std():.2f}, between groups {means.std():.2f} ({len(telling)} cuts)"


def noise(cuts: Sequence[Cut]) -> str:
    """Of single measurements, for losses that are not ruin."""
    off: list[Floats] = []
    for group in dict.fromkeys(cut.group for cut in cuts):
        losses = np.array([cut.loss for cut in cuts if cut.group == group and cut.loss <= TELLING[1]])
        off.append(losses - monotone(losses, np.ones_like(losses)))
    return f"noise: {np.sqrt(np.square(np.concatenate(off)).mean()):.4f}"


if __name__ == "__main__":
    main()
