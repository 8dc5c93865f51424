"""idx files as Darknet's classifiers read data."""

from __future__ import annotations

import gzip
from pathlib import Path

import make_digits
import numpy as np
import pytest

from yoloprune.darknet.data import load_classes, read_data
from yoloprune.detect.image import read_pixels

Arrays = dict[str, tuple[np.ndarray, np.ndarray]]


def idx(path: Path, values: np.ndarray) -> None:
    header = bytes((0, 0, 8, values.ndim)) + np.array(values.shape, ">u4").tobytes()
    path.write_bytes(gzip.compress(header + values.tobytes()))


def made_up(folder: Path, train: int, test: int) -> Arrays:
    """A set of random pictures 7 x 5 in place of MNIST; pictures and classes by part."""
    folder.mkdir()
    rng = np.random.default_rng(train)
    found = {}
    for part, count in (("train", train), ("t10k", test)):
        images = rng.integers(0, 256, (count, 7, 5), np.uint8)
        classes = rng.integers(0, 10, count, np.uint8)
        idx(folder / f"{part}-images-idx3-ubyte.gz", images)
        idx(folder / f"{part}-labels-idx1-ubyte.gz", classes)
        found[part] = images, classes
    return found


def test_every_picture_comes_once_with_its_class(tmp_path: Path) -> None:
    known = made_up(tmp_path / "7_d1-mnist", 5030, 20)  # as the labels, but for a dot
    counts = make_digits.write(tmp_path / "7_d1-mnist", tmp_path / "7_d1-set")
    assert counts == {"choose": 5000, "train": 30, "test": 20}
    seen: dict[str, list[tuple[bytes, int]]] = {"train": [], "t10k": []}
    for name, which, part in (
        ("digits", "train", "train"),
        ("digits", "valid", "train"),
        ("digits-test", "valid", "t10k"),
    ):
        split = load_classes(read_data(tmp_path / "7_d1-set" / f"{name}.data"), which, classes=10)  # type: ignore[arg-type]
        assert split.names == tuple("0123456789")
        seen[part] += [
            (read_pixels(path, 1).tobytes(), kind) for path, kind in zip(split.images, split.classes, strict=True)
        ]
    for part, (images, classes) in known.items():
        expected = [(image.tobytes(), int(kind)) for image, kind in zip(images, classes, strict=True)]
        assert sorted(seen[part]) == sorted(expected)


def test_a_limit_shortens_every_list(tmp_path: Path) -> None:
    made_up(tmp_path / "mnist", 5030, 20)
    assert make_digits.write(tmp_path / "mnist", tmp_path / "set", 8) == {"choose": 8, "train": 8, "test": 8}
    assert len(list((tmp_path / "set").rglob("*.png"))) == 24


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda content: b"\1" + content[1:], "expected an idx file of bytes"),
        (lambda content: content[:-1], "values, found"),
        (lambda content: content[:4], "expected an idx file of bytes"),
    ],
)
def test_what_is_no_idx_file_is_said(tmp_path: Path, damage: object, said: str) -> None:
    made_up(tmp_path / "mnist", 9, 2)
    file = tmp_path / "mnist" / "train-images-idx3-ubyte.gz"
    assert callable(damage)
    file.write_bytes(gzip.compress(damage(gzip.decompress(file.read_bytes()))))
    with pytest.raises(ValueError, match=said):
        make_digits.write(tmp_path / "mnist", tmp_path / "set")
