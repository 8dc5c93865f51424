"""The drawn set: the same from the same seed, and labelled as it is drawn."""

from __future__ import annotations

import hashlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from yoloprune import shapes
from yoloprune.errors import InputError


def scene(seed: int, size: int = 160) -> shapes.Scene:
    return shapes.scene(np.random.default_rng(seed), size)


def hashes(folder: Path) -> dict[str, str]:
    """Hash of every file, by its path in the folder."""
    files = (file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_an_image_follows_from_its_seed() -> None:
    first, again, other = scene(5), scene(5), scene(6)
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.labels, again.labels)
    assert not np.array_equal(first.image, other.image)


@pytest.mark.parametrize("size", [64, 160, 221])
def test_labels_are_tight_boxes_inside_the_image(size: int) -> None:
    for seed in range(40):
        made = scene(seed, size)
        assert made.image.shape == (size, size, 3)
        assert made.image.dtype == np.uint8
        assert 1 <= len(made.labels) == len(made.masks) <= 6
        assert set(made.labels[:, 0]) <= set(range(6))
        centre, extent = made.labels[:, 1:3], made.labels[:, 3:]
        assert (centre - extent / 2 >= -1e-9).all()
        assert (centre + extent / 2 <= 1 + 1e-9).all()
        for (x, y, w, h), mask in zip(made.labels[:, 1:], made.masks, strict=True):
            rows, columns = np.nonzero((mask >= 128).any(axis=1))[0], np.nonzero((mask >= 128).any(axis=0))[0]
            edges = np.array([x - w / 2, y - h / 2, x + w / 2, y + h / 2]) * size
            np.testing.assert_allclose(edges, [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], atol=1e-6)
            assert max(w, h) * size <= shapes.LARGEST * size + 1  # a pixel that is half covered counts whole
            assert max(w, h) * size >= shapes.SMALLEST * size * (1 - shapes.MOST_OUTSIDE) - 1


def test_an_object_stands_out_where_its_mask_says() -> None:
    """Without clutter and camera, what changes when an object is painted is its mask, and nothing farther off."""
    rng = np.random.default_rng(11)
    for kind in shapes.CLASSES:
        ground = np.full((121, 121, 3), 90, np.float32)
        outline = shapes._placed(rng, shapes._outline(rng, kind), 121, 0.3, 0.5, 0.0)
        mask = shapes.mask_of(outline, 121)
        painted = ground.copy()
        shapes._paint(rng, painted, outline, mask)
        changed = np.abs(painted - ground).max(axis=2) > 1
        assert changed[mask > 250].mean() > 0.9
        nothing_near = cv2.dilate(mask, np.ones((25, 25), np.uint8)) == 0  # a shadow falls beside it
        assert not changed[nothing_near].any()


def test_later_objects_leave_most_of_the_earlier() -> None:
    for seed in range(60):
        masks = [mask >= 128 for mask in scene(seed).masks]
        for at, mask in enumerate(masks):
            for later in masks[at + 1 :]:
                # Edge pixels count in the drawing's own measure and not here: small objects have many.
                assert (mask & later).sum() <= 0.35 * mask.sum()


def test_classes_and_sizes_are_spread() -> None:
    labels = np.concatenate([scene(seed).labels for seed in range(300)])
    shares = np.bincount(labels[:, 0].astype(int), minlength=6) / len(labels)
    assert shares.min() > 0.12
    longest = labels[:, 3:].max(axis=1)
    assert (longest < 0.12).mean() > 0.1
    assert (longest > 0.4).mean() > 0.1


def test_the_files_do_not_depend_on_counts_or_processes(tmp_path: Path) -> None:
    few, many = tmp_path / "few", tmp_path / "many"
    shapes.write(few, {"train": 3, "valid": 2}, 96, 4, processes=1, force=False)
    shapes.write(many, {"train": 5, "valid": 2}, 96, 4, processes=2, force=False)
    small, large = hashes(few), hashes(many)
    assert len(set(small.values())) == len(small) == 2 * 5 + 4
    lists = {"train.txt"}
    assert {path: small[path] for path in small.keys() - lists} == {path: large[path] for path in small.keys() - lists}
    other = tmp_path / "other"
    shapes.write(other, {"train": 3, "valid": 2}, 96, 5, processes=1, force=False)
    assert all(hashes(other)[path] != small[path] for path in small if path.endswith(".jpg"))


def test_the_folder_is_a_darknet_set(tmp_path: Path) -> None:
    out = tmp_path / "set"
    objects = shapes.write(out, {"train": 4, "valid": 2}, 96, 0, processes=1, force=False)
    data = dict(line.split("=") for line in (out / "shapes.data").read_text().splitlines())
    names = (out / data["names"]).read_text().split()
    assert int(data["classes"]) == len(names) == 6
    found = 0
    for split, count in (("train", 4), ("valid", 2)):
        paths = (out / data[split]).read_text().split()
        assert len(paths) == count
        for path in paths:
            assert cv2.imread(str(out / path)).shape == (96, 96, 3)
            lines = (out / path.replace("images", "labels").replace(".jpg", ".txt")).read_text().splitlines()
            assert all(len(line.split()) == 5 for line in lines)
            found += len(lines)
    assert found == objects > 0


def test_an_earlier_set_is_replaced_only_on_request(tmp_path: Path) -> None:
    out = tmp_path / "set"
    counts = {"train": 1, "valid": 1}
    shapes.write(out, counts, 96, 0, processes=1, force=False)
    before = hashes(out)
    with pytest.raises(InputError):
        shapes.write(out, counts, 96, 1, processes=1, force=False)
    assert hashes(out) == before
    shapes.write(out, counts, 96, 1, processes=1, force=True)
    assert hashes(out) != before
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError):
        shapes.write(mine, counts, 96, 0, processes=1, force=True)
    assert (mine / "thesis.txt").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "set"]
