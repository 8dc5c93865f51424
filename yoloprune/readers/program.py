"""The jobs of a `Reader`, asked of the worker module that does them in a process of its own."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yoloprune.readers.base import Floats, ReaderError
from yoloprune.readers.process import Answer, call


@dataclass(frozen=True)
class Program:
    """A program behind a worker; a reader's module has these methods as its functions, or its own for some of them."""

    worker: str
    """Name of the module."""
    always: Callable[[], Mapping[str, Any]] = dict
    """What every job says beside; may raise ReaderError."""

    def call(
        self,
        what: str,
        cfg: Path | None = None,
        weights: Path | None = None,
        more: Mapping[str, Any] | None = None,
        arrays: Mapping[str, Floats] | None = None,
    ) -> Answer:
        """One job on two files, or on what `more` names."""
        files = {"cfg": None if cfg is None else str(cfg), "weights": None if weights is None else str(weights)}
        return call(self.worker, {"do": what, **self.always(), **files, **(more or {})}, arrays)

    def loads(self, cfg: Path, weights: Path | None) -> str | None:
        """None if the program takes the files, else the reason."""
        try:
            self.call("load", cfg, weights)
        except ReaderError as error:
            return str(error)
        return None

    def head_inputs(self, cfg: Path, weights: Path, inputs: Floats, heads: Sequence[int]) -> dict[int, Floats]:
        """The tensor that enters each head, [B, C, H, W]."""
        answer = self.call("head_inputs", cfg, weights, {"heads": [int(head) for head in heads]}, {"inputs": inputs})
        return {int(name): array for name, array in answer.arrays.items()}

    def race(
        self, files: Sequence[Sequence[Path]], images: Sequence[Floats], rounds: int, threads: int = 1
    ) -> list[list[float]]:
        """Seconds of a forward pass, networks in turns."""
        more = {"files": [list(map(str, each)) for each in files], "rounds": rounds, "threads": threads}
        arrays = {str(number): image for number, image in enumerate(images)}
        return [[float(seconds) for seconds in each] for each in self.call("race", more=more, arrays=arrays).value]

    def layer_seconds(self, cfgs: Sequence[str], floats: Sequence[int]) -> list[float]:
        """Least time of each cfg's last section."""
        more = {"cfgs": list(cfgs), "floats": list(map(int, floats))}
        return [float(seconds) for seconds in self.call("layer_seconds", more=more).value]


def installed(package: str, name: str) -> str | None:
    """None, or that the Python package is not installed; name: PyPI's."""
    return None if importlib.util.find_spec(package) else f"the Python package {name} is not installed"
