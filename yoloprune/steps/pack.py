"""`pack` and `unpack`: a network's files in one small file, and back byte for byte."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from yoloprune.artefacts import atomic_path, check_free, read_bytes
from yoloprune.darknet import weights as weights_file
from yoloprune.darknet.dialect import dialect_named
from yoloprune.darknet.grid import Grid
from yoloprune.darknet.model import load_graph
from yoloprune.errors import InputError
from yoloprune.formats import FORMATS, Files, Format
from yoloprune.formats.layout import arrays_of


@dataclass(frozen=True)
class Packed:
    """What was written."""

    file: Path
    before: int
    """Bytes of all files."""
    after: int
    bits: int | None = None
    """Of a code, the most that a layer has; None where every weight is a float."""


@dataclass(frozen=True)
class Unpacked:
    """What was written."""

    cfg: Path
    weights: Path
    names: Path | None
    before: int
    """Bytes of the packed file."""
    after: int


def pack(
    cfg: Path,
    weights: Path,
    out: Path,
    *,
    names: Path | None = None,
    grids: Mapping[int, Grid] | None = None,
    dialect: str = "alexeyab",
    force: bool = False,
) -> Packed:
    """Write a network's files to the one file `out`, whose suffix names the format (docs/format.md).

    `unpack` gives the same bytes. Weights are stored as they are, bit by bit, also those that are no numbers.

    grids: for layers by index, the grid that each value of the weights is on; these are stored as codes.
    """
    codec = _format_of(out)
    check_free(out, force=force)
    text = read_bytes(cfg)
    layers = load_graph(cfg, dialect_named(dialect), text).layers
    data = weights_file.mapped(weights)
    header = weights_file.parse_header(data[:20].tobytes(), layers, data.size, str(weights))
    floats = data[header.size :].view("<f4")
    arrays = arrays_of(layers, header, floats, grids or {})
    listed = None if names is None else read_bytes(names)
    after = codec.write(out, Files(text, listed, data[: header.size].tobytes(), arrays), force=force)
    bits = max((grid.bits for grid in (grids or {}).values()), default=None)
    return Packed(out, len(text) + data.size + len(listed or b""), after, bits)


def unpack(file: Path, out: Path, *, force: bool = False) -> Unpacked:
    """Write the .cfg, .weights and, if they were packed, .names to the folder `out`, by the stem of `file`."""
    codec = _format_of(file)
    stem = out / file.stem
    unpacked = codec.read(file)
    found = {".weights": b"", ".cfg": unpacked.cfg} | ({} if unpacked.names is None else {".names": unpacked.names})
    paths = {suffix: stem.with_name(stem.name + suffix) for suffix in found}
    for path in paths.values():
        check_free(path, force=force)
    for suffix, path in paths.items():  # the weights first: only they can still turn out to be damaged
        with atomic_path(path, force=force) as temporary, temporary.open("wb") as stream:
            stream.writelines(unpacked.weights() if suffix == ".weights" else [found[suffix]])
    sizes = sum(path.stat().st_size for path in paths.values())
    return Unpacked(paths[".cfg"], paths[".weights"], paths.get(".names"), file.stat().st_size, sizes)


def _format_of(path: Path) -> Format:
    """By the suffix. InputError for another."""
    known = FORMATS.get(path.suffix.removeprefix(".").lower())
    if known is None:
        expected = " or ".join(f".{suffix}" for suffix in FORMATS)
        raise InputError(f"expected a name that ends in {expected}", file=path)
    return known
