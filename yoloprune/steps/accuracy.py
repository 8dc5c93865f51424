"""`map`: a network's accuracy on the valid list."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from yoloprune.darknet.data import read_data
from yoloprune.darknet.dialect import dialect_named
from yoloprune.darknet.model import load
from yoloprune.darknet.predictions import join
from yoloprune.detect.evaluate import Points
from yoloprune.detect.load import load_measure
from yoloprune.detect.measure import network_for_measuring
from yoloprune.detect.overlap import NmsKind
from yoloprune.errors import InputError
from yoloprune.options import Settings
from yoloprune.progress import OnProgress, Progress, silent
from yoloprune.steps.inputs import check_readable, expect_one_of, find_data


def accuracy(
    cfg: Path,
    weights: Path,
    data: Path | None = None,
    *,
    settings: Settings = Settings(),  # noqa: B008 - a frozen value
    points: int | None = None,
    nms: str | None = None,
    device: str = "cpu",
    progress: OnProgress = silent,
) -> Mapping[str, Any]:
    """A network's accuracy on the valid list, as `Measure.summary` gives it.

    points: of the precision-recall curve, 0 for the area under it (the default). nms: a kind of `NmsKind`, else the
    cfg's. Both are for detectors.
    """
    model = load(cfg, weights, dialect_named(settings.dialect))
    if not model.graph.detection_heads and (points is not None or nms is not None):
        raise InputError("--points and --nms are for detectors, and this network is none", file=cfg)
    expect_one_of("--points", points, get_args(Points))
    expect_one_of("--nms", nms, get_args(NmsKind))
    how: Any = {"points": points or 0, "nms_kind": nms}
    measure = load_measure(
        model.graph,
        read_data(find_data(cfg, data)),
        metric=settings.metric,
        letterbox=settings.letterbox,
        limit=settings.images,
        device=device,
        **how,
    )
    check_readable(measure.pictures.paths, model.graph, progress)
    parts, done = [], 0
    for numbers, part in measure.run(network_for_measuring(model, device)):
        parts.append(part)
        done += len(numbers)
        progress(Progress("map", done, len(measure.pictures)))
    return measure.summary(join(parts))
