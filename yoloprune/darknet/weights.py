"""`.weights` bytes <-> named arrays (Darknet: parser.c load_weights_upto, save_weights_upto).

Little endian: int32 major, minor, revision; `seen` (images trained on) as int32 or, from version 0.2 on, as
uint64; then float32 arrays, layer by layer, without padding or markers. Which arrays a layer has, the layer knows.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from yoloprune.artefacts import atomic_path
from yoloprune.darknet.layers.base import Layer, TensorSpec
from yoloprune.errors import InputError

Arrays = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Header:
    """Version and `seen`; the version decides how wide `seen` is."""

    major: int = 0
    minor: int = 2
    revision: int = 5
    seen: int = 0

    @property
    def wide(self) -> bool:
        """Whether `seen` has 64 bits (load_weights_upto)."""
        return self.major * 10 + self.minor >= 2 and self.major < 1000 and self.minor < 1000

    @property
    def size(self) -> int:
        """Bytes."""
        return 20 if self.wide else 16

    def dump(self) -> bytes:
        """Header -> bytes."""
        return struct.pack("<iii" + ("Q" if self.wide else "I"), self.major, self.minor, self.revision, self.seen)


@dataclass(frozen=True)
class Weights:
    """Header and, for each layer, its arrays by name (empty for layers without any)."""

    header: Header
    layers: tuple[Arrays, ...]

    def with_seen(self, seen: int) -> Weights:
        """The same weights, `seen` changed."""
        return replace(self, header=replace(self.header, seen=seen))


def count(layers: Sequence[Layer]) -> int:
    """Floats in the payload."""
    return sum(spec.size for layer in layers for spec in layer.tensors())


def parse(data: bytes, layers: Sequence[Layer], file: str = "<weights>") -> Weights:
    """Bytes -> Weights. InputError unless the length is exactly what `layers` need and the values can be weights."""
    header = parse_header(data, layers, len(data), file)
    _check_not_text(np.frombuffer(data, np.uint8, offset=header.size), file)
    floats = np.frombuffer(data, "<f4", offset=header.size)
    at = 0
    found_layers: list[Arrays] = []
    for layer in layers:
        arrays = {}
        for spec in layer.tensors():
            array = floats[at : at + spec.size].reshape(spec.shape)
            _check_values(array, layer, spec, header.size + 4 * at, file)
            arrays[spec.name] = array
            at += spec.size
        found_layers.append(arrays)
    return Weights(header, tuple(found_layers))


def parse_header(data: bytes, layers: Sequence[Layer], length: int, file: str = "<weights>") -> Header:
    """First 20 bytes -> Header. InputError unless a file of `length` bytes is exactly what `layers` need."""
    if len(data) < 16:
        raise InputError(f"byte {len(data)}: expected a header of 16 or 20 bytes, found the end", file=file)
    major, minor, revision, seen = struct.unpack_from("<iiiI", data)
    header = Header(major, minor, revision, seen)
    if min(major, minor) < 0 or max(major, minor) > 1000:
        found = f"version {major}.{minor}.{revision}"
        raise InputError(f"byte 0: expected a Darknet header of version 0.1 or 0.2, found {found}", file=file)
    if header.wide and len(data) >= 20:
        header = replace(header, seen=struct.unpack_from("<Q", data, 12)[0])
    _check_length(length, header, layers, file)
    return header


def dump(weights: Weights, layers: Sequence[Layer]) -> bytes:
    """Weights -> bytes; `dump(parse(data, layers), layers) == data`."""
    parts = [weights.header.dump()]
    for layer, arrays in zip(layers, weights.layers, strict=True):
        for spec in layer.tensors():
            array = arrays[spec.name]
            if array.shape != spec.shape:
                raise ValueError(f"{layer}: {spec.name} has shape {array.shape}, not {spec.shape}")
            parts.append(np.ascontiguousarray(array, "<f4").tobytes())
    return b"".join(parts)


def read(path: str | Path, layers: Sequence[Layer]) -> Weights:
    """Parse the file at `path`; its size is checked before it is read."""
    try:
        size = Path(path).stat().st_size
        with Path(path).open("rb") as stream:
            head = stream.read(20)
            parse_header(head, layers, size, str(path))
            return parse(head + stream.read(), layers, str(path))
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", file=path) from error


def write(path: str | Path, weights: Weights, layers: Sequence[Layer], *, force: bool = False) -> None:
    """Dump to the file at `path`, whole or not at all."""
    with atomic_path(path, force=force) as temporary:
        temporary.write_bytes(dump(weights, layers))


def initial(layers: Sequence[Layer], seed: int) -> Weights:
    """Weights as AlexeyAB's Darknet starts them: uniform in sqrt(2/fan-in), biases, means, variances 0, scales 1."""
    rng = np.random.default_rng(seed)
    made = [{spec.name: _start(spec, rng) for spec in layer.tensors()} for layer in layers]
    return Weights(Header(), tuple(made))


def _start(spec: TensorSpec, rng: np.random.Generator) -> NDArray[np.float32]:
    if spec.bound:
        return rng.uniform(-spec.bound, spec.bound, spec.shape).astype(np.float32)
    return np.full(spec.shape, spec.start, np.float32)


def _check_length(length: int, header: Header, layers: Sequence[Layer], file: str) -> None:
    needed = header.size + 4 * count(layers)
    if length == needed:
        return
    wanted = f"expected {needed} bytes by the cfg, found {length}"
    if length > needed:
        raise InputError(f"byte {needed}: {wanted}; is it the weights of another cfg?", file=file)
    at = header.size
    for layer in layers:
        for spec in layer.tensors():
            at += 4 * spec.size
            if at > length:
                raise InputError(f"byte {length}: ends within {layer}, {spec.name}: {wanted}", file=file)


def _check_not_text(payload: NDArray[np.uint8], file: str) -> None:
    """InputError if an editor replaced every byte over 0x7f, of which numbers have many and text has none."""
    if payload.size >= 512 and 0 < payload.max() < 0x80:
        raise InputError(
            "no byte is over 0x7f: expected numbers, found what an editor of text leaves of them", file=file
        )


def _check_values(array: NDArray[np.float32], layer: Layer, spec: TensorSpec, byte: int, file: str) -> None:
    bad = ~np.isfinite(array) if not spec.positive else ~(np.isfinite(array) & (array >= 0))
    if bad.any():
        where = f"byte {byte + 4 * int(bad.argmax())}: {layer}, {spec.name}"
        wanted = "a finite number" + (" of at least 0" if spec.positive else "")
        value = array.reshape(-1)[int(bad.argmax())]
        raise InputError(f"{where}: expected {wanted}, found {value:g}; is it the weights of another cfg?", file=file)
