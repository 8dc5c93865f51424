"""The row of pictures: what is in it does not depend on processes, memory or order of asking."""

from __future__ import annotations

import os
import signal
from contextlib import closing
from dataclasses import replace
from multiprocessing import active_children, get_context
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.train.test_loop import CLASSES, NET, drawn_images, fresh
from yoloprune.darknet.data import ClassSplit, load_split, read_data
from yoloprune.darknet.dialect import ALEXEYAB, PJREDDIE
from yoloprune.detect.image import read_pixels
from yoloprune.errors import InputError, InputWarning
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
        rows.append([(pixels.clone(), truths) for pixels, truths in batches(samples, range(0, 126, 3), 3, workers)])
    for row in rows[1:]:
        for a, b in zip(rows[0], row, strict=True):
            assert torch.equal(a[0], b[0])
            assert torch.equal(a[1], b[1])
    assert len({batch.shape for batch, _ in rows[0]}) > 1  # of several sizes
    samples = Samples.of(images, model.graph, recipe, 7, 0)
    np.testing.assert_array_equal(samples.at(100)[0], rows[0][33][0][1].numpy())
    other = Samples.of(images, model.graph, recipe, 8, 0)
    assert (other.at(0)[0] != samples.at(0)[0]).any()


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_errors_are_the_same_and_leave_no_process(tmp_path: Path, workers: int) -> None:
    images = drawn_images(tmp_path)
    images.images[4].write_bytes(b"no picture")
    model, recipe = fresh()
    samples = Samples.of(images, model.graph, recipe, 7, 0)
    order = np.random.default_rng((7, 0, 0)).permutation(9)
    right = order.tolist().index(4) // 2
    row = batches(samples, range(0, 100, 2), 2, workers)
    for _ in range(right):
        next(row)
    assert len(active_children()) == workers
    with pytest.raises(InputError) as found:
        next(row)
    with pytest.raises(InputError) as expected:
        read_pixels(images.images[4])
    assert str(found.value) == str(expected.value)
    assert not active_children()


def test_what_is_left_off_leaves_no_process(tmp_path: Path) -> None:
    model, recipe = fresh()
    samples = Samples.of(drawn_images(tmp_path), model.graph, recipe, 7, 0)
    with closing(batches(samples, range(0, 100, 2), 2, 2)) as row:
        next(row)
        assert len(active_children()) == 2
    assert not active_children()
    row = batches(samples, range(0, 100, 2), 2, 2)
    next(row)
    os.kill(active_children()[0].pid or 0, signal.SIGKILL)
    with pytest.raises(InputError, match=r"a process that prepares pictures ended .*--workers 0"):
        list(row)
    assert not active_children()


def test_what_is_learnt_from_is_the_same_however_its_paths_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boxes = drawn_images(tmp_path)
    monkeypatch.chdir(tmp_path)
    for text, split in ((NET, boxes), (CLASSES, ClassSplit(("a", "b"), boxes.images, (0, 1) * 4 + (1,)))):
        model, recipe = fresh(text)
        written = [split.images, tuple(Path(path.name) for path in split.images)]
        written.append(tuple(Path("..") / tmp_path.name / path.name for path in split.images))
        learnt = {
            b"".join(Samples.of(replace(split, images=paths), model.graph, recipe, 1, 0).hashed()) for paths in written
        }
        assert len(learnt) == 1


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


def test_the_cache_keeps_within_its_limit_whoever_reads(tmp_path: Path) -> None:
    images = drawn_images(tmp_path)
    right = [read_pixels(path) for path in images.images]
    limit = sum(pixels.nbytes for pixels in right[:4]) + 1
    cache = PixelCache(images.images, 3, limit)
    readers = [get_context("fork").Process(target=_read_all, args=(cache,)) for _ in range(3)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
        assert reader.exitcode == 0
    for path in images.images:
        path.unlink()
    kept = []
    for number in range(9):
        try:
            np.testing.assert_array_equal(cache.read(number), right[number])
            kept.append(number)
        except InputError:
            continue
    assert limit - max(pixels.nbytes for pixels in right) < sum(right[number].nbytes for number in kept) <= limit


def _read_all(cache: PixelCache) -> None:
    for number in range(9):
        cache.read(number)


def test_a_missing_label_file_is_no_object_only_in_alexeyabs_dialect(tmp_path: Path) -> None:
    images = drawn_images(tmp_path)
    for path in images.images[1:]:
        path.with_suffix(".txt").write_text("0 .5 .5 .2 .2\n")
    (tmp_path / "list.txt").write_text("".join(f"{path}\n" for path in images.images))
    (tmp_path / "set.data").write_text("classes=2\ntrain=list.txt\nvalid=list.txt\n")
    data = read_data(tmp_path / "set.data")
    with pytest.warns(InputWarning, match=r"list\.txt: 1 of 9 images have no label file"):
        assert [len(truth) for truth in load_split(data, "train", ALEXEYAB, classes=2).truths] == [0] + [1] * 8
    with pytest.raises(InputError, match=r"list\.txt: no label file for .*0\.png; an empty one"):
        load_split(data, "train", PJREDDIE, classes=2)
    with pytest.warns(InputWarning, match=r"list\.txt: 1 of 9 images have no label file"):
        assert len(load_split(data, "valid", PJREDDIE, classes=2).images) == 9
