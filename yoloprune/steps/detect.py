"""`detect`: copies of pictures with the boxes that a network finds in them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Final, get_args

import torch

from yoloprune.artefacts import check_free
from yoloprune.darknet.data import DataFile, load_names, read_data, read_images
from yoloprune.darknet.dialect import dialect_named
from yoloprune.darknet.model import Graph, load
from yoloprune.darknet.network import build
from yoloprune.darknet.predictions import Detections
from yoloprune.detect.draw import draw
from yoloprune.detect.image import ENDINGS, encoded, is_written, read_pixels
from yoloprune.detect.load import fit_for
from yoloprune.detect.overlap import NmsKind
from yoloprune.detect.postprocess import decode, overlap_of, postprocess
from yoloprune.detect.resize import network_input
from yoloprune.errors import InputError
from yoloprune.options import DetectOptions
from yoloprune.progress import OnProgress, Progress, silent
from yoloprune.steps.inputs import check_readable, data_candidates, expect_one_of

_LIST: Final = ".txt"


@dataclass(frozen=True)
class Found:
    """What was found in a picture."""

    image: Path
    size: tuple[int, int]
    """Width and height in pixels."""
    detections: Detections
    picture: Path
    """The copy with boxes."""


def detect(
    cfg: Path,
    weights: Path,
    images: Sequence[Path],
    out: Path,
    data: Path | None = None,
    options: DetectOptions = DetectOptions(),  # noqa: B008 - a frozen value
    *,
    device: str = "cpu",
    force: bool = False,
    dry_run: bool = False,
    progress: OnProgress = silent,
) -> tuple[tuple[str, ...], list[Found]]:
    """Write a copy with boxes of each image to the folder `out`; the class names and what was found.

    images: pictures, folders of them, and lists (.txt), one picture a line. A copy of a kind that OpenCV doesn't write
    in colour is a png. All copies appear, or none does; none after a dry run. thresh: least probability, by default the
    dialect's. Names come from the .data file; where none is given, and none or several of this network's classes lie
    around, classes are called by their numbers.
    """
    images = [image for given in images for image in _pictures_in(given)]
    pictures = _copies(images, out, force=force)
    model = load(cfg, weights, dialect_named(options.dialect))
    graph = model.graph
    if not graph.detection_heads:
        raise InputError("expected a detector, found a network without detection heads", file=cfg)
    expect_one_of("--nms", options.nms, get_args(NmsKind))
    names = class_names(graph, cfg, data)
    check_readable(images, graph, progress)
    network, fit, (c, h, w) = build(model, device), fit_for(graph, options.letterbox), graph.net.input
    thresh = graph.dialect.display_thresh if options.thresh is None else options.thresh
    found: list[Found] = []
    with nullcontext() if dry_run else _appearing(out) as drafts, torch.inference_mode():
        for image, picture in zip(images, pictures, strict=True):
            pixels = read_pixels(image, c)
            inputs = torch.from_numpy(network_input(pixels, w, h, fit)).unsqueeze(0).to(device)
            size = (pixels.shape[1], pixels.shape[0])
            boxes = postprocess(decode(graph, network(inputs), thresh, [size], fit), overlap_of(graph, options.nms))
            found.append(Found(image, size, boxes, picture))
            if drafts is not None:
                canvas = pixels if c == 3 else read_pixels(image)
                (drafts / picture.name).write_bytes(encoded(draw(canvas, boxes, names), picture))
            progress(Progress("detect", len(found), len(images)))
    return names, found


def class_names(graph: Graph, cfg: Path, data: Path | None) -> tuple[str, ...]:
    """Names of the classes: of the .data file that is given or the only one around for as many, else their numbers."""
    if data is not None:
        return load_names(read_data(data), graph.classes)
    fitting = [
        each for each in map(_understood, data_candidates(cfg)) if each and each.classes in (None, graph.classes)
    ]
    return load_names(fitting[0], graph.classes) if len(fitting) == 1 else tuple(map(str, range(graph.classes)))


def _understood(file: Path) -> DataFile | None:
    """None for what only has the name of a .data file, like perf.data."""
    try:
        return read_data(file)
    except InputError:
        return None


@contextmanager
def _appearing(out: Path) -> Iterator[Path]:
    """A temporary folder whose files move to the folder `out` when the block ends well; else nothing is left."""
    existed = out.exists()
    if existed and not out.is_dir():
        raise InputError("is a file, expected a folder", file=out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".drafts-", dir=out) as drafts:
            yield Path(drafts)
            for file in sorted(Path(drafts).iterdir()):
                file.replace(out / file.name)
    except OSError as error:
        raise InputError(f"cannot be written to: {error.strerror}", file=out) from error
    finally:
        if not existed and out.is_dir() and not any(out.iterdir()):
            out.rmdir()


def _pictures_in(given: Path) -> list[Path]:
    """A picture itself; those of a folder, by name, or of a list. InputError if there are none."""
    if given.is_dir():
        found = sorted(each for each in given.iterdir() if each.suffix.lower() in ENDINGS and each.is_file())
        if not found:
            raise InputError("expected pictures in this folder, found none", file=given)
        return found
    if not given.is_file():
        raise InputError("no such picture, folder or list", file=given)
    return read_images(given) if given.suffix.lower() == _LIST else [given]


def _copies(images: Sequence[Path], out: Path, *, force: bool) -> list[Path]:
    """Where the copies go. InputError if two are one file, if one is an input, or if one exists."""
    copies = [out / (image.name if is_written(image.suffix) else f"{image.stem}.png") for image in images]
    inputs = {image.resolve() for image in images}
    first: dict[Path, Path] = {}
    for image, copy in zip(images, copies, strict=True):
        if copy in first:
            raise InputError(f"two pictures would be written as this one: {first[copy]} and {image}", file=copy)
        first[copy] = image
        if copy.resolve() in inputs:
            raise InputError("is a picture to look at; -o names another folder", file=copy)
        check_free(copy, force=force)
    return copies
