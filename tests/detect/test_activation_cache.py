"""Measuring with an activation cache gives what measuring all of the network gives."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers import graph_of, random_model
from yoloprune.darknet.data import read_data
from yoloprune.darknet.dialect import ALEXEYAB
from yoloprune.darknet.model import load, load_graph
from yoloprune.darknet.network import build
from yoloprune.darknet.predictions import join
from yoloprune.detect.activation_cache import ActivationCache
from yoloprune.detect.load import load_measure
from yoloprune.detect.pictures import Batch
from yoloprune.prune.channels import trace
from yoloprune.prune.slim import mask

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(("memory", "kept"), [(1 << 30, {4}), (1 << 21, {1, 3, 4}), (0, {0, 4})])
def test_with_a_cache_nothing_differs(tmp_path: Path, memory: int, kept: set[int]) -> None:
    from make_shapes import write as draw_set

    draw_set(tmp_path / "set", {"train": 1, "valid": 12}, 160, 3, 1, force=False)
    weights = ROOT / "weights" / "shapes.weights"
    cfg = ROOT / "cfg" / "shapes.cfg"
    model = load(cfg, weights, ALEXEYAB) if weights.exists() else random_model(load_graph(cfg, ALEXEYAB), 0)
    measure = load_measure(model.graph, read_data(tmp_path / "set" / "shapes.data"))
    order = np.random.default_rng(0).permutation(12)
    cache = ActivationCache(measure.pictures.select(order.tolist()), build(model), memory)
    channels = trace(model.graph)
    found_kept = set()
    for group in (*channels.groups, channels.groups[2]):
        cache.advance(group.producers)
        found_kept.add(len(cache._activations))
        keep = channels.all_kept()
        keep[group.units[: len(group.units) // 2]] = False
        variant = build(mask(model, channels, keep))
        first = list(islice(cache.outputs(variant), 1))
        parts = list(measure.predict(chain(first, cache.outputs(variant, skip=1))))
        assert [number for numbers, _ in parts for number in numbers] == order.tolist()
        ours, whole = join(part for _, part in parts).by_image(), measure.predictions(variant).by_image()
        assert vars(ours).keys() >= {"image", "classes", "probs", "boxes", "truth"}
        for one, other in zip(vars(ours).values(), vars(whole).values(), strict=True):
            assert torch.equal(one, other)
    assert found_kept == kept  # 4 batches; of the first layer's filters there is nothing to keep


def test_a_head_that_a_cut_does_not_touch_is_not_run_again() -> None:
    """Three pictures in batches of one: what the layers of either head compute, and the same results as in full."""
    head = "[convolutional]\nfilters=4\nactivation=leaky\n[convolutional]\nfilters=7\nactivation=linear\n"
    head += "[yolo]\nclasses=2\nnum=1\n"
    text = "[net]\nwidth=32\nheight=32\nchannels=3\n[convolutional]\nfilters=4\nsize=3\npad=1\nactivation=leaky\n"
    model = random_model(graph_of(text + head + "[route]\nlayers=0\n" + head), 1)
    base, variant = build(model), build(model)
    pictures = Fixed(np.random.default_rng(2).random((3, 1, 3, 32, 32), np.float32))
    cache = ActivationCache(pictures, base)  # type: ignore[arg-type]  # batches are all it asks for
    calls: list[int] = []
    for index, layer in enumerate(variant.layers):
        layer.register_forward_hook(lambda *_, index=index: calls.append(index))
    for changed, run in (([2], {2, 3}), ([6], {6, 7}), ([2, 6], {2, 3, 6, 7}), ([0], set(range(8)))):
        calls.clear()
        cache.advance(changed)
        found = [dict(outputs) for _, outputs in cache.outputs(variant)]
        assert set(calls) == run
        assert len(calls) == 3 * len(run)
        for batch, outputs in zip(pictures, found, strict=True):
            with torch.inference_mode():
                whole = base(batch.inputs)
            assert outputs.keys() == whole.keys()
            assert all(torch.equal(outputs[index], whole[index]) for index in whole)


class Fixed:
    """Batches as `Pictures` gives them."""

    def __init__(self, batches: np.ndarray) -> None:
        self.batches = [Batch(torch.from_numpy(each), range(len(each)), [(32, 32)] * len(each)) for each in batches]

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.batches)
