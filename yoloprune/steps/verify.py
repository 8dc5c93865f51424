"""`verify`: two networks that should be one, through every reader on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch

from yoloprune.choices import TOLERANCE
from yoloprune.darknet.dialect import dialect_named
from yoloprune.darknet.model import Model, load
from yoloprune.darknet.network import build
from yoloprune.detect.image import read_pixels
from yoloprune.detect.load import fit_for
from yoloprune.detect.resize import network_input
from yoloprune.errors import InputError
from yoloprune.readers import READERS, STOCK, ReaderError
from yoloprune.readers.base import Floats, Reader

_ALIKE: Final = 0.01
"""Largest difference over the largest value up to which two programs compute the same network, each in its own way."""


@dataclass(frozen=True)
class Verified:
    """How far two networks are apart."""

    max_abs_diff: Mapping[str, float]
    """For each reader, the largest difference at any tensor that enters a head."""
    max_relative_diff: Mapping[str, float]
    """The same over the largest value there; this is held against the tolerance."""
    skipped: Mapping[str, str]
    """Readers that did not answer, and why."""
    refused: Mapping[str, str]
    """Readers that run the first network and not the second, and why."""
    tolerance: float

    @property
    def within(self) -> bool:
        """Whether all readers that run the first agree on the second, and a stock reader is among them."""
        stock = any(name in STOCK for name in self.max_relative_diff)
        return stock and not self.refused and all(diff <= self.tolerance for diff in self.max_relative_diff.values())


def verify(
    cfg_a: Path,
    weights_a: Path,
    cfg_b: Path,
    weights_b: Path,
    *,
    image: Path | None = None,
    dialect: str = "alexeyab",
    tolerance: float = TOLERANCE,
    seed: int = 0,
) -> Verified:
    """Compare the tensors that enter each head of two networks, here and in every stock reader.

    On an image, or else on two random inputs. The networks must have the same input and as many heads. A reader that
    doesn't read Darknet's files itself is skipped if it computes another network for the first already.
    """
    a, b = (load(cfg, weights, dialect_named(dialect)) for cfg, weights in ((cfg_a, weights_a), (cfg_b, weights_b)))
    if a.graph.net.input != b.graph.net.input or len(a.graph.outputs) != len(b.graph.outputs):
        expected = f"input {a.graph.net.input} and {len(a.graph.outputs)} heads"
        found = f"{b.graph.net.input} and {len(b.graph.outputs)}"
        raise InputError(f"expected {expected} as in {cfg_a}, found {found}", file=cfg_b)
    inputs = _inputs(a, image, seed)
    absolute: dict[str, float] = {}
    relative: dict[str, float] = {}
    skipped: dict[str, str] = {}
    refused: dict[str, str] = {}

    def compare(name: str, outputs_a: Mapping[int, Floats], outputs_b: Mapping[int, Floats]) -> None:
        pairs = [(outputs_a[i], outputs_b[j]) for i, j in zip(a.graph.head_inputs, b.graph.head_inputs, strict=True)]
        diffs = [(_difference(x, y), float(np.abs(x).max())) for x, y in pairs]
        absolute[name] = max(diff for diff, _ in diffs)
        relative[name] = max(diff / max(largest, 1e-30) for diff, largest in diffs)

    ours = _ours(a, inputs)
    compare("yoloprune", ours, _ours(b, inputs))
    for name, reader in READERS.items():
        reason = reader.available()
        if reason is not None:
            skipped[name] = reason
            continue
        try:
            outputs_a = _theirs(reader, inputs, a, cfg_a, weights_a)
        except ReaderError as error:
            skipped[name] = str(error)
            continue
        if name not in STOCK and _is_another(ours, outputs_a):
            skipped[name] = f"computes something else for {cfg_a}, too; yoloprune check --for {name} says where"
            continue
        try:
            compare(name, outputs_a, _theirs(reader, inputs, b, cfg_b, weights_b))
        except ReaderError as error:
            refused[name] = str(error)
    return Verified(absolute, relative, skipped, refused, tolerance)


def _theirs(reader: Reader, inputs: Floats, model: Model, cfg: Path, weights: Path) -> dict[int, Floats]:
    outputs = reader.head_inputs(cfg, weights, inputs, [layer + 1 for layer in model.graph.head_inputs])
    return {head - 1: output for head, output in outputs.items()}


def _ours(model: Model, inputs: Floats) -> dict[int, Floats]:
    with torch.inference_mode():
        outputs = build(model)(torch.from_numpy(inputs), want=model.graph.head_inputs)
    return {layer: output.numpy() for layer, output in outputs.items()}


def _is_another(ours: Mapping[int, Floats], theirs: Mapping[int, Floats]) -> bool:
    """Whether a reader computes another network than Darknet does, and so can't tell whether two are one."""
    return any(
        ours[head].shape != theirs[head].shape
        or _difference(ours[head], theirs[head]) > _ALIKE * np.abs(ours[head]).max()
        for head in ours
    )


def _inputs(model: Model, image: Path | None, seed: int) -> Floats:
    c, h, w = model.graph.net.input
    if image is None:
        return np.random.default_rng(seed).random((2, c, h, w), np.float32)
    return network_input(read_pixels(image, c), w, h, fit_for(model.graph, None))[None]


def _difference(a: Floats, b: Floats) -> float:
    """Largest difference; infinite where a value is not a number."""
    if a.shape != b.shape:
        raise ReaderError(f"shapes {a.shape} and {b.shape}")
    diff = np.abs(a.astype(np.float64) - b)
    return float(np.where(np.isfinite(diff), diff, np.inf).max())
