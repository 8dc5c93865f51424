"""Batch normalization by each dialect's formula (Darknet: batchnorm_layer.c, blas.c)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from yoloprune.darknet.dialect import Dialect


def inverse_deviation(variance: Tensor, dialect: Dialect) -> Tensor:
    """1/sqrt(var + eps) or 1/(sqrt(var) + eps), as the dialect has it [N]."""
    if dialect.bn_epsilon_in_root:
        return (variance + dialect.bn_epsilon).rsqrt()
    return (variance.clamp(min=0).sqrt() + dialect.bn_epsilon).reciprocal()  # negative denormals are 0


def fold(scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, dialect: Dialect) -> tuple[Tensor, Tensor]:
    """Inference as an affine map: y = factor * x + offset, both [N] in the type of `scale`.

    In double as in Darknet (network.c fuse_conv_batchnorm; blas.c normalize_cpu): for variances near -1e-5, which Caffe
    leaves, a float would be off by a thousandth and more.
    """
    factor = scale * inverse_deviation(variance.double(), dialect)
    return factor.to(scale.dtype), (bias - mean * factor).to(scale.dtype)


def normalize(
    x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, dialect: Dialect, momentum: float
) -> Tensor:
    """Training: normalize x [B,N,H,W] by its own statistics and move the running `mean`, `variance` [N] toward them.

    Darknet divides the sum of squares by B*H*W-1, also for normalizing (blas.c variance_cpu). The running values take
    a share of `momentum` of the new. In mixed precision statistics are float32, and x keeps its type.
    """
    result: Tensor = _BatchNorm.apply(x, scale, bias, mean, variance, dialect, momentum)  # type: ignore[no-untyped-call]
    return result


class _BatchNorm(torch.autograd.Function):
    """Darknet's forward, and its backward, in which the small number is always 1e-5 under the root."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        scale: Tensor,
        bias: Tensor,
        mean: Tensor,
        variance: Tensor,
        dialect: Dialect,
        momentum: float,
    ) -> Tensor:
        exact = x.to(scale.dtype)
        middle = exact.mean((0, 2, 3))  # torch.var_mean is as exact, but several times slower
        spread = (exact - _wide(middle)).square_().sum((0, 2, 3)) / max(x.numel() // x.shape[1] - 1, 1)
        mean.lerp_(middle, momentum)
        variance.lerp_(spread, momentum)
        inverse = inverse_deviation(spread, dialect)
        factor = scale * inverse
        ctx.save_for_backward(x, scale, middle, inverse, (spread + 1e-5).rsqrt())
        return torch.addcmul(_wide(bias - middle * factor), exact, _wide(factor)).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, middle, inverse, inverse_back = ctx.saved_tensors
        grad_x, grad_scale, grad_bias = torch.ops.aten.native_batch_norm_backward(
            grads[0], x, scale, None, None, middle, inverse_back, True, 1e-5, [True, True, True]
        )
        return grad_x, grad_scale * (inverse / inverse_back), grad_bias, None, None, None, None


def _wide(values: Tensor) -> Tensor:
    return values.view(1, -1, 1, 1)
