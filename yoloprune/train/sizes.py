"""Sizes of the network's input in multi-scale training (detector.c train_detector, key `random` of the last head)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from yoloprune.darknet import cfg as cfg_file
from yoloprune.darknet.layers.base import Shape
from yoloprune.darknet.model import Graph, build_graph
from yoloprune.errors import InputError
from yoloprune.train.augment import random_scale

_EVERY = 10
"""Updates of one size."""
_FACTOR = 1.4
"""What random=1 stands for."""
_LAST = {True: 100, False: 200}
"""Updates at the end that are of the largest size: by the cfg's size, by given sides."""


@dataclass(frozen=True)
class Sizes:
    """Which size comes in which update. By default the network's own, always.

    Given the seed, a function of the update's number; the draws follow Darknet's rules, not its random numbers.
    """

    factor: float = 0.0
    """AlexeyAB: sides are the network's, times or divided by up to this; 0: not so."""
    sides: tuple[int, int] | None = None
    """pjreddie: squares between these, whatever the network's size."""
    step: int = 32
    """What sides are multiples of."""
    iterations: int = 0
    """Of the whole run."""
    settled: bool = False
    """Whether the first updates and the last tenth are of the network's own size, at which it is measured."""

    @classmethod
    def from_graph(cls, graph: Graph, iterations: int) -> Sizes:
        """What the last head asks for in its dialect."""
        heads = graph.detection_heads
        random = getattr(getattr(heads[-1], "training", None), "random", 0) if heads else 0
        if not random:
            return cls()
        sides = graph.dialect.random_sides
        factor = 0.0 if sides else _FACTOR if random == 1 else random
        return cls(factor, sides, graph.net.resize_step, iterations)

    def at(self, own: Shape, iteration: int, seed: int) -> Shape:
        """Size of the input in update `iteration`, from 1, of a network of size `own`."""
        if not self.factor and self.sides is None:
            return own
        block = (iteration - 1) // _EVERY
        rng = np.random.default_rng((seed, 2, block))
        last = self.iterations // 10 if self.settled else _LAST[self.sides is None]
        ending = block * _EVERY > self.iterations - last
        if self.settled and (block == 0 or ending):
            return own
        if self.sides is not None:
            low, high = (side // self.step for side in self.sides)
            return self._square(own, high if ending else int(rng.integers(low, high + 1)))
        value = random_scale(self.factor, rng)
        if block == 0 or ending:
            value = self.factor
        size = self._times(own, value)
        return own if value < 1 and (size.w > own.w or size.h > own.h) else size

    def largest(self, own: Shape) -> Shape:
        """The largest size that comes, or the network's own."""
        drawn = own
        if self.sides is not None:
            drawn = self._square(own, self.sides[1] // self.step)
        elif self.factor:
            drawn = self._times(own, max(self.factor, 1 / self.factor))
        return max(own, drawn, key=lambda shape: shape.size)

    def _square(self, own: Shape, steps: int) -> Shape:
        return Shape(own.c, steps * self.step, steps * self.step)

    def _times(self, own: Shape, value: float) -> Shape:
        h, w = (max(math.floor(value * side / self.step + 1.5), 1) * self.step for side in (own.h, own.w))
        return Shape(own.c, h, w)


def resized(graph: Graph, size: Shape) -> Graph:
    """The network for another size of input. InputError if its arrays would have other shapes."""
    if size == graph.net.input:
        return graph
    keys = {"width": str(size.w), "height": str(size.h)}
    changed = build_graph(cfg_file.edit(graph.cfg, {0: keys}), graph.dialect)
    for layer, other in zip(graph.layers, changed.layers, strict=True):
        if layer.tensors() != other.tensors():
            raise InputError(
                f"{layer}: random=1 changes the size of the input, and with it the shape of this layer's weights "
                "(expected random=0)",
                file=graph.cfg.file,
            )
    return changed
