"""What `demo` needs beside the steps: the built-in network, pictures drawn for it, and figures on fresh ones."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Final

from yoloprune.darknet.dialect import ALEXEYAB
from yoloprune.darknet.model import load
from yoloprune.errors import InputError
from yoloprune.progress import OnProgress
from yoloprune.shapes import write as draw_set
from yoloprune.steps.accuracy import accuracy
from yoloprune.steps.job import figures_of
from yoloprune.steps.milliseconds import timed
from yoloprune.workspace import Figures

SIDE: Final = 160
TRAIN: Final = 1500
CHOOSE: Final = 150
"""Pictures that accuracy is measured on while choosing."""
TEST: Final = 300
"""Fresh ones that the figures in the end are of."""
_ROOT: Final = Path(__file__).resolve().parents[2]


def built_in() -> tuple[Path, Path]:
    """The network's cfg and weights, beside the source or as they were installed. InputError where neither is."""
    found = [_located(f"{kind}/shapes.{kind}") for kind in ("cfg", "weights")]
    return found[0], found[1]


def _located(name: str) -> Path:
    beside = _ROOT / name
    if beside.is_file():
        return beside
    try:
        installed = [each for each in files("yoloprune") or () if str(each).endswith(f"share/yoloprune/{name}")]
    except PackageNotFoundError:
        installed = []
    for each in installed:
        path = Path(str(each.locate())).resolve()
        if path.is_file():
            return path
    raise InputError(f"expected {name} beside the source or installed with it, found neither")


def draw(out: Path, pictures: Mapping[str, int], *, force: bool = False) -> None:
    """Pictures to train on and to choose by in out/pictures, fresh ones in out/test.

    pictures: how many of train, valid and test. InputError where the folder is there, unless `force`: then a demo's
    goes.
    """
    if out.exists():
        if not force:
            raise InputError("exists already; --force replaces it", file=out)
        if not (out / "pictures" / "shapes.data").is_file():
            raise InputError("has something else in it than a demo; -o names another folder", file=out)
        shutil.rmtree(out)
    processes = min(os.cpu_count() or 1, 4)
    counts = {"train": pictures["train"], "valid": pictures["valid"]}
    draw_set(out / "pictures", counts, SIDE, 1, processes, force=False)
    draw_set(out / "test", {"train": 1, "valid": pictures["test"]}, SIDE, 2, processes, force=False)


def figures(networks: Mapping[str, tuple[Path, Path]], data: Path, progress: OnProgress) -> dict[str, Figures]:
    """Accuracy on the valid list, sizes and milliseconds of networks (cfg, weights), by their names."""
    models = [load(*pair, ALEXEYAB) for pair in networks.values()]
    known = []
    for model, pair in zip(models, networks.values(), strict=True):
        measured = accuracy(*pair, data, progress=progress)
        known.append(figures_of(model, "map50_present", measured["map50_present"]))
    times = timed(known, models, progress)
    return dict(zip(networks, times, strict=True))
