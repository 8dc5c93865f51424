"""`export`: the dropped channels really removed, in files that stock Darknet runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from yoloprune.artefacts import atomic_path, read_bytes
from yoloprune.darknet import cfg as cfg_file
from yoloprune.darknet import weights as weights_file
from yoloprune.darknet.cfg import Cfg
from yoloprune.darknet.compat import READERS, Reader, WeightsFile, lost_values, reader_named
from yoloprune.darknet.compat.adapt import adapted
from yoloprune.darknet.fold import folded
from yoloprune.darknet.model import Model, build_graph, hazards, plain
from yoloprune.darknet.weights import Header, Weights
from yoloprune.errors import InputError, warn
from yoloprune.prune.slim import slim
from yoloprune.steps.job import Job, figures_of, open_job
from yoloprune.workspace import DEFAULT, Figures


@dataclass(frozen=True)
class Exported:
    """What was written."""

    before: Figures
    after: Figures
    cfg: Path
    weights: Path
    names: Path | None
    written: bool
    """False after a dry run."""


def export(
    out: Path,
    *,
    reader: str | None = None,
    fold_bn: bool = False,
    workspace: Path = DEFAULT,
    keep_seen: bool = False,
    force: bool = False,
    dry_run: bool = False,
) -> Exported:
    """Write `<stem>-slim.cfg`, `.weights` and, where the data has names, `.names` to the folder `out`.

    From the newest weights: finetuned, else pruned; denormals become 0. `seen` becomes 0, so that further training does
    not stop at once, unless keep_seen. The cfg keeps its comments; only changed values are rewritten, and those that a
    reader trips over.
    reader: in the words of that one, see `adapted`. fold_bn: no batch norm, whose formula differs between readers.
    """
    wanted = None if reader is None else reader_named(reader)
    job = open_job(workspace)
    last = job.workspace.last
    if job.workspace.original is None:
        raise InputError("lacks the original network's accuracy; run yoloprune ana", file=workspace)
    slimmed = slim(job.model, job.channels, job.keep)
    if fold_bn:
        slimmed = folded(slimmed)
    odd = plain(slimmed.graph)
    legal = cfg_file.legal(odd) if wanted is None else adapted(odd, wanted)
    graph = build_graph(legal, slimmed.graph.dialect)
    found = hazards(graph.layers) if wanted is None else []
    if found:
        raise InputError(f"the slim network is not safe in every Darknet: {found[0]}", file=workspace)
    before = job.original.weights.header
    seen = before.seen if keep_seen else 0
    # 20 bytes are what every reader takes that can be named; some program may always skip as many as there were
    header = before.renewed(seen) if wanted is None else Header(seen=seen)
    written = Model(graph, Weights(header, slimmed.weights.layers).without_denormals())
    data = weights_file.dump(written.weights, graph.layers)
    _check_values(legal, data, wanted)
    cfg, weights, names = targets(job, out, force=force)
    listed = read_bytes(job.data.names) if job.data.names is not None else b""
    if not dry_run:
        cfg_file.write(cfg, graph.cfg, force=force)
        for path, content in ((weights, data), (names, listed)):
            if path is not None:
                with atomic_path(path, force=force) as temporary:
                    temporary.write_bytes(content)
    measured = last.finetuned or last.pruned
    return Exported(
        before=job.workspace.original,
        after=figures_of(graph, written, measured.metric, measured.accuracy),
        cfg=cfg,
        weights=weights,
        names=names,
        written=not dry_run,
    )


def _check_values(cfg: Cfg, weights: bytes, wanted: Reader | None) -> None:
    """Warn of readers that make NaN of variances. InputError if it is the one that is wanted."""
    readers = {each.name: each for each in (READERS.values() if wanted is None else (wanted,))}
    found: dict[str, list[str]] = {}
    for finding in lost_values(cfg, list(readers.values()), WeightsFile("", np.frombuffer(weights, np.uint8))):
        found.setdefault(finding.message, []).append(readers[finding.reader].title)
    for message, titles in found.items():
        told = f"{message} in {', '.join(titles)}; --fold-bn writes no variances"
        if wanted is not None:
            raise InputError(told)
        warn(told)


def targets(job: Job, out: Path, *, force: bool) -> tuple[Path, Path, Path | None]:
    """The .cfg, .weights and, where the data has names, .names to write. InputError if one exists, unless `force`."""
    stem = Path(job.workspace.cfg.path).stem
    cfg, weights = out / f"{stem}-slim.cfg", out / f"{stem}-slim.weights"
    names = out / f"{stem}-slim.names" if job.data.names is not None else None
    for path in (cfg, weights, names):
        if path is not None and path.exists() and not force:
            raise InputError("exists already; --force replaces it", file=path)
    return cfg, weights, names
