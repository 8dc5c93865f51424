"""Stock Darknet as a library: pjreddie's libdarknet.so, which Debian packages as `darknet`.

The library ends the process on bad input, so all of it happens in `libdarknet_worker`.
"""

from __future__ import annotations

import ctypes.util
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from yoloprune.artefacts import atomic_path
from yoloprune.readers.base import Floats, ReaderError
from yoloprune.readers.process import Answer, call

VARIABLE = "YOLOPRUNE_LIBDARKNET"
_DEBIAN = Path("/usr/lib/darknet/libdarknet.so")


def find() -> Path | None:
    """The library: $YOLOPRUNE_LIBDARKNET if that is set, else Debian's, else what the loader finds; None if nothing."""
    named = os.environ.get(VARIABLE)
    if named:
        return Path(named) if Path(named).is_file() else None
    if _DEBIAN.is_file():
        return _DEBIAN
    found = ctypes.util.find_library("darknet")
    return Path(found) if found else None


def available() -> str | None:
    """None, or why stock Darknet cannot be used here."""
    if find() is not None:
        return None
    named = os.environ.get(VARIABLE)
    return f"${VARIABLE}: no file {named}" if named else "libdarknet.so not found (Debian: apt install darknet)"


def outputs(cfg: Path, weights: Path | None, inputs: Floats, layers: Sequence[int] | None = None) -> dict[int, Floats]:
    """Output of each of `layers`, [B, C, H, W]; `layers` None: all that keep a map (get_network_image_layer).

    inputs: [B, C, H, W], each image runs alone through network_predict. weights None: Darknet's random start.
    Raises ReaderError, also for a layer that keeps no output (softmax, recurrent) unless it is the net's last.
    """
    wanted = None if layers is None else [int(layer) for layer in layers]
    answer = _call("outputs", cfg, weights, {"layers": wanted}, {"inputs": inputs})
    return {int(name): array for name, array in answer.arrays.items()}


def head_inputs(cfg: Path, weights: Path, inputs: Floats, heads: Sequence[int]) -> dict[int, Floats]:
    """The tensor that enters each head, [B, C, H, W] (see `Reader`)."""
    before = outputs(cfg, weights, inputs, [head - 1 for head in heads])
    return {head: before[head - 1] for head in heads}


def loads(cfg: Path, weights: Path | None) -> str | None:
    """None if load_network takes the files, else the reason. It checks no length: short weights load silently."""
    try:
        _call("load", cfg, weights)
    except ReaderError as error:
        return str(error)
    return None


def resave(cfg: Path, weights: Path | None, out: Path) -> None:
    """load_network, then save_weights to `out`, whole or not at all. weights None: Darknet's random start."""
    with atomic_path(out) as temporary:
        _call("resave", cfg, weights, {"out": str(temporary)})


def seconds(cfg: Path, weights: Path, image: Floats, repeats: int) -> float:
    """Median time in seconds of network_predict (see `Reader`)."""
    return float(_call("seconds", cfg, weights, {"repeats": repeats}, {"inputs": image[None]}).value)


def race(files: Sequence[tuple[Path, Path]], image: Floats, rounds: int) -> list[list[float]]:
    """Seconds of network_predict, networks in turns (see `Reader`)."""
    more = {"files": [(str(cfg), str(weights)) for cfg, weights in files], "rounds": rounds}
    answer = _call("race", None, None, more, {"inputs": image[None]})
    return [[float(seconds) for seconds in each] for each in answer.value]


def layer_seconds(cfgs: Sequence[str], floats: Sequence[int]) -> list[float]:
    """Least time of each cfg's last section (see `Reader`): with it, less without it. Weights: Darknet's own start."""
    return [float(seconds) for seconds in _call("layer_seconds", None, None, {"cfgs": list(cfgs)}).value]


def _call(
    what: str,
    cfg: Path | None,
    weights: Path | None,
    more: dict[str, Any] | None = None,
    arrays: dict[str, Floats] | None = None,
) -> Answer:
    library = find()
    if library is None:
        raise ReaderError(available())
    files = {"cfg": None if cfg is None else str(cfg), "weights": None if weights is None else str(weights)}
    job = {"do": what, "library": str(library), **files, **(more or {})}
    return call("yoloprune.readers.libdarknet_worker", job, arrays)
