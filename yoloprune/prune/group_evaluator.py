"""Cuts of single groups, tried on a measure's pictures: how far they disturb the heads, how much accuracy they cost.

A few pictures hold most of what accuracy can be lost: those whose objects are few of their class and were found. They
come first, so that the output error, and what a measurement has seen of the loss, tell early what the rest
will say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from itertools import chain
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from yoloprune.darknet.network import Network
from yoloprune.darknet.predictions import join
from yoloprune.detect.activation_cache import ActivationCache
from yoloprune.detect.measure import Measure, network_for_measuring
from yoloprune.detect.outcome import Outcome, interval, resamples
from yoloprune.detect.pictures import Batch
from yoloprune.prune.pruner import Pruner
from yoloprune.prune.sensitivity import Curve, Point

PROXY_IMAGES: Final = 16
"""Pictures of a proxy measurement, or a few more to fill a batch."""
_ASK_AT: Final = (0.25, 0.5)
"""Shares of the pictures after which a measurement may be given up."""
_CHANGE: Final = 0.15
"""Standard deviation of what pruning changes of a picture's contribution to the accuracy."""

_Part = tuple[Batch, Mapping[int, Tensor]]


class GroupEvaluator:
    """Cuts of a pruner's network, each against the original.

    uncut: gives what the pruner's network predicts of the measure's pictures; original: likewise the original network,
    from which losses count (default: the pruner's is the original). Called once, when they are needed.
    """

    def __init__(
        self,
        pruner: Pruner,
        measure: Measure,
        uncut: Callable[[], Any],
        original: Callable[[], Any] | None = None,
        seed: int = 0,
    ) -> None:
        self.pruner, self.measure, self.seed = pruner, measure, seed
        self._find_uncut, self._find_original = uncut, original
        self._base = network_for_measuring(pruner.model, pruner.device)
        self._variant = network_for_measuring(pruner.model, pruner.device)
        self._held = pruner.model.weights
        self._begun: tuple[tuple[str, int], list[_Part]] | None = None

    @cached_property
    def baseline(self) -> float:
        """Accuracy of the original on all pictures."""
        return self._outcomes[0].accuracy

    def output_error(self, curve: Curve, dropped: int) -> float:
        """Sum of squared changes of what the heads rank their answers by, over the sum of its squares."""
        first = self._first(curve, dropped)
        changes = (self._scores(outputs) - b for (_, outputs), b in zip(first, self._before, strict=True))
        return sum(map(_energy, changes)) / self._energy_before

    def point(self, curve: Curve, dropped: int, most: float = float("inf")) -> Point:
        """One measurement; given up early where the first pictures leave little hope that it loses at most `most`.

        Pictures that were not measured count as found like before pruning. What `output_error` has just computed is
        not computed again.
        """
        first, images = self._first(curve, dropped), len(self.measure.pictures)
        uncut, asks = self._uncut, [share * images for share in _ASK_AT]
        seen: list[int] = []
        parts = []
        for numbers, part in self.measure.predict(chain(first, self._cache.outputs(self._variant, len(first)))):
            seen += numbers
            parts.append(part)
            if asks and asks[0] <= len(seen) < images:
                asks = [at for at in asks if at > len(seen)]
                loss = self.baseline - self.measure.outcome(uncut.replaced(seen, join(parts))).accuracy
                if loss - most > _CHANGE * self._contributions_left[len(seen)]:
                    break
        outcome = self.measure.outcome(uncut.replaced(seen, join(parts)))
        losses = self._resampled - outcome.resampled(self._counts)
        return Point(dropped, outcome.accuracy, interval(losses), len(seen) / images)

    def _first(self, curve: Curve, dropped: int) -> list[_Part]:
        """What the pruned network puts out for the first pictures; the variant has its weights from here on."""
        wanted = curve.label, dropped
        if self._begun is None or self._begun[0] != wanted:
            self._cache.advance(self.pruner.changed(curve))
            weights = self.pruner.alone(curve, dropped).weights
            self._variant.set_weights(weights, self._held)
            self._held = weights
            self._begun = wanted, self._beginning(self._variant)
        return self._begun[1]

    def _beginning(self, network: Network) -> list[_Part]:
        parts, seen = [], 0
        for batch, outputs in self._cache.outputs(network):
            parts.append((batch, outputs))
            seen += len(batch.sizes)
            if seen >= PROXY_IMAGES:
                break
        return parts

    def _scores(self, outputs: Mapping[int, Tensor]) -> Tensor:
        """What the heads rank their answers by [B, S]; where that is no number, they say nothing."""
        layers = self._base.graph.layers
        scores = torch.cat([layers[index].scores(outputs[index]) for index in self._base.graph.outputs], 1)
        return scores.nan_to_num(0.0, 0.0, 0.0)

    @cached_property
    def _before(self) -> list[Tensor]:
        return [self._scores(outputs) for _, outputs in self._beginning(self._base)]

    @cached_property
    def _energy_before(self) -> float:
        return max(sum(map(_energy, self._before)), 1e-30)

    @cached_property
    def _uncut(self) -> Any:
        return self._find_uncut()

    @cached_property
    def _outcomes(self) -> tuple[Outcome, Outcome]:
        """Of the original and before pruning; both at once, while decoded pictures are kept in their own order."""
        before = self.measure.outcome(self._uncut)
        return self.measure.outcome(self._find_original()) if self._find_original else before, before

    @property
    def _contributions(self) -> NDArray[np.float64]:
        """What each picture's findings are worth, before pruning."""
        return self._outcomes[1].contributions

    @cached_property
    def _order(self) -> NDArray[np.int64]:
        """Pictures that contribute most first."""
        order: NDArray[np.int64] = np.argsort(-self._contributions, kind="stable")
        return order

    @cached_property
    def _contributions_left(self) -> NDArray[np.float64]:
        """[I+1]: root of the sum of squares of the contributions of the pictures behind the first so many."""
        squares = np.append(self._contributions[self._order] ** 2, 0.0)
        behind: NDArray[np.float64] = np.sqrt(np.cumsum(squares[::-1])[::-1])
        return behind

    @cached_property
    def _cache(self) -> ActivationCache:
        return ActivationCache(self.measure.pictures.select(self._order.tolist()), self._base)

    @cached_property
    def _counts(self) -> Tensor:
        return resamples(len(self.measure.pictures), self.seed).to(self.pruner.device)

    @cached_property
    def _resampled(self) -> NDArray[np.float64]:
        """The original's accuracy on resamples of the pictures."""
        return self._outcomes[0].resampled(self._counts)


def _energy(scores: Tensor) -> float:
    return float(torch.linalg.vector_norm(scores, dtype=torch.float64)) ** 2
