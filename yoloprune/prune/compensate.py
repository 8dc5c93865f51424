"""Rebuilding what dropped channels gave: each consumer is refitted on what it still reads, in closed form.

Least squares on a few pictures, no labels, no training: Luo et al. 2017 (ThiNet, eq. 7) over all weights and a
constant, with the second moments of Optimal Brain Surgeon (Hassibi and Stork 1993). With z = (columns, 1) of the kept
inputs and the target t of the unpruned consumer, its weights times its inputs,

    min over V = (W', c) of  sum |V z - t|^2 + ridge |(V - (W_kept, 0)) L|^2,   L^2 = diag(sum z z^T).

The ridge pulls toward the masked weights, not toward 0, so what the images say nothing about stays as it was. How hard
it pulls is tried on unseen images (cross-validation: Stone 1974): places of one image are much alike, so neither their
number nor what is left unexplained on them tells how far a fit can be trusted on another.

Each input also counts as noisy, which is the same as a further ridge (Bishop 1995, Training with noise is equivalent to
Tikhonov regularization): training moves inputs a little apart from each other, by batch statistics and by its updates.
A refit in which large weights of nearly constant or collinear inputs cancel would not survive that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from yoloprune.darknet.layers.base import Keep
from yoloprune.darknet.model import Model
from yoloprune.darknet.network import build
from yoloprune.darknet.weights import Arrays
from yoloprune.prune.channels import Channels, KeepMask
from yoloprune.prune.layerwise import MEMORY, LayerwiseInputs, touched_by
from yoloprune.prune.moments import Consumer, HeldOut, Moments, affordable, consumers, matrix
from yoloprune.prune.slim import mask

RIDGES: Final = (1.0, 0.1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-9)
"""The strongest first: there little but the constant moves. The last is enough for dead and repeated channels, and all
that the constant gets."""
ENOUGH: Final = 0.7
"""Share of the most that a ridge explains on unseen pictures. What a ridge holds back is an error of the same sign in
all pictures, which adds up over layers; the noise that a weaker one lets in does less harm for the same sum."""

NOISE: Final = 0.01
"""Variance of the noise that a refit has to bear on each input, as a share of that input's own variance and of the mean
variance of all: a tenth of a standard deviation, as the mean of a hundred independent places has it."""


@dataclass(frozen=True)
class Fit:
    """A consumer's new weights."""

    weight: Tensor
    """[groups, N/groups, D] float64, 0 in dropped columns."""
    constant: Tensor
    """[groups, N/groups] float64, to add to every output."""

    def residuals(self, trial: HeldOut) -> Iterator[Tensor]:
        """What is missing at places [groups, N/groups, M], picture by picture."""
        for columns, wanted in zip(trial.columns, trial.wanted, strict=True):
            yield wanted - self.weight @ columns.double() - self.constant[:, :, None]


def refit(weight: Tensor, moments: Moments, keep: NDArray[np.bool_]) -> Fit:
    """Weights [groups, n, D] refitted on the columns `keep` [D] to give what `moments.crosses` asks for.

    Without targets: to give what the weights make of all columns. Moments over the inputs as they will be. Float64. The
    masked weights where no ridge is of use to images that it was not fitted on, and where rounding would leave more of
    the targets unexplained than without.
    """
    kept, gone = (torch.from_numpy(np.flatnonzero(which)).to(weight.device) for which in (keep, ~keep))
    rows = torch.cat([kept, torch.tensor([len(keep)], device=weight.device)])  # the last is the constant
    start = torch.cat([weight[:, :, kept], torch.zeros_like(weight[:, :, :1])], 2)
    folds = []
    for gram, cross in zip(moments.grams, moments.crosses, strict=True):
        read = gram[:, rows]
        a = read[:, :, rows]
        missing = cross[:, rows] - a @ start.mT if cross.shape[2] else read[:, :, gone] @ weight[:, :, gone].mT
        folds.append((a + torch.diag_embed(_noise(a)), missing))
    a, b = (sum(parts, torch.zeros_like(parts[0])) for parts in zip(*folds, strict=True))
    change = torch.zeros_like(b)
    ridge = _ridge(a, b, folds)
    if ridge is not None:
        solved = _solved(a, b, ridge)
        if _gain(a, b, solved) >= 0:
            change = solved
    change = change.mT
    fitted = torch.zeros_like(weight)
    fitted[:, :, kept] = start[:, :, :-1] + change[:, :, :-1]
    return Fit(fitted, change[:, :, -1])


def _noise(a: Tensor) -> Tensor:
    """What noise adds to the sums of squares `a` [G, K, K] of each input [G, K]; none on the constant, the last."""
    sums, count = a[:, :-1, -1], a[:, -1:, -1]
    squares = a.diagonal(dim1=1, dim2=2)[:, :-1]
    variances = (squares - sums**2 / count.clamp(min=1)).clamp(min=0)
    return torch.cat([noise_ridge(variances), torch.zeros_like(count)], 1)


def noise_ridge(variances: Tensor) -> Tensor:
    """What noise adds to the variance of each input [G, K], the same shape."""
    return NOISE * (variances + variances.mean(1, keepdim=True))


def _ridge(a: Tensor, b: Tensor, folds: Sequence[tuple[Tensor, Tensor]]) -> float | None:
    """The least ridge that, fitted on the other folds, explains nearly as much of each as any; None if none explains.

    What is explained rises and falls once over the ridges, most often between the two strongest, and is flat at the
    weak end: so it is measured against those two, from the least up. Each costs what solving costs.
    """

    @cache
    def explained(ridge: float) -> float:
        return sum(_gain(*fold, _solved(a - fold[0], b - fold[1], ridge)) for fold in folds)

    most = max(map(explained, RIDGES[:2]))
    if not most > 0:  # nor where the pictures overflow
        return None
    return next(ridge for ridge in reversed(RIDGES) if explained(ridge) >= ENOUGH * most)


def _gain(a: Tensor, b: Tensor, change: Tensor) -> float:
    """How much less of the targets stays unexplained with this change [G, K, n] than with the masked weights."""
    return float((change * (2 * b - a @ change)).sum())


def _solved(a: Tensor, b: Tensor, ridge: float) -> Tensor:
    """(a + ridge)^-1 b; 0 where rounding made `a` indefinite.

    a [G, K, K] positive semidefinite, its last row and column the constant's.
    """
    own = a.diagonal(dim1=1, dim2=2)
    floor = own[:, :-1].mean(1, keepdim=True) * 1e-6 + torch.finfo(own.dtype).tiny
    penalty = ridge * (own + floor)
    penalty[:, -1] = RIDGES[-1] * own[:, -1]  # a constant is no guess that more pictures would correct
    factor, failed = torch.linalg.cholesky_ex(a + torch.diag_embed(penalty))
    return torch.zeros_like(b) if failed.any() else torch.cholesky_solve(b, factor)


def fitted(model: Model, consumer: Consumer, moments: Moments, keep: KeepMask) -> Fit:
    """A consumer's new weights; from moments without targets, those that give what the old ones did.

    Mixed: every unpruned channel is fitted by those that stay, at any place of the kernel alike, and its weights go to
    them. That is kept only if pictures that were not fitted on lose less by it than by masking alone.
    """
    kept = keep[consumer.units[0]]
    weight = matrix(model, consumer).to(moments.grams.device)
    if not consumer.mixed:
        return refit(weight, moments, kept)
    mix = refit(torch.eye(consumer.columns).to(weight).expand(consumer.groups, -1, -1), moments, kept).weight
    by_place = weight.view(*weight.shape[:2], consumer.columns, consumer.kernel)
    mixed = torch.einsum("gnop,goi->gnip", by_place, mix).reshape(weight.shape)
    there = torch.from_numpy(kept.repeat(consumer.kernel)).to(weight.device)
    plain = Fit(weight * there, torch.zeros_like(weight[:, :, 0]))
    if not moments.unseen.columns:
        return plain
    constant = torch.cat(list(Fit(mixed, plain.constant).residuals(moments.seen)), 2).mean(2)
    errors = [
        sum(float((residual**2).sum()) for residual in fit.residuals(moments.unseen))
        for fit in (Fit(mixed, constant), plain)
    ]
    return Fit(mixed, constant) if errors[0] < errors[1] else plain


def compensate_alone(
    model: Model,
    channels: Channels,
    keep: KeepMask,
    wanted: Mapping[int, Consumer],
    moments: Mapping[int, Moments],
) -> Model:
    """Masked and refitted from moments of the unpruned network, without a picture: right for pruning of one group.

    What remains of the inputs is taken to be as before pruning. wanted: the forms that `moments` are of; consumers
    without are only masked.
    """
    masked = mask(model, channels, keep)
    changed: dict[int, Arrays] = {}
    for layer, observed in moments.items():
        filters = channels.kept_outputs(layer, keep)
        before, after = (each.weights.layers[layer] for each in (model, masked))
        # What they read is still there, or went in an earlier round.
        if after is before or np.array_equal(before["weight"][filters], after["weight"][filters]):
            continue
        fit = fitted(model, wanted[layer], observed, keep)
        changed[layer] = with_fit(masked.weights.layers[layer], fit, filters)
    return masked.with_arrays(changed)


def compensate(
    model: Model,
    channels: Channels,
    keep: KeepMask,
    batches: Iterable[Tensor],
    *,
    fit: Callable[[Model, Consumer, Moments, KeepMask], Fit] = fitted,
    device: str | torch.device = "cpu",
    memory: int = MEMORY,
) -> Model:
    """Masked and refitted front to back: inputs as the network already pruned gives them, targets from `model`.

    batches: calibration images as network input [B,C,H,W]. fit: how a consumer is refitted from its moments. memory:
    bytes of activations that may be kept.
    """
    masked = mask(model, channels, keep)
    original, pruned = build(model, device), build(masked, device)
    touched = touched_by(model, masked)
    walk = LayerwiseInputs((original, pruned), batches, touched, memory)
    changed: dict[int, Arrays] = {}
    for layer, exact in consumers(model.graph, channels).items():
        for consumer in affordable([exact]).values():
            if model.graph.layers[layer].sources[0] in touched:
                found = fit(model, consumer, walk.moments(consumer), keep)
                changed[layer] = with_fit(masked.weights.layers[layer], found, channels.kept_outputs(layer, keep))
                pruned.set_arrays(layer, changed[layer])
    return masked.with_arrays(changed)


def with_fit(masked: Arrays, fit: Fit, keep: Keep) -> Arrays:
    """A consumer's arrays with refitted weights for the filters in `keep` [N]; the others stay as masks have them.

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
