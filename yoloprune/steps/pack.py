"""`pack` and `unpack`: a network's files in one small file, and back; with few bits for a weight, if asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from yoloprune.artefacts import atomic_path, check_free, read_bytes
from yoloprune.darknet import weights as weights_file
from yoloprune.darknet.dialect import dialect_named
from yoloprune.darknet.layers.base import Layer
from yoloprune.darknet.model import Model, load_graph
from yoloprune.detect.measure import network_for_measuring
from yoloprune.errors import InputError
from yoloprune.formats import FORMATS, Files, Format
from yoloprune.formats.layout import arrays_of
from yoloprune.options import PackOptions, Settings
from yoloprune.progress import OnProgress, Progress, silent
from yoloprune.prune.quantize import Quantization, quantize
from yoloprune.steps.inputs import Inputs
from yoloprune.steps.quantized import check_bits


@dataclass(frozen=True)
class Packed:
    """What was written."""

    file: Path
    before: int
    """Bytes of all files."""
    after: int
    bits: int | None = None
    """Of a weight; None where all is as it was."""
    metric: str = ""
    """Key of the accuracy, where it was measured."""
    accuracy: tuple[float, float] | None = None
    """Before and after, where bits are given and images to measure on."""


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
    options: PackOptions = PackOptions(),  # noqa: B008 - a frozen value
    *,
    names: Path | None = None,
    data: Path | None = None,
    settings: Settings = Settings(),  # noqa: B008
    device: str = "cpu",
    force: bool = False,
    progress: OnProgress = silent,
) -> Packed:
    """Write a network's files to the one file `out`, whose suffix names the format (docs/format.md).

    Without bits, `unpack` gives the same bytes, also of values that are no numbers; weights that lie on a grid already,
    as `finetune` leaves them with bits, are stored as its codes. With bits, weights take few values, which calibration
    images of `data` choose so that outputs stay (else each takes the nearest), and accuracy is measured before and
    after on its valid list. Zeros stay zeros, all other arrays float32. InputError for what can't be read, or is no
    format.
    """
    codec = _format_of(out)
    check_free(out, force=force)
    check_bits(options.bits, options.grid)
    if options.bits is None:
        return pack_files(cfg, weights, out, names=names, dialect=settings.dialect, force=force)
    listed = None if names is None else read_bytes(names)
    inputs = None if data is None else Inputs.opened(cfg, weights, data, settings, device)
    if inputs is None:
        text = read_bytes(cfg)
        graph = load_graph(cfg, dialect_named(settings.dialect), text)
        model = Model(graph, weights_file.read(weights, graph.layers))
    else:
        text, model = inputs.cfg.content or b"", inputs.original
    batches = [] if inputs is None else inputs.calibration_batches(options.calibrate)
    progress(Progress("pack", 0, 1, f"to {options.bits} bits on {sum(map(len, batches))} calibration images"))
    fewer, _ = quantize(model, Quantization(options.bits, options.grid), batches, device=device)
    content = np.frombuffer(weights_file.dump(fewer.weights, model.graph.layers), np.uint8)
    files = Files(text, listed, b"", ())
    done = _written(codec, out, files, content, model.graph.layers, str(weights), force=force)
    done = replace(done, bits=options.bits)
    if inputs is None:
        return done
    measured = [inputs.measure.accuracy(network_for_measuring(each, device)) for each in (model, fewer)]
    progress(Progress("pack", 1, 1))
    return replace(done, metric=inputs.measure.steering, accuracy=(measured[0], measured[1]))


def pack_files(
    cfg: Path,
    weights: Path,
    out: Path,
    *,
    names: Path | None = None,
    dialect: str = "alexeyab",
    force: bool = False,
) -> Packed:
    """Pack files as they are, bit by bit."""
    codec = _format_of(out)
    check_free(out, force=force)
    text = read_bytes(cfg)
    layers = load_graph(cfg, dialect_named(dialect), text).layers
    files = Files(text, None if names is None else read_bytes(names), b"", ())
    data = weights_file.mapped(weights)
    return _written(codec, out, files, data, layers, str(weights), force=force)


def _written(
    codec: Format,
    out: Path,
    texts: Files,
    weights: NDArray[np.uint8],
    layers: Sequence[Layer],
    file: str,
    *,
    force: bool,
) -> Packed:
    """texts: cfg and names. weights: the bytes of a .weights file, named `file`."""
    header = weights_file.parse_header(weights[:20].tobytes(), layers, weights.size, file)
    arrays = arrays_of(layers, header, weights[header.size :].view("<f4"))
    files = replace(texts, header=weights[: header.size].tobytes(), arrays=arrays)
    after = codec.write(out, files, force=force)
    return Packed(out, len(texts.cfg) + weights.size + len(texts.names or b""), after)


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
