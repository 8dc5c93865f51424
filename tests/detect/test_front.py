"""Measuring behind a front gives what measuring all of the network gives."""

from __future__ import annotations

from itertools import chain, islice
from pathlib import Path

import numpy as np
import pytest

from tests.helpers import random_model
from yoloprune.darknet.data import read_data
from yoloprune.darknet.dialect import ALEXEYAB
from yoloprune.darknet.model import load, load_graph
from yoloprune.darknet.network import build
from yoloprune.detect.front import Front
from yoloprune.detect.measure import load_measure
from yoloprune.prune.channels import trace
from yoloprune.prune.slim import mask

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("memory", [1 << 30, 1 << 22, 0])
def test_behind_a_front_nothing_differs(tmp_path: Path, memory: int) -> None:
    from make_shapes import write as draw_set

    draw_set(tmp_path / "set", {"train": 1, "valid": 12}, 160, 3, 1, force=False)
    weights = ROOT / "weights" / "shapes.weights"
    cfg = ROOT / "cfg" / "shapes.cfg"
    model = load(cfg, weights, ALEXEYAB) if weights.exists() else random_model(load_graph(cfg, ALEXEYAB), 0)
    measure = load_measure(model.graph, read_data(tmp_path / "set" / "shapes.data"))
    order = np.random.default_rng(0).permutation(12)
    front = Front(measure.pictures.taking(order.tolist()), build(model), memory)
    channels = trace(model.graph)
    starts = []
    for group in (*channels.groups, channels.groups[2]):
        front.advance(group.producers[0])
        starts.append(front.start)
        keep = channels.all_kept()
        keep[group.atoms[: len(group.atoms) // 2]] = False
        variant = build(mask(model, channels, keep))
        first = list(islice(front.outputs(variant), 1))
        ours = [each for found in measure.look(chain(first, front.outputs(variant, behind=1))) for each in found]
        whole = measure.found(variant)
        for one, number in zip(ours, order, strict=True):
            assert np.array_equal(one.boxes, whole[number].boxes)
            assert np.array_equal(one.probs, whole[number].probs)
    assert (max(starts) > 0) == (memory > 0)
