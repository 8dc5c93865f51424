"""`verify`: two networks that should be one, through every reader on this machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, Protocol

import numpy as np
import torch

from yoloprune.choices import TOLERANCE
from yoloprune.darknet import cfg as cfg_file
from yoloprune.darknet import weights as weights_file
from yoloprune.darknet.dialect import Dialect, dialect_named
from yoloprune.darknet.fold import folded
from yoloprune.darknet.model import Model, load
from yoloprune.darknet.network import build
from yoloprune.detect.image import read_pixels
from yoloprune.detect.load import fit_for
from yoloprune.detect.resize import network_input
from yoloprune.errors import InputError
from yoloprune.readers import READERS, STOCK, ReaderError
from yoloprune.readers.base import Floats, Reader
from yoloprune.steps.onnx_file import expected, outputs_of

_ALIKE: Final = 0.01
"""Largest difference over the largest value up to which two programs compute the same network, each in its own way."""
_Pairs = Sequence[tuple[Floats, Floats]]


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


class _Second(Protocol):
    """The other network."""

    @property
    def scale(self) -> float:
        """What differences are held against, at the least."""

    def pairs(self, reader: Reader | None, first: Mapping[int, Floats]) -> _Pairs:
        """What is to be equal, given the first's `head_inputs` in that reader, or here. ReaderError."""


@dataclass(frozen=True)
class _Files:
    """A cfg and its weights: in each reader what enters the heads is compared with the first's in that reader."""

    a: Model
    b: Model
    files: tuple[Path, Path]
    inputs: Floats
    scale: float = 1e-30

    def pairs(self, reader: Reader | None, first: Mapping[int, Floats]) -> _Pairs:
        second = _ours(self.b, self.inputs) if reader is None else _theirs(reader, self.inputs, self.b, *self.files)
        layers = zip(self.a.graph.head_inputs, self.b.graph.head_inputs, strict=True)
        return [(first[i], second[j]) for i, j in layers]


@dataclass(frozen=True)
class _Onnx:
    """A `.onnx` file: its outputs in onnxruntime are compared with what they should be by the first in each reader."""

    a: Model
    outputs: Sequence[Floats]
    decoded: bool
    inputs: Floats

    @property
    def scale(self) -> float:
        """1 for boxes and scores, which may all be next to 0."""
        return 1.0 if self.decoded else 1e-30

    def pairs(self, reader: Reader | None, first: Mapping[int, Floats]) -> _Pairs:
        wanted = expected(self.a, self.inputs, decode=self.decoded, known=first)
        if len(wanted) != len(self.outputs):
            raise ReaderError(f"expected {len(wanted)} outputs, found {len(self.outputs)}")
        return list(zip(wanted, self.outputs, strict=True))


def verify(
    cfg_a: Path,
    weights_a: Path,
    cfg_b: Path,
    weights_b: Path | None = None,
    *,
    image: Path | None = None,
    dialect: str = "alexeyab",
    tolerance: float = TOLERANCE,
    seed: int = 0,
) -> Verified:
    """Compare the tensors that enter each head of two networks, here and in every stock reader.

    On an image, or else on two random inputs. The networks must have the same input and as many heads. A reader that
    doesn't read Darknet's files itself is skipped if it computes another network for the first already. A `.onnx` file
    does instead of the second pair: what onnxruntime makes of it is compared with the first in each reader, which gets
    that with batch norm folded, as the file has it, because readers compute batch norm by several formulas.
    """
    a = load(cfg_a, weights_a, dialect_named(dialect))
    inputs = _inputs(a, image, seed)
    b = _second(a, cfg_b, weights_b, inputs, dialect_named(dialect), cfg_a)
    absolute: dict[str, float] = {}
    relative: dict[str, float] = {}
    skipped: dict[str, str] = {}
    refused: dict[str, str] = {}

    def compare(name: str, pairs: _Pairs) -> None:
        diffs = [(_difference(x, y), float(np.abs(x).max())) for x, y in pairs]
        absolute[name] = max(diff for diff, _ in diffs)
        relative[name] = max(diff / max(largest, b.scale) for diff, largest in diffs)

    ours = _ours(a, inputs)
    try:
        compare("yoloprune", b.pairs(None, ours))
    except ReaderError as error:
        raise InputError(str(error), file=cfg_b) from error
    with _first(a, cfg_a, weights_a, fold=isinstance(b, _Onnx)) as files:
        for name, reader in READERS.items():
            try:
                outputs_a = _answers(name, reader, inputs, a, files, ours)
            except ReaderError as error:
                skipped[name] = str(error)
                continue
            try:
                compare(name, b.pairs(reader, outputs_a))
            except ReaderError as error:
                refused[name] = str(error)
    return Verified(absolute, relative, skipped, refused, tolerance)


def _second(a: Model, cfg: Path, weights: Path | None, inputs: Floats, dialect: Dialect, like: Path) -> _Second:
    """The other network. InputError for one that can't be compared."""
    if cfg.suffix.lower() == ".onnx":
        if weights is not None:
            raise InputError(f"expected nothing behind the .onnx file, found {weights}", file=cfg)
        named = outputs_of(cfg, inputs)
        return _Onnx(a, list(named.values()), "boxes" in named and "scores" in named, inputs)
    if weights is None:
        raise InputError("expected its .weights file behind it, found none", file=cfg)
    b = load(cfg, weights, dialect)
    if a.graph.net.input != b.graph.net.input or len(a.graph.outputs) != len(b.graph.outputs):
        wanted = f"input {a.graph.net.input} and {len(a.graph.outputs)} heads"
        found = f"{b.graph.net.input} and {len(b.graph.outputs)}"
        raise InputError(f"expected {wanted} as in {like}, found {found}", file=cfg)
    return _Files(a, b, (cfg, weights), inputs)


@contextmanager
def _first(a: Model, cfg: Path, weights: Path, *, fold: bool) -> Iterator[tuple[Path, Path]]:
    """The first network's files; fold: where it can be, others without batch norm."""
    try:
        model = folded(a) if fold else None
    except InputError:
        model = None
    if model is None:
        yield cfg, weights
        return
    with TemporaryDirectory(prefix="yoloprune-verify-") as folder:
        files = Path(folder) / cfg.name, Path(folder) / weights.name
        cfg_file.write(files[0], model.graph.cfg)
        weights_file.write(files[1], model.weights, model.graph.layers)
        yield files


def _answers(
    name: str, reader: Reader, inputs: Floats, a: Model, files: tuple[Path, Path], ours: Mapping[int, Floats]
) -> dict[int, Floats]:
    """What enters the heads in a reader. ReaderError if it isn't there, refuses, or computes another network."""
    reason = reader.available()
    if reason is not None:
        raise ReaderError(reason)
    found = _theirs(reader, inputs, a, *files)
    if name not in STOCK and _is_another(ours, found):
        why = f"computes something else for {a.graph.cfg.file}, too; yoloprune check --for {name} says where"
        raise ReaderError(why)
    return found


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
