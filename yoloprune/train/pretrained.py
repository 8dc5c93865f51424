"""Weights to start from: random ones, of which the first layers may come from a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from yoloprune.darknet import weights as weights_file
from yoloprune.darknet.layers.base import Layer
from yoloprune.darknet.weights import Header, Weights
from yoloprune.errors import InputError


def start_weights(layers: Sequence[Layer], seed: int, pretrained: Path | None = None) -> tuple[Weights, int]:
    """Weights of a new network, `seen` 0, and how many of its first layers come from the file `pretrained`.

    The file is a whole .weights file or, as `darknet partial` writes them (yolov4.conv.137), one that ends after a
    layer. InputError if it ends within one: then it is of another cfg, and what it holds would land in wrong places.
    """
    fresh = weights_file.initial(layers, seed)
    if pretrained is None:
        return fresh, 0
    try:
        data = pretrained.read_bytes()
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", file=pretrained) from error
    if len(data) < Header().size:
        raise InputError(f"byte {len(data)}: expected a header of 20 bytes, found the end", file=pretrained)
    major, minor = (int.from_bytes(data[at : at + 4], "little", signed=True) for at in (0, 4))
    floats, rest = divmod(len(data) - Header(major, minor).size, 4)
    ends = [number for number in range(len(layers) + 1) if weights_file.count(layers[:number]) == floats]
    if rest or not ends or not floats:
        whole = Header(major, minor).size + 4 * weights_file.count(layers)
        raise InputError(
            f"expected the weights of the first layers of the cfg, whole layers of them (all: {whole} bytes); "
            f"found {len(data)} bytes, which end within a layer or after the last",
            file=pretrained,
        )
    known = weights_file.parse(data, layers[: ends[-1]], str(pretrained))
    return Weights(Header(), (*known.layers, *fresh.layers[ends[-1] :])), ends[-1]
