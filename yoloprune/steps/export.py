"""`export`: the dropped channels really removed, in files that stock Darknet runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from yoloprune.artefacts import atomic_path, check_free, read_bytes
from yoloprune.compat import PROFILES, ReaderProfile, WeightsFile, lost_values, profile_named
from yoloprune.compat.adapt import adapted
from yoloprune.darknet import cfg as cfg_file
from yoloprune.darknet import weights as weights_file
from yoloprune.darknet.cfg import Cfg
from yoloprune.darknet.fold import folded
from yoloprune.darknet.model import Model, build_graph, hazards, plain
from yoloprune.darknet.weights import Header, Weights
from yoloprune.errors import InputError, warn
from yoloprune.options import ExportOptions
from yoloprune.progress import OnProgress, silent
from yoloprune.shown import Shown
from yoloprune.steps.job import Job, figures_of, open_job
from yoloprune.steps.milliseconds import Times, timed
from yoloprune.steps.onnx_file import OnnxFile, check_packages, write_onnx
from yoloprune.workspace import DEFAULT, Figures


@dataclass(frozen=True, repr=False)
class Exported(Shown):
    """What was written."""

    before: Figures
    after: Figures
    cfg: Path
    weights: Path
    names: Path | None
    written: bool
    """False after a dry run."""
    made_of: tuple[Path, Path]
    """The original's cfg and the masked weights, which compute the same."""
    onnx: OnnxFile | None = None
    """Where it was wanted, and written."""

    def rows(self) -> Mapping[str, Mapping[str, object]]:
        """Figures of the networks."""
        return {"original": self.before.as_dict(), "slim": self.after.as_dict()}


def export(
    out: Path,
    options: ExportOptions = ExportOptions(),  # noqa: B008 - a frozen value
    *,
    workspace: Path = DEFAULT,
    force: bool = False,
    dry_run: bool = False,
    ms: bool = False,
    progress: OnProgress = silent,
) -> Exported:
    """Write `<stem>-slim.cfg`, `.weights` and, where the data has names, `.names` to the folder `out`.

    From the newest weights: finetuned, else pruned; denormals become 0. `seen` becomes 0, so that further training does
    not stop at once, unless keep_seen. The cfg keeps its comments; only changed values are rewritten, and those that a
    reader trips over. options.onnx: also `<stem>-slim.onnx`, as `convert` writes it. ms: time both networks, too, in
    every reader on this machine.
    """
    if not options.onnx and (options.onnx_decode or options.int8):
        raise InputError(f"{'--onnx-decode' if options.onnx_decode else '--int8'}: expected --onnx")
    wanted = None if options.reader is None else profile_named(options.reader)
    job = open_job(workspace)
    last = job.workspace.last
    original = job.original
    written = _written(job, options, wanted)
    data = weights_file.dump(written.weights, written.graph.layers)
    _check_values(written.graph.cfg, data, wanted)
    cfg, weights, names = targets(job, out, force=force)
    onnx = cfg.with_suffix(".onnx")
    if options.onnx:
        check_packages(int8=options.int8)
        check_free(onnx, force=force)
    listed = job.inputs.listed.names
    contents = ((weights, data), (names, read_bytes(listed) if listed is not None else b""))
    made = None
    if not dry_run:
        if options.onnx:  # first, as it may turn out that it can't be
            made = write_onnx(written, onnx, options, job.inputs, force=force)
        cfg_file.write(cfg, written.graph.cfg, force=force)
        for path, content in contents:
            if path is not None:
                with atomic_path(path, force=force) as temporary:
                    temporary.write_bytes(content)
    measured = last.newest
    after = figures_of(written, measured.metric, measured.accuracy)
    if ms:
        original, after = timed((original, after), (job.inputs.original, written), progress)
        if not dry_run:
            Times.keep(job.workspace.milliseconds_file, {"original": original, f"round {last.number}": after})
    masked = job.workspace.current_weights() or Path(job.workspace.weights.path)
    made_of = (Path(job.workspace.cfg.path), masked)
    return Exported(original, after, cfg, weights, names, not dry_run, made_of, made)


def _written(job: Job, options: ExportOptions, wanted: ReaderProfile | None) -> Model:
    """The slim network as its files have it, in the words of the reader that is wanted."""
    slimmed = job.units.slim(job.model)
    if options.fold_bn:
        slimmed = folded(slimmed)
    odd = plain(slimmed.graph)
    graph = build_graph(cfg_file.legal(odd) if wanted is None else adapted(odd, wanted), slimmed.graph.dialect)
    found = hazards(graph.layers) if wanted is None else []
    if found:
        raise InputError(f"the slim network is not safe in every Darknet: {found[0]}", file=job.workspace.folder)
    before = job.inputs.original.weights.header
    seen = before.seen if options.keep_seen else 0
    # 20 bytes are what every reader takes that can be named; some program may always skip as many as there were
    header = before.renewed(seen) if wanted is None else Header(seen=seen)
    return Model(graph, Weights(header, slimmed.weights.layers).without_denormals())


def _check_values(cfg: Cfg, weights: bytes, wanted: ReaderProfile | None) -> None:
    """Warn of readers that make NaN of variances. InputError if it is the one that is wanted."""
    readers = {each.name: each for each in (PROFILES.values() if wanted is None else (wanted,))}
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
    names = out / f"{stem}-slim.names" if job.inputs.listed.names is not None else None
    for path in (cfg, weights, names):
        if path is not None:
            check_free(path, force=force)
    return cfg, weights, names
