"""The row of pictures: what is in it does not depend on threads, memory or order of asking."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.train.test_loop import NET, drawn_images, fresh
from yoloprune.darknet.data import load_split, read_data
from yoloprune.darknet.dialect import ALEXEYAB, PJREDDIE
from yoloprune.errors import InputError
from yoloprune.train.batches import batches
from yoloprune.train.samples import PixelCache, Samples


@pytest.mark.parametrize("keys", ["", "mosaic=1", "mixup=1\nblur=5\ngaussian_noise=9"])
def test_the_row_is_a_function_of_place_and_seed(tmp_path: Path, keys: str) -> None:
    images = drawn_images(tmp_path)
    text = NET.replace("burn_in=2", f"burn_in=2\nresize_step=8\n{keys}").replace("jitter=.2", "jitter=.2\nrandom=2")
    model, recipe = fresh(text)
    recipe = replace(recipe, sizes=replace(recipe.sizes, iterations=10000))
    rows = []
    for workers, memory in ((0, 0), (1, 6000), (4, 1 << 20)):
        samples = Samples.of(images, model.graph, recipe, 7, memory)
        rows.append(list(batches(samples, range(0, 126, 3), 3, workers)))
    for row in rows[1:]:
        for a, b in zip(rows[0], row, strict=True):
            assert torch.equal(a[0], b[0])
            assert torch.equal(a[1], b[1])
    assert len({batch.shape for batch, _ in rows[0]}) > 1  # of several sizes
    samples = Samples.of(images, model.graph, recipe, 7, 0)
    np.testing.assert_array_equal(samples.at(100)[0], rows[0][33][0][1].numpy())
    other = Samples.of(images, model.graph, recipe, 8, 0)
    assert (other.at(0)[0] != samples.at(0)[0]).any()


def test_every_picture_comes_once_an_epoch(tmp_path: Path) -> None:
    images = drawn_images(tmp_path)
    model, recipe = fresh()
    still = replace(
        recipe, augmentation=replace(recipe.augmentation, jitter=0, hue=0, saturation=1, exposure=1, flip=False)
    )
    samples = Samples.of(images, model.graph, still, 1, 1 << 20)
    epochs = [[samples.at(epoch * 9 + place)[0].tobytes() for place in range(9)] for epoch in range(3)]
    assert len(set(epochs[0])) == 9
    assert set(epochs[0]) == set(epochs[1]) == set(epochs[2])
    assert epochs[0] != epochs[1]


def test_the_cache_keeps_within_its_limit(tmp_path: Path) -> None:
    images = drawn_images(tmp_path)
    cache = PixelCache(10000, 3)
    pixels = [cache.read(path) for path in images.images]
    assert cache._bytes == sum(each.nbytes for each in cache._kept.values()) <= 10000
    assert 0 < len(cache._kept) < 9
    first = next(iter(cache._kept))
    assert cache.read(first) is pixels[images.images.index(first)]


def test_a_missing_label_file_is_no_object_only_in_alexeyabs_dialect(tmp_path: Path) -> None:
    images = drawn_images(tmp_path)
    for path in images.images[1:]:
        path.with_suffix(".txt").write_text("0 .5 .5 .2 .2\n")
    (tmp_path / "list.txt").write_text("".join(f"{path}\n" for path in images.images))
    (tmp_path / "set.data").write_text("classes=2\ntrain=list.txt\nvalid=list.txt\n")
    data = read_data(tmp_path / "set.data")
    assert [len(truth) for truth in load_split(data, "train", ALEXEYAB, classes=2).truths] == [0] + [1] * 8
    with pytest.raises(InputError, match=r"list\.txt: no label file for .*0\.png; an empty one"):
        load_split(data, "train", PJREDDIE, classes=2)
    assert len(load_split(data, "valid", PJREDDIE, classes=2).images) == 9
