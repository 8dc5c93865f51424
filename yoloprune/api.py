"""The library as people use it: a function for each command, paths as text or `Path`, options by name.

`import yoloprune` hands these on. Where a function takes `**options`, they are the fields of classes in `options.py`,
with their names and defaults; `help()` lists them. Every function raises `InputError` for bad input. With
`progress=True` bars are shown on stderr; a function instead is called with every `Progress`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from inspect import Parameter, signature
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

from yoloprune import options as of
from yoloprune.choices import EPOCHS, TOLERANCE
from yoloprune.console import ProgressBar
from yoloprune.darknet.dialect import dialect_named
from yoloprune.darknet.model import Model
from yoloprune.darknet.model import load as load_model
from yoloprune.progress import OnProgress, silent
from yoloprune.steps import accuracy as _accuracy
from yoloprune.steps import ana as _ana
from yoloprune.steps import check as _check
from yoloprune.steps import detect as _detect
from yoloprune.steps import export as _export
from yoloprune.steps import finetune as _finetune
from yoloprune.steps import prune as _prune
from yoloprune.steps import run as _run
from yoloprune.steps import train as _train
from yoloprune.steps import verify as _verify
from yoloprune.workspace import DEFAULT

File = str | PathLike[str]
Follow = bool | OnProgress
_Function = TypeVar("_Function", bound=Callable[..., Any])


def _named(*classes: type[Any]) -> Callable[[_Function], _Function]:
    """Decorator that names in the signature what `**options` takes."""

    def name(function: _Function) -> _Function:
        own = {key: each for key, each in signature(function).parameters.items() if key != "options"}
        taken = [each for kind in classes for each in fields(kind) if each.name not in own]
        more = {
            each.name: Parameter(each.name, Parameter.KEYWORD_ONLY, default=each.default, annotation=each.type)
            for each in taken
        }
        whole = signature(function).replace(parameters=[*own.values(), *more.values()])
        function.__signature__ = whole  # type: ignore[attr-defined]  # what inspect asks for first
        return function

    return name


def _split(options: Mapping[str, Any], *classes: type[Any]) -> list[Any]:
    """A value of each class. TypeError for a name that none of them has."""
    given = {
        of.ALIASES.get(key, key): tuple(value) if isinstance(value, (list, set, frozenset, range)) else value
        for key, value in options.items()
    }
    names = [{each.name for each in fields(kind)} for kind in classes]
    every = set[str]().union(*names)
    if unknown := given.keys() - every:
        raise TypeError(f"unknown option {', '.join(sorted(unknown))}; known are {', '.join(sorted(every))}")
    return [kind(**{key: given[key] for key in own & given.keys()}) for kind, own in zip(classes, names, strict=True)]


@contextmanager
def _told(progress: Follow) -> Iterator[OnProgress]:
    """What is called with every `Progress`."""
    if not isinstance(progress, bool):
        yield progress
        return
    bar = ProgressBar(quiet=not progress)
    try:
        yield bar if progress else silent
    finally:
        bar.close()


def _path(file: File | None) -> Path | None:
    return None if file is None else Path(file)


@_named(of.AnalysisOptions, of.Settings)
def ana(
    cfg: File,
    weights: File,
    data: File | None = None,
    *,
    workspace: File = DEFAULT,
    device: str = "cpu",
    force: bool = False,
    progress: Follow = False,
    **options: Any,
) -> _ana.Analysed:
    """Measure how accuracy falls as each group is pruned alone; starts a workspace or goes on with it.

    Parameters
    ----------
    cfg, weights
        The network's files.
    data
        Darknet's .data file; left out, the only one beside the cfg or in the current folder.
    workspace
        Folder that knows the job.
    device
        As PyTorch names it.
    force
        Measure anew what is measured already.
    """
    analysis, settings = _split(options, of.AnalysisOptions, of.Settings)
    where: Any = {"workspace": Path(workspace), "device": device, "force": force}
    with _told(progress) as told:
        return _ana.ana(Path(cfg), Path(weights), _path(data), analysis, settings=settings, **where, progress=told)


@_named(of.PruneOptions)
def prune(
    threshold: float | None = None,
    *,
    workspace: File = DEFAULT,
    device: str = "cpu",
    force: bool = False,
    dry_run: bool = False,
    progress: Follow = False,
    **options: Any,
) -> _prune.Pruned:
    """Choose each group's sparsity, prune all groups together, measure before and after.

    Parameters
    ----------
    threshold
        Accuracy that each group, pruned alone, may lose; instead of it `ratio` or `total_loss`.
    force
        Prune the last round anew.
    dry_run
        Write nothing.
    """
    (pruning,) = _split({"threshold": threshold, **options}, of.PruneOptions)
    where: Any = {"workspace": Path(workspace), "device": device, "force": force, "dry_run": dry_run}
    with _told(progress) as told:
        return _prune.prune(pruning, **where, progress=told)


@_named(of.FinetuneOptions)
def finetune(
    *,
    workspace: File = DEFAULT,
    device: str = "cpu",
    force: bool = False,
    dry_run: bool = False,
    progress: Follow = False,
    **options: Any,
) -> _finetune.Finetuned:
    """Train the last round's pruned weights with the mask held; give `epochs` or `iterations`.

    Parameters
    ----------
    force
        Train the round anew.
    dry_run
        Train nothing.
    """
    (training,) = _split(options, of.FinetuneOptions)
    where: Any = {"workspace": Path(workspace), "device": device, "force": force, "dry_run": dry_run}
    with _told(progress) as told:
        return _finetune.finetune(training, **where, progress=told)


@_named(of.ExportOptions)
def export(
    out: File, *, workspace: File = DEFAULT, force: bool = False, dry_run: bool = False, **options: Any
) -> _export.Exported:
    """Write the slim network's .cfg, .weights and .names to the folder `out`."""
    (wanted,) = _split(options, of.ExportOptions)
    return _export.export(Path(out), wanted, workspace=Path(workspace), force=force, dry_run=dry_run)


@_named(of.PruneOptions, of.FinetuneOptions, of.AnalysisOptions, of.Settings)
def run(
    cfg: File,
    weights: File,
    data: File | None,
    out: File,
    *,
    rounds: int = 1,
    workspace: File = DEFAULT,
    device: str = "cpu",
    force: bool = False,
    progress: Follow = False,
    **options: Any,
) -> _run.RunResult:
    """All four steps, the threshold growing from round to round.

    Parameters
    ----------
    cfg, weights, data
        As for `ana`.
    out
        Folder for the slim network.
    rounds
        Of pruning and training.
    """
    kinds = (of.PruneOptions, of.FinetuneOptions, of.AnalysisOptions, of.Settings)
    pruning, training, analysis, settings = _split({"epochs": EPOCHS, **options}, *kinds)
    wanted = of.RunOptions(pruning, training, analysis, rounds)
    files = (Path(cfg), Path(weights), _path(data), Path(out))
    where: Any = {"workspace": Path(workspace), "device": device, "force": force}
    with _told(progress) as told:
        return _run.run(*files, wanted, settings=settings, **where, progress=told)


@_named(of.TrainOptions, of.Settings)
def train(
    cfg: File,
    data: File | None = None,
    out: File | None = None,
    *,
    device: str = "cpu",
    force: bool = False,
    dry_run: bool = False,
    progress: Follow = False,
    **options: Any,
) -> _train.TrainedNetwork:
    """Train a network as its cfg says, from scratch or from the first layers of another.

    Parameters
    ----------
    out
        Folder for weights, log and chart; left out, the .data file's `backup`.
    """
    training, settings = _split(options, of.TrainOptions, of.Settings)
    where: Any = {"device": device, "force": force, "dry_run": dry_run}
    with _told(progress) as told:
        return _train.train_network(
            Path(cfg), _path(data), _path(out), training, settings=settings, **where, progress=told
        )


@_named(of.Settings)
def map(
    cfg: File,
    weights: File,
    data: File | None = None,
    *,
    points: int | None = None,
    nms: str | None = None,
    device: str = "cpu",
    progress: Follow = False,
    **options: Any,
) -> Mapping[str, Any]:
    """A network's accuracy by Darknet's rules on the valid list: all figures by name, fractions in 0..1.

    Parameters
    ----------
    points
        Of the precision-recall curve: 0 for its area, 11 or 101.
    nms
        Kind of non-maximum suppression; left out, the cfg's.
    """
    (settings,) = _split(options, of.Settings)
    files = (Path(cfg), Path(weights), _path(data))
    with _told(progress) as told:
        return _accuracy.accuracy(*files, settings=settings, points=points, nms=nms, device=device, progress=told)


@_named(of.DetectOptions, of.Settings)
def detect(
    cfg: File,
    weights: File,
    images: File | Sequence[File],
    out: File,
    *,
    data: File | None = None,
    device: str = "cpu",
    force: bool = False,
    progress: Follow = False,
    **options: Any,
) -> tuple[tuple[str, ...], list[_detect.Found]]:
    """Write copies of images with the boxes that are found to the folder `out`.

    Parameters
    ----------
    images
        Images, folders of them, and lists (.txt).

    Returns
    -------
    The names of the classes, and what was found in each image.
    """
    wanted, settings = _split(options, of.DetectOptions, of.Settings)
    given = [Path(each) for each in ([images] if isinstance(images, (str, PathLike)) else images)]
    where: Any = {"data": _path(data), "device": device, "force": force}
    with _told(progress) as told:
        return _detect.detect(
            Path(cfg), Path(weights), given, Path(out), wanted, settings=settings, **where, progress=told
        )


def check(cfg: File, weights: File | None = None, *, reader: str | None = None) -> _check.Checked:
    """What breaks or silently differs in which reader, by line; for one of them or all."""
    return _check.check(Path(cfg), _path(weights), reader=reader)


def verify(
    cfg_a: File,
    weights_a: File,
    cfg_b: File,
    weights_b: File,
    *,
    image: File | None = None,
    dialect: str = "alexeyab",
    tolerance: float = TOLERANCE,
    seed: int = 0,
) -> _verify.Verified:
    """How far what enters the heads of two networks is apart, here and in every reader on this machine.

    Parameters
    ----------
    image
        Compare on it; left out, on random input.
    tolerance
        Largest difference over the largest value.
    """
    pairs = (Path(cfg_a), Path(weights_a), Path(cfg_b), Path(weights_b))
    return _verify.verify(*pairs, image=_path(image), dialect=dialect, tolerance=tolerance, seed=seed)


def load(cfg: File, weights: File, *, dialect: str = "alexeyab", allow_partial: bool = False) -> Model:
    """A network as its files hold it: graph and weights."""
    return load_model(Path(cfg), Path(weights), dialect_named(dialect), allow_partial=allow_partial)
