"""Everything that a run needs to go on, in one file: tensors and plain values, of which reading executes nothing."""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch

from yoloprune.artefacts import atomic_path
from yoloprune.darknet import weights as weights_file
from yoloprune.darknet.model import Model
from yoloprune.errors import InputError
from yoloprune.train.masks import Masks
from yoloprune.train.samples import Samples
from yoloprune.train.state import State
from yoloprune.train.supervision import Supervision

_VERSION = 4


def fingerprint(model: Model, samples: Samples, masks: Masks, supervision: Supervision, measured: str) -> str:
    """Hash of all that decides the result: a checkpoint goes on only with the same. measured: see `Evaluation`."""
    digest = hashlib.sha256()
    digest.update("".join(model.graph.cfg.lines).encode("utf-8", "surrogateescape"))
    digest.update(weights_file.dump(model.weights, model.graph.layers))
    recipe = replace(samples.recipe, frozen=frozenset())  # a set has no order of its own
    digest.update(repr((model.graph.dialect, recipe, sorted(samples.recipe.frozen), samples.seed)).encode())
    digest.update(repr((supervision.labels, measured)).encode())
    if supervision.teacher:
        digest.update(weights_file.dump(supervision.teacher.weights, supervision.teacher.graph.layers))
    for part in samples.hashed():
        digest.update(part)
    for tensors in masks.always.layers if masks.always else ():
        for name in sorted(tensors):
            digest.update(name.encode() + tensors[name].tobytes())
    if masks.schedule:
        digest.update(repr((masks.schedule.regrow, masks.schedule.fingerprint)).encode())
    for index, grid in sorted(masks.grids.items()):
        values = grid.codebook if grid.scales is None else grid.scales
        assert values is not None
        digest.update(repr((index, grid.bits, grid.scales is None)).encode() + values.tobytes())
    return digest.hexdigest()


def write(path: Path, state: State) -> None:
    """Whole or not at all; InputError if the disk is full or the folder can't be written."""
    content: dict[str, Any] = {entry.name: getattr(state, entry.name) for entry in fields(state)}
    content["version"] = _VERSION
    with atomic_path(path) as temporary:
        try:
            torch.save(content, temporary)
        except RuntimeError as error:  # torch's own writer, on a full disk
            raise InputError(f"cannot be written: {error}", file=path) from error


def how_far(path: Path) -> tuple[int, int]:
    """Updates done, and of the whole run. InputError if the file is no checkpoint of this version."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        if content["version"] == _VERSION:
            return int(content["iteration"]), len(content["history"])
    except Exception as error:  # what readers of a damaged archive stumble over can be anything
        raise InputError("is no checkpoint of a training run; --force starts anew", file=path) from error
    raise InputError(f"expected a checkpoint of version {_VERSION}; --force starts anew", file=path)


def read(path: Path, run: str) -> State:
    """The state of run `run`. InputError if the file is none, or another run's."""
    try:
        with zipfile.ZipFile(path) as archive:
            whole = archive.testzip() is None  # by its checksums
        content = torch.load(path, map_location="cpu", weights_only=True) if whole else None
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}; --force starts anew", file=path) from error
    except Exception as error:  # what readers of a damaged archive stumble over can be anything
        raise InputError("is no checkpoint of a training run; --force starts anew", file=path) from error
    if not whole:
        raise InputError("is damaged; --force starts anew", file=path)
    if not isinstance(content, dict) or content.get("version") != _VERSION:
        raise InputError(f"expected a checkpoint of version {_VERSION}; --force starts anew", file=path)
    if content["run"] != run:
        raise InputError(
            "belongs to a run with other weights, images, measure, options or seed; --force starts anew", file=path
        )
    return State(**{entry.name: content[entry.name] for entry in fields(State)})
