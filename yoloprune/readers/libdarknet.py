"""Stock Darknet as a library: pjreddie's libdarknet.so, which Debian packages as `darknet`.

The library ends the process on bad input, so all of it happens in `libdarknet_worker`.
"""

from __future__ import annotations

import ctypes.util
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from yoloprune.artefacts import atomic_path
from yoloprune.readers.base import Floats, ReaderError
from yoloprune.readers.program import Program

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


def _library() -> Mapping[str, str]:
    library = find()
    if library is None:
        raise ReaderError(available())
    return {"library": str(library)}


_PROGRAM = Program("yoloprune.readers.libdarknet_worker", _library)
loads = _PROGRAM.loads
"""Whether load_network takes the files (see `Reader`). It checks no length: short weights load silently."""
race = _PROGRAM.race
"""Of network_predict; Debian's is built for one thread."""
layer_seconds = _PROGRAM.layer_seconds
"""With it, less without it. Weights: Darknet's own start."""


def outputs(cfg: Path, weights: Path | None, inputs: Floats, layers: Sequence[int] | None = None) -> dict[int, Floats]:
    """Output of each of `layers`, [B, C, H, W]; `layers` None: all that keep a map (get_network_image_layer).

    inputs: [B, C, H, W], each image runs alone through network_predict. weights None: Darknet's random start.
    Raises ReaderError, also for a layer that keeps no output (softmax, recurrent) unless it is the net's last.
    """
    wanted = None if layers is None else [int(layer) for layer in layers]
    answer = _PROGRAM.call("outputs", cfg, weights, {"layers": wanted}, {"inputs": inputs})
    return {int(name): array for name, array in answer.arrays.items()}


def head_inputs(cfg: Path, weights: Path, inputs: Floats, heads: Sequence[int]) -> dict[int, Floats]:
    """The tensor that enters each head, [B, C, H, W] (see `Reader`)."""
    before = outputs(cfg, weights, inputs, [head - 1 for head in heads])
    return {head: before[head - 1] for head in heads}


def resave(cfg: Path, weights: Path | None, out: Path) -> None:
    """load_network, then save_weights to `out`, whole or not at all. weights None: Darknet's random start."""
    with atomic_path(out) as temporary:
        _PROGRAM.call("resave", cfg, weights, {"out": str(temporary)})
