"""`.weights` bytes <-> named arrays (Darknet: parser.c load_weights_upto, save_weights_upto).

Little endian: int32 major, minor, revision; `seen` (images trained on) as int32 or, from version 0.2 on, as
uint64; then float32 arrays, layer by layer, without padding or markers. Which arrays a layer has and how much of them
a file holds, the layer knows.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from yoloprune.artefacts import atomic_path, read_bytes
from yoloprune.darknet.dialect import FLT_MIN
from yoloprune.darknet.layers.base import Layer, TensorSpec
from yoloprune.darknet.operators import Arrays as Arrays
from yoloprune.errors import InputError, unreadable

_LARGEST_VERSION = 9999
_SHORT, _LONG = 16, 20
"""Bytes of the two headers."""


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
    def transposed(self) -> bool:
        """Whether matrices of fully connected parts are stored [inputs, outputs]."""
        return max(self.major, self.minor) > 1000

    @property
    def size(self) -> int:
        """Bytes."""
        return _LONG if self.wide else _SHORT

    def renewed(self, seen: int) -> Header:
        """As long as this one, for readers that always skip so many bytes, and of a version that all readers take."""
        return Header(seen=seen) if self.wide else Header(0, 1, 0, seen)

    def disagreement(self, length: int, floats: int) -> str | None:
        """What is wrong with a file of `length` bytes, if `floats` would fit behind the other header."""
        other = _SHORT + _LONG - self.size
        if length != other + 4 * floats:
            return None
        what, begins = ("few", "late") if self.wide else ("many", "early")
        found = f"{self} has a header of {self.size} bytes, {other} would fit: Darknet begins one float {begins}"
        return f"4 bytes too {what}: the header's version and length disagree ({found})"

    def dump(self) -> bytes:
        """Header -> bytes."""
        seen = self.seen if self.wide else min(self.seen, 2**32 - 1)
        return struct.pack("<iii" + ("Q" if self.wide else "I"), self.major, self.minor, self.revision, seen)

    def __str__(self) -> str:
        return f"version {self.major}.{self.minor}.{self.revision}"


@dataclass(frozen=True)
class Weights:
    """Header and, for each layer, its arrays by name (empty for layers without any)."""

    header: Header
    layers: tuple[Arrays, ...]

    def with_seen(self, seen: int) -> Weights:
        """The same weights, `seen` changed."""
        return replace(self, header=replace(self.header, seen=seen))

    def without_denormals(self) -> Weights:
        """Those as 0, which they are to a Darknet that is built with -Ofast, and slow on other programs' processors."""
        layers = [{name: _flushed(array) for name, array in arrays.items()} for arrays in self.layers]
        return replace(self, layers=tuple(layers))


def count(layers: Sequence[Layer]) -> int:
    """Floats in the payload."""
    return sum(_stored(layer, spec) for layer in layers for spec in layer.tensors())


def places(layers: Sequence[Layer]) -> Iterator[tuple[Layer, TensorSpec, slice]]:
    """Each array, and which floats of the payload are its."""
    at = 0
    for layer in layers:
        for spec in layer.tensors():
            yield layer, spec, slice(at, at + _stored(layer, spec))
            at += _stored(layer, spec)


def over(array: NDArray[np.float32], bound: float) -> NDArray[np.bool_]:
    """Which values are over a bound that float32 may not have; NaN is not."""
    with np.errstate(invalid="ignore"):  # a signalling NaN, as random bytes hold
        return array > np.float64(bound)


def parse(data: bytes, layers: Sequence[Layer], file: str = "<weights>") -> Weights:
    """Bytes -> Weights. InputError unless the length is exactly what `layers` need and the values can be weights.

    A version can be anything over 1000 (vgg-16.weights begins with floats), if the length is right.
    """
    header = parse_header(data, layers, len(data), file)
    _check_not_text(np.frombuffer(data, np.uint8, offset=header.size), file)
    arrays = _parse_arrays(np.frombuffer(data, "<f4", offset=header.size), header, layers, file)
    return Weights(header, tuple(arrays))


def _parse_arrays(
    floats: NDArray[np.float32], header: Header, layers: Sequence[Layer], file: str
) -> Iterator[dict[str, NDArray[np.float32]]]:
    at = 0
    for layer in layers:
        arrays = {}
        for spec in layer.tensors():
            stored = floats[at : at + _stored(layer, spec)]
            _check_values(stored, layer, spec, header.size + 4 * at, file)
            array = _from_disk(stored, layer, spec, header)
            arrays[spec.name] = array if len(array) == spec.shape[0] else np.concatenate([array, _rest(layer, spec)])
            at += stored.size
        yield arrays


def parse_header(data: bytes, layers: Sequence[Layer], length: int, file: str = "<weights>") -> Header:
    """First 20 bytes -> Header. InputError unless a file of `length` bytes is exactly what `layers` need."""
    header = _parse_version(data, file)
    _check_length(length, header, layers, file)
    return header


def _parse_version(data: bytes, file: str) -> Header:
    if len(data) < 16:
        raise InputError(f"byte {len(data)}: expected a header of 16 or 20 bytes, found the end", file=file)
    major, minor, revision, seen = struct.unpack_from("<iiiI", data)
    header = Header(major, minor, revision, seen)
    if header.wide and len(data) >= 20:
        header = replace(header, seen=struct.unpack_from("<Q", data, 12)[0])
    return header


def dump(weights: Weights, layers: Sequence[Layer]) -> bytes:
    """Weights -> bytes; `dump(parse(data, layers), layers) == data`.

    InputError where the cfg keeps an array out of the file (`dontload` and others) that isn't as in a new network.
    """
    parts = [weights.header.dump()]
    for layer, arrays in zip(layers, weights.layers, strict=True):
        for spec in layer.tensors():
            array = arrays[spec.name]
            if array.shape != spec.shape:
                raise ValueError(f"{layer}: {spec.name} has shape {array.shape}, not {spec.shape}")
            parts.append(_to_disk(array, layer, spec, weights.header).tobytes())
    return b"".join(parts)


def read(path: str | Path, layers: Sequence[Layer], content: bytes | None = None) -> Weights:
    """Parse the file at `path`; its size is checked before it is read. content: its bytes, where they are at hand."""
    size, head = _opened(path, content)
    parse_header(head, layers, size, str(path))
    return parse(Path(path).read_bytes() if content is None else content, layers, str(path))


def _opened(path: str | Path, content: bytes | None) -> tuple[int, bytes]:
    """Size and first 20 bytes."""
    if content is not None:
        return len(content), content[:20]
    try:
        with Path(path).open("rb") as stream:
            return Path(path).stat().st_size, stream.read(20)
    except OSError as error:
        raise unreadable(error, path) from error


def mapped(path: str | Path) -> NDArray[np.uint8]:
    """A file's bytes, read when they are looked at."""
    try:
        empty = not Path(path).stat().st_size  # which can't be mapped
        return np.zeros(0, np.uint8) if empty else np.asarray(np.memmap(path, np.uint8, "r"))
    except OSError as error:
        raise unreadable(error, path) from error


def read_partial(
    path: str | Path, layers: Sequence[Layer], seed: int, content: bytes | None = None
) -> tuple[Weights, int]:
    """The first whole layers out of a file that ends behind one (`darknet53.conv.74`); the rest starts as `initial`.

    Also the index of the first layer that isn't the file's: the number of layers where the file has all. InputError if
    it ends within a layer, or holds more than all of them or nothing.
    """
    size, head = _opened(path, content)
    header = _parse_version(head, str(path))
    if size == header.size:
        raise InputError(f"byte {size}: expected weights behind the header, found the end", file=path)
    ends = [header.size + 4 * floats for floats in accumulate((count([layer]) for layer in layers), initial=0)]
    if size not in ends:
        _check_length(size, header, layers, str(path))
    loaded = len(ends) - 1 - ends[::-1].index(size)
    part = read(path, layers[:loaded], content)
    return Weights(part.header, (*part.layers, *initial(layers, seed).layers[loaded:])), loaded


def read_first(
    path: str | Path, layers: Sequence[Layer], seed: int, choose: Callable[[NDArray[np.float32]], int]
) -> tuple[Weights, int]:
    """The first layers out of any file, as many as `choose` says of its floats; the rest starts as `initial`.

    Also how many these are. What `darknet partial` would write, and Darknet load. InputError for values that can't be
    weights, and a file that has none.
    """
    content = read_bytes(path)
    header = _parse_version(content[:_LONG], str(path))
    size = len(content)
    if size <= header.size or (size - header.size) % 4:
        raise InputError(f"byte {size}: expected floats of 4 bytes behind the header, found the end", file=path)
    taken = choose(np.frombuffer(content, "<f4", offset=header.size))
    part = parse(content[: header.size + 4 * count(layers[:taken])], layers[:taken], str(path))
    return Weights(part.header, (*part.layers, *initial(layers, seed).layers[taken:])), taken


def write(path: str | Path, weights: Weights, layers: Sequence[Layer], *, force: bool = False) -> None:
    """Dump to the file at `path`, whole or not at all."""
    with atomic_path(path, force=force) as temporary:
        temporary.write_bytes(dump(weights, layers))


def initial(layers: Sequence[Layer], seed: int) -> Weights:
    """Weights as AlexeyAB's Darknet starts them: uniform in sqrt(2/fan-in), biases, means, variances 0, scales 1."""
    rng = np.random.default_rng(seed)
    made = [{spec.name: _start(spec, rng) for spec in layer.tensors()} for layer in layers]
    return Weights(Header(), tuple(made))


def _flushed(array: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.where(np.abs(array) < np.float32(FLT_MIN), np.float32(0), array)


def _start(spec: TensorSpec, rng: np.random.Generator) -> NDArray[np.float32]:
    if spec.bound:
        return (spec.start + rng.uniform(-spec.bound, spec.bound, spec.shape)).astype(np.float32)
    return np.full(spec.shape, spec.start, np.float32)


def _rest(layer: Layer, spec: TensorSpec) -> NDArray[np.float32]:
    """What a file doesn't hold of an array, as a new network has it: the same whenever it is asked for."""
    return _start(spec, np.random.default_rng(layer.index))[layer.storage.rows(spec) :]


def _stored(layer: Layer, spec: TensorSpec) -> int:
    """Floats of an array that a file holds."""
    return layer.storage.rows(spec) * math.prod(spec.shape[1:])


def transposed(layer: Layer, spec: TensorSpec, header: Header) -> bool:
    """Whether a file with this header holds the array as matrix [inputs, filters]."""
    return (spec.dense and header.transposed) or (layer.storage.flipped and spec.name == "weight")


def _from_disk(stored: NDArray[np.float32], layer: Layer, spec: TensorSpec, header: Header) -> NDArray[np.float32]:
    rows = layer.storage.rows(spec)
    if transposed(layer, spec, header):
        stored = np.ascontiguousarray(stored.reshape(math.prod(spec.shape[1:]), rows).T)
    return stored.reshape(rows, *spec.shape[1:])


def _to_disk(array: NDArray[np.float32], layer: Layer, spec: TensorSpec, header: Header) -> NDArray[np.float32]:
    rows = layer.storage.rows(spec)
    if rows < len(array) and not np.array_equal(array[rows:], _rest(layer, spec)):
        why = "the cfg keeps it out of the file (dontload, dontloadscales or numload), and it is no longer as new"
        raise InputError(f"{layer}, {spec.name}: {why}: take the key out of the cfg")
    stored = array[:rows].reshape(rows, math.prod(spec.shape[1:]))
    return np.ascontiguousarray(stored.T if transposed(layer, spec, header) else stored, "<f4")


def _check_length(length: int, header: Header, layers: Sequence[Layer], file: str) -> None:
    needed = header.size + 4 * count(layers)
    usual = min(header.major, header.minor) >= 0 and max(header.major, header.minor) <= _LARGEST_VERSION
    if length == needed and (usual or header.transposed):
        return
    if not usual:
        raise InputError(f"byte 0: expected a Darknet header of version 0.1 or 0.2, found {header}", file=file)
    wanted = f"expected {needed} bytes by the cfg, found {length}"
    disagreement = header.disagreement(length, count(layers))
    if disagreement is not None:
        cut = f"; or it {_end(length, header, layers)}" if length < needed else ""
        raise InputError(f"byte 0: {disagreement}{cut}: {wanted}", file=file)
    if length > needed:
        raise InputError(f"byte {needed}: {wanted}; is it the weights of another cfg?", file=file)
    raise InputError(f"byte {length}: {_end(length, header, layers)}: {wanted}", file=file)


def _end(length: int, header: Header, layers: Sequence[Layer]) -> str:
    """Where a file that is too short ends."""
    at = header.size
    for layer in layers:
        if at == length and count([layer]):
            return (
                f"ends before {layer}: a partial file, which training can start from, and pruning with --allow-partial"
            )
        for spec in layer.tensors():
            at += 4 * _stored(layer, spec)
            if at > length:
                return f"ends within {layer}, {spec.name}"
    raise ValueError(f"{length} bytes are enough")


def _check_not_text(payload: NDArray[np.uint8], file: str) -> None:
    """InputError if an editor replaced every byte over 0x7f, of which numbers have many and text has none."""
    if payload.size >= 512 and 0 < payload.max() < 0x80:
        raise InputError(
            "no byte is over 0x7f: expected numbers, found what an editor of text leaves of them", file=file
        )


def _check_values(array: NDArray[np.float32], layer: Layer, spec: TensorSpec, byte: int, file: str) -> None:
    bound = layer.storage.variance_over if spec.variance else -np.inf
    bad = ~(np.isfinite(array) & over(array, bound))
    if bad.any():
        where = f"byte {byte + 4 * int(bad.argmax())}: {layer}, {spec.name}"
        wanted = "a finite number" + (f" over {bound:g}" if spec.variance else "")
        value = array[int(bad.argmax())]
        raise InputError(f"{where}: expected {wanted}, found {value:g}; is it the weights of another cfg?", file=file)
