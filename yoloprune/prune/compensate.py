"""Rebuilding what dropped channels gave: each consumer is refitted on what it still reads, in closed form.

Least squares on a few pictures, no labels, no training: Luo et al. 2017 (ThiNet, eq. 7) over all weights and a
constant, with the second moments of Optimal Brain Surgeon (Hassibi and Stork 1993). With z = (columns, 1) of the kept
inputs and the target t of the unpruned consumer, its weights times its inputs,

    min over V = (W', c) of  sum |V z - t|^2 + ridge |(V - (W_kept, 0)) L|^2,   L^2 = diag(sum z z^T).

The ridge pulls toward the plain cut, not toward 0, so what the pictures say nothing about stays as it was. How hard it
pulls, the pictures say too (Hoerl, Kennard and Baldwin 1975): columns times what stays unexplained, over samples times
what the change explains. With many pictures, or targets that can be met, it goes to 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from yoloprune.darknet.layers.base import Keep
from yoloprune.darknet.layers.convolution import Affine
from yoloprune.darknet.model import Model
from yoloprune.darknet.network import Network, build
from yoloprune.darknet.weights import Arrays, Weights
from yoloprune.prune.channels import Channels, KeepAtoms
from yoloprune.prune.moments import SAMPLES_PER_COLUMN, Consumer, Moments, consumers, matrix, sampled
from yoloprune.prune.slim import mask

LEAST_RIDGE: Final = 1e-9
MOST_RIDGE: Final = 0.1
"""Bounds of the ridge; the lower one is enough for dead and repeated channels."""


@dataclass(frozen=True)
class Fit:
    """A consumer's new weights."""

    weight: Tensor
    """[groups, N/groups, D] float64, 0 in dropped columns."""
    constant: Tensor
    """[groups, N/groups] float64, to add to every output."""


def refit(weight: Tensor, moments: Moments, keep: NDArray[np.bool_]) -> Fit:
    """Weights [groups, n, D] refitted on the columns `keep` [D] to give what `moments.cross` [groups, D+1, n] asks for.

    Moments over the inputs as they will be. Float64. Where they can't be solved for, the plain cut.
    """
    kept = torch.from_numpy(np.flatnonzero(keep)).to(weight.device)
    rows = torch.cat([kept, torch.tensor([len(keep)], device=weight.device)])  # the last is the constant
    a = moments.gram[:, rows][:, :, rows]
    start = torch.cat([weight[:, :, kept], torch.zeros_like(weight[:, :, :1])], 2)
    b = moments.cross[:, rows] - a @ start.mT
    change = _solved(a, b, LEAST_RIDGE)
    ridge = _ridge(a, start.mT + change, change, moments.cross[:, rows], moments.energy)
    change = _solved(a, b, ridge).mT
    fitted = torch.zeros_like(weight)
    fitted[:, :, kept] = start[:, :, :-1] + change[:, :, :-1]
    return Fit(fitted, change[:, :, -1])


def _ridge(a: Tensor, fitted: Tensor, change: Tensor, cross: Tensor, energy: Tensor) -> float:
    """Hoerl, Kennard and Baldwin's choice; a [G, K, K], fitted, change and cross [G, K, n], energy [G, n]."""
    unexplained = energy.sum() - 2 * (fitted * cross).sum() + (fitted * (a @ fitted)).sum()
    explained = (change[:, :-1] ** 2 * a.diagonal(dim1=1, dim2=2)[:, :-1, None]).sum()
    columns, samples = a.shape[1] - 1, float(a[0, -1, -1])
    ridge = columns * float(unexplained) / max(samples * float(explained), 1e-300)
    return min(max(ridge, LEAST_RIDGE), MOST_RIDGE)


def _solved(a: Tensor, b: Tensor, ridge: float) -> Tensor:
    """(a + ridge)^-1 b; a [G, K, K] positive semidefinite, its last row and column the constant's."""
    own = a.diagonal(dim1=1, dim2=2)
    floor = own[:, :-1].mean(1, keepdim=True) * 1e-6 + torch.finfo(own.dtype).tiny
    while ridge <= MOST_RIDGE:
        factor, failed = torch.linalg.cholesky_ex(a + torch.diag_embed(ridge * (own + floor)))
        if not failed.any():
            return torch.cholesky_solve(b, factor)
        ridge *= 10  # rounding made the equations indefinite
    return torch.zeros_like(b)


def compensate_alone(
    model: Model,
    channels: Channels,
    keep: KeepAtoms,
    wanted: Mapping[int, Consumer],
    moments: Mapping[int, Moments],
) -> Model:
    """Masked and refitted from moments of the uncut network, without a picture: right for the cut of one group.

    What remains of the inputs is taken to be as before the cut. Consumers without moments are only masked.
    """
    masked = mask(model, channels, keep)
    changed: dict[int, Arrays] = {}
    for layer, observed in moments.items():
        kept = keep[wanted[layer].atoms[0]]
        if kept.all():
            continue
        weight = matrix(model, wanted[layer]).to(observed.gram.device)
        fit = refit(weight, observed.asking_for(weight), kept)
        changed[layer] = _fitted(masked.weights.layers[layer], fit, channels.kept_outputs(layer, keep))
    return _replaced(masked, changed)


def compensate(
    model: Model,
    channels: Channels,
    keep: KeepAtoms,
    batches: Iterable[Tensor],
    *,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> Model:
    """Masked and refitted front to back: inputs as the network already pruned gives them, targets from `model`.

    batches: calibration pictures as network input [B,C,H,W]; what all of them need between two layers is held at once.
    """
    masked = mask(model, channels, keep)
    original, pruned = build(model, device), build(masked, device)
    wanted = consumers(model.graph, channels)
    generator = torch.Generator().manual_seed(seed)
    states = [({-1: batch.to(device)}, {-1: batch.to(device)}) for batch in batches]
    images = sum(len(old[-1]) for old, _ in states)
    last_reader = {source: layer.index for layer in model.graph.layers for source in layer.sources}
    changed: dict[int, Arrays] = {}
    with torch.inference_mode():
        for layer in model.graph.layers:
            consumer = wanted.get(layer.index)
            source = layer.sources[0]
            if consumer is not None and any(new[source] is not old[source] for old, new in states):
                moments = _observed(original, pruned, consumer, source, states, images, generator)
                weight = matrix(model, consumer).to(device)
                fit = refit(weight, moments, keep[consumer.atoms[0]])
                arrays = _fitted(masked.weights.layers[layer.index], fit, channels.kept_outputs(layer.index, keep))
                changed[layer.index] = arrays
                for name, array in arrays.items():
                    getattr(pruned.layers[layer.index], name).copy_(torch.from_numpy(array))
            same = layer.index not in changed and all(
                np.array_equal(array, masked.weights.layers[layer.index][name])
                for name, array in model.weights.layers[layer.index].items()
            )
            for old, new in states:
                shared = same and all(new[each] is old[each] for each in layer.sources)
                old[layer.index] = original.layers[layer.index](*(old[each] for each in layer.sources))
                new[layer.index] = (
                    old[layer.index] if shared else pruned.layers[layer.index](*(new[each] for each in layer.sources))
                )
                for each in layer.sources:
                    if last_reader[each] == layer.index:
                        old.pop(each, None)
                        new.pop(each, None)
    return _replaced(masked, changed)


_State = tuple[dict[int, Tensor], dict[int, Tensor]]


def _observed(
    original: Network,
    pruned: Network,
    consumer: Consumer,
    source: int,
    states: list[_State],
    images: int,
    generator: torch.Generator,
) -> Moments:
    """Moments of the pruned network's inputs, and what the original's weights make of the original's."""
    before, after = (cast(Affine, network.layers[consumer.layer]) for network in (original, pruned))
    targets = before.weight.shape[0] // consumer.groups
    moments = Moments.zero(consumer, targets, before.weight.device)
    weight = before.weight.view(consumer.groups, targets, -1).double()
    most = SAMPLES_PER_COLUMN * consumer.columns / images
    for old, new in states:
        columns = after.columns(new[source])
        some = sampled(columns, int(most * len(new[source])) + 1, generator)
        wanted = weight @ before.columns(old[source])[:, :, some].double()
        moments.add(columns[:, :, some], wanted)
    return moments


def _fitted(masked: Arrays, fit: Fit, keep: Keep) -> Arrays:
    """The arrays with refitted weights for the filters in `keep` [N]; the others stay as masks have them.

    The constant goes where every dialect computes the same.
    """
    weight = fit.weight.cpu().numpy().reshape(masked["weight"].shape)
    constant = fit.constant.cpu().numpy().reshape(-1)
    refitted = {"weight": weight}
    if "mean" in masked:
        refitted["mean"] = masked["mean"] - constant
    else:
        refitted["bias"] = masked["bias"] + constant
    result = dict(masked)
    for name, array in refitted.items():
        rows = keep.reshape(-1, *[1] * (array.ndim - 1))
        result[name] = np.where(rows, array.astype(np.float32), masked[name])
    return result


def _replaced(model: Model, changed: Mapping[int, Arrays]) -> Model:
    layers = tuple(changed.get(index, arrays) for index, arrays in enumerate(model.weights.layers))
    return model.with_weights(Weights(model.weights.header, layers))
