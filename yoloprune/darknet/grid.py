"""The few values that a layer's quantized weights may take: multiples of a filter's scale, or entries of a codebook."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

LEAST_BITS: Final = 2
MOST_BITS: Final = 8
_LEAST: Final = np.float32(np.finfo(np.float32).tiny)
"""Of scales but 0: no value is a denormal, which processors and programs treat in several ways."""


@dataclass(frozen=True, eq=False)
class Grid:
    """What a code means. Exactly one of `scales` and `codebook` is there.

    Parameters
    ----------
    bits
        Of a code, 2 to 8.
    scales
        Uniform, symmetric: [N], finite, 0 or at least 2^-126, one for each filter. The codes are integers q in two's
        complement of `bits` bits, -(2^(bits-1) - 1) to 2^(bits-1) - 1, and the value is scales[n] * q in float32.
    codebook
        [2^bits], finite, the values of the whole layer; codebook[0] is 0.
    """

    bits: int
    scales: NDArray[np.float32] | None = None
    codebook: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        if not LEAST_BITS <= self.bits <= MOST_BITS:
            raise ValueError(f"bits: expected {LEAST_BITS} to {MOST_BITS}, found {self.bits}")
        if (self.scales is None) == (self.codebook is None):
            raise ValueError("expected either scales or a codebook")
        if self.scales is not None:
            self._check_scales(self.scales)
        if self.codebook is not None:
            self._check_codebook(self.codebook)

    @property
    def largest(self) -> int:
        """The largest q of a uniform grid."""
        return int(2 ** (self.bits - 1) - 1)

    def nearest(self, weight: NDArray[np.float32]) -> NDArray[np.uint8]:
        """The code of the nearest value for each weight, of the same shape; `nearest(values(codes))` has those values.

        weight: [N, ...], finite.
        """
        if self.scales is not None:
            scales = _by_filter(self.scales, weight)
            steps = np.zeros(weight.shape, np.float32)
            with np.errstate(over="ignore", under="ignore"):  # far over the largest, or next to 0
                np.divide(weight, scales, out=steps, where=scales > 0)
            q = np.rint(np.clip(steps, -self.largest, self.largest)).astype(np.int8)
            return q.view(np.uint8) & np.uint8(2**self.bits - 1)
        assert self.codebook is not None
        order = np.argsort(self.codebook, kind="stable")
        ascending = self.codebook[order].astype(np.float64)
        middles = (ascending[1:] + ascending[:-1]) / 2
        return order.astype(np.uint8)[np.searchsorted(middles, weight)]

    def values(self, codes: NDArray[np.uint8]) -> NDArray[np.float32]:
        """What a decoder makes of the codes, [N, ...], computed in float32."""
        if self.scales is not None:
            q = codes.astype(np.int16)
            q[codes > self.largest] -= 2**self.bits
            return _by_filter(self.scales, codes) * q.astype(np.float32)
        assert self.codebook is not None
        return self.codebook[codes]

    def near(self, values: NDArray[np.float32], weight: NDArray[np.float32], share: float) -> NDArray[np.float32]:
        """What is closest to each weight and still rounds to its value: within `share` of the way to the next middle.

        values, weight: [N, ...]; values are of the grid.
        """
        if self.scales is not None:
            below = above = np.float32(share / 2) * _by_filter(self.scales, values)
        else:
            assert self.codebook is not None
            ascending = np.unique(self.codebook)
            half = np.pad(np.float32(share / 2) * np.diff(ascending), 1)
            places = np.searchsorted(ascending, values)
            below, above = half[places], half[places + 1]
        return np.clip(weight, values - below, values + above)

    def _check_scales(self, scales: NDArray[np.float32]) -> None:
        if scales.dtype != np.float32 or scales.ndim != 1:
            raise ValueError(f"scales: expected float32 of shape [N], found {scales.dtype} of {scales.shape}")
        most = np.finfo(np.float32).max / self.largest
        # By its bits, as a denormal counts as 0 where some library has told the processor so; so do products with it.
        normal = (scales.view(np.uint32) == 0) | (scales.view(np.uint32) >= _LEAST.view(np.uint32))
        if not (normal & ~np.signbit(scales) & (scales <= most)).all():
            raise ValueError(f"scales: expected 0, or {_LEAST:g} to {most:g}")

    def _check_codebook(self, codebook: NDArray[np.float32]) -> None:
        if codebook.dtype != np.float32 or codebook.shape != (2**self.bits,):
            found = f"{codebook.dtype} of {codebook.shape}"
            raise ValueError(f"codebook: expected float32 of shape ({2**self.bits},), found {found}")
        if not np.isfinite(codebook).all() or codebook[0] != 0 or np.signbit(codebook[0]):
            raise ValueError("codebook: expected finite values, the first 0")


def _by_filter(scales: NDArray[np.float32], like: NDArray[np.generic]) -> NDArray[np.float32]:
    """[N] to [N, 1, ...]."""
    if len(scales) != len(like):
        raise ValueError(f"expected an array of {len(scales)} filters, found shape {like.shape}")
    return scales.reshape(-1, *[1] * (like.ndim - 1))
