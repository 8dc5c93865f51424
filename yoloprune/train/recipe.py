"""How long and how fast to train."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from yoloprune.darknet.model import Graph
from yoloprune.errors import InputError
from yoloprune.train.augment import Augmentation
from yoloprune.train.schedule import Schedule, same_named
from yoloprune.train.sizes import Sizes

_FINETUNING_RATE = 0.5
_WARM_UP = 0.05
_SETTLED = 1 << 20


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what a run computes, beside network, images, teacher and seed."""

    iterations: int
    """Updates."""
    batch: int
    """Images an update."""
    subdivisions: int
    """Mini-batches in which they are computed; batch statistics are a mini-batch's."""
    schedule: Schedule
    augmentation: Augmentation
    sizes: Sizes = field(default_factory=Sizes)
    """Of the network's input, update by update."""
    momentum: float = 0.9
    decay: float = 0.0005
    adam: bool = False
    """Adam with `betas` and `epsilon` instead of momentum."""
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-6
    ema_alpha: float = 0.0
    """See `Average`; 0: none."""
    bn_l1: float = 0.0
    """What the L1 norm of batch norm's scales weighs in the loss (`Optimizer`); 0: nothing."""
    frozen: frozenset[int] = frozenset()
    """Layers that stay as they are, running statistics too, by which they then normalize."""
    bfloat16: bool = False
    """Whether layers compute in bfloat16; weights, statistics and losses are float32."""
    seen: int = 0
    """Images that count as seen before: [region] draws to anchors only in the first."""
    patience: int = 0
    """Stop after so many measurements without a better one; 0: never."""
    evaluate_every: int = 0
    """Updates between measurements; 0: only at the end."""
    evaluate_start: bool = False
    """Whether to measure before the first update, too: the weights to begin with are then kept if nothing is better."""
    checkpoint_every: int = 100
    """Updates between checkpoints."""

    def __post_init__(self) -> None:
        if self.iterations < 1 or self.batch < 1:
            raise InputError(f"expected at least 1 iteration of 1 image, found {self.iterations} of {self.batch}")
        if not 1 <= self.subdivisions <= self.batch:
            raise InputError(
                f"subdivisions: expected 1..{self.batch} as the batch has images, found {self.subdivisions}"
            )

    @property
    def mini_batch(self) -> int:
        """Images computed together, batch/subdivisions rounded down."""
        return self.batch // self.subdivisions

    @property
    def images(self) -> int:
        """Images that an update really takes: subdivisions mini-batches."""
        return self.mini_batch * self.subdivisions

    def evaluates_after(self, iteration: int) -> bool:
        """Whether accuracy is measured after an update; 0: before the first."""
        if iteration == 0:
            return self.evaluate_start
        return iteration == self.iterations or bool(self.evaluate_every and iteration % self.evaluate_every == 0)

    def for_processes(self, count: int) -> Recipe:
        """The same update over `count` processes: subdivisions become a multiple of it that divides the images.

        InputError if there is none.
        """
        if self.images % count:
            why = f"an update has {self.images} pictures, of which {count} processes can't take equally many"
            raise InputError(f"batch={self.batch}: {why} (expected a number of processes that divides them)")
        multiples = range(count, self.images + 1, count)
        subdivisions = next(each for each in multiples if each >= self.subdivisions and self.images % each == 0)
        return replace(self, batch=self.images, subdivisions=subdivisions)

    @classmethod
    def from_graph(cls, graph: Graph, *, iterations: int = 0, seed: int = 0, letterbox: bool | None = None) -> Recipe:
        """Darknet's own training: what [net] says, for `iterations`, 0: max_batches. InputError if both are 0."""
        net = graph.net
        if not iterations and not net.max_batches:
            raise InputError("[net]: expected max_batches=, found none", file=graph.cfg.file)
        iterations = iterations or net.max_batches
        schedule = Schedule(**same_named(Schedule, net), seed=seed)
        own = {
            "iterations": iterations,
            "subdivisions": min(net.subdivisions, net.batch),
            "schedule": replace(schedule, max_batches=net.max_batches or iterations),  # where some policies end
            "augmentation": Augmentation.from_graph(graph, letterbox),
            "sizes": Sizes.from_graph(graph, iterations),
        }
        return cls(**(same_named(cls, net) | own))

    @classmethod
    def for_finetuning(
        cls,
        graph: Graph,
        iterations: int,
        *,
        learning_rate: float | None = None,
        batch: int | None = None,
        letterbox: bool | None = None,
    ) -> Recipe:
        """To win back accuracy after pruning, whatever policy the cfg was trained with.

        Over 5 % of the iterations (at most 1000) the rate rises linearly to `learning_rate`, default half of [net]'s,
        then falls along a cosine to a hundredth of it. `batch` is by default [net]'s, moved into 16..64; mini-batches
        are [net]'s, but of at least 8 images, since batch statistics of fewer are poor. Multi-scale training begins and
        ends with the network's own size. All else is as `from_graph`.
        """
        net = graph.net
        rate = net.learning_rate * _FINETUNING_RATE if learning_rate is None else learning_rate
        images = min(max(net.batch, 16), 64) if batch is None else batch
        mini_batch = min(max(net.batch // net.subdivisions, 8), images)
        schedule = Schedule(
            learning_rate=rate,
            policy="sgdr",
            burn_in=min(round(iterations * _WARM_UP), 1000),
            power=1.0,
            learning_rate_min=rate / 100,
            sgdr_cycle=iterations,
        )
        plain = cls.from_graph(graph, iterations=iterations, letterbox=letterbox)
        return replace(
            plain,
            iterations=iterations,  # where 0 is refused, and isn't [net]'s max_batches
            sizes=replace(plain.sizes, settled=True),
            batch=images,
            subdivisions=images // mini_batch,
            schedule=schedule,
            seen=_SETTLED,
        )
