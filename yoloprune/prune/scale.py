"""Making up for dropped channels by one factor for each that stays: ThiNet's own least squares (thinet.py).

Weaker than a refit of all weights (compensate.py), and without its constant; here to repeat what the paper does.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from yoloprune.darknet.model import Model
from yoloprune.darknet.weights import Arrays
from yoloprune.prune.channels import Channels, KeepMask
from yoloprune.prune.compensate import Fit, with_fit
from yoloprune.prune.moments import Consumer, Moments, matrix
from yoloprune.prune.slim import mask
from yoloprune.prune.thinet import Contributions


def scaled(model: Model, consumer: Consumer, moments: Moments, keep: KeepMask) -> Fit:
    """A consumer's weights times a factor for each channel (`Contributions.factors`), 0 for those not in `keep`.

    Only masked where nothing that it reads is gone, or its moments don't tell (mixed).
    """
    if consumer.mixed or keep[consumer.units].all():
        weight = matrix(model, consumer)
        there = torch.from_numpy(keep[consumer.units[0]].repeat(consumer.kernel if consumer.mixed else 1))
        return Fit(weight * there, torch.zeros_like(weight[:, :, 0]))
    return _fit(model, Contributions.of_moments(model, consumer, moments), keep)


def scale_alone(model: Model, channels: Channels, keep: KeepMask, contributions: Mapping[int, Contributions]) -> Model:
    """Masked, and consumers that lost channels scaled, from contributions in the network before: for one group.

    Consumers without contributions are only masked.
    """
    masked = mask(model, channels, keep)
    changed: dict[int, Arrays] = {}
    for layer, each in contributions.items():
        filters = channels.kept_outputs(layer, keep)
        before, after = (made.weights.layers[layer]["weight"][filters] for made in (model, masked))
        if not np.array_equal(before, after):
            changed[layer] = with_fit(masked.weights.layers[layer], _fit(model, each, keep), filters)
    return masked.with_arrays(changed)


def _fit(model: Model, contributions: Contributions, keep: KeepMask) -> Fit:
    weight = matrix(model, contributions.consumer)
    factors = contributions.factors(keep[contributions.units]).cpu()
    each = factors.repeat_interleave(contributions.consumer.kernel, 1)  # columns are channels by places of the kernel
    return Fit(weight * each[:, None, :], torch.zeros_like(weight[:, :, 0]))
