"""How small packed networks are, beside xz, gzip and zstd of the .weights, and the entropy of values by themselves.

python tools/bench_pack.py                        zeros at random, the others normal: the table of docs/format.md
python tools/bench_pack.py CFG WEIGHTS [...]      of trained networks, as they are
"""

from __future__ import annotations

import gzip
import lzma
import math
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from yoloprune.formats import Files, Floats, ypz
from yoloprune.steps.pack import pack

SIZE: Final = 3_270_000
"""Weights of the network that is made up."""


def entropy(values: NDArray[np.float32]) -> float:
    """Bytes, if places, exponents, and the other 24 bits of each float are coded for themselves."""
    there = values[values != 0]
    counts = np.bincount(there.view(np.uint32) >> 23 & 255), np.array([there.size, values.size - there.size])
    bits = 24.0 * there.size
    for each in counts:
        found = each[each > 0]
        bits -= float((found * np.log2(found / found.sum())).sum())
    return float(bits / 8)


def made_up(sparsity: float) -> list[float]:
    """Bytes: packed, entropy, xz, gzip, zstd."""
    rng = np.random.default_rng(0)
    values = rng.normal(0, 0.03, SIZE).astype(np.float32)
    values[rng.random(SIZE) < sparsity] = 0
    packed = len(ypz.dump(Files(b"", None, bytes(20), (Floats(values, weights=True),))))
    return [packed, entropy(values), *_others(values.tobytes())]


def trained(cfg: Path, weights: Path) -> list[float]:
    """The same of files, without the entropy."""
    with tempfile.TemporaryDirectory() as folder:
        packed = pack(cfg, weights, Path(folder) / "net.ypz").after
    return [packed, math.nan, *_others(weights.read_bytes())]


def _others(content: bytes) -> list[float]:
    return [len(lzma.compress(content, preset=9)), len(gzip.compress(content, 9)), _zstd(content)]


def _zstd(content: bytes) -> float:
    """By the program of that name; no number where there is none."""
    program = shutil.which("zstd")
    if program is None:
        return math.nan
    return len(subprocess.run([program, "-19", "-c"], input=content, stdout=subprocess.PIPE, check=True).stdout)


def main() -> None:
    """A row each."""
    files = [Path(word) for word in sys.argv[1:]]
    rows = {weights.name: trained(cfg, weights) for cfg, weights in zip(files[::2], files[1::2], strict=True)}
    if not files:
        rows = {f"{sparsity:.0%} zeros": made_up(sparsity) for sparsity in (0, 0.5, 0.8, 0.9, 0.95, 0.98)}
    print(f"{'MB':24}" + "".join(f"{name:>10}" for name in (".ypz", "entropy", "xz -9", "gzip -9", "zstd -19")))
    for name, sizes in rows.items():
        print(f"{name:24}" + "".join(f"{'-':>10}" if math.isnan(size) else f"{size / 1e6:10.3f}" for size in sizes))


if __name__ == "__main__":
    main()
