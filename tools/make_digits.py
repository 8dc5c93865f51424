"""MNIST as Darknet's classifiers read data: pictures, lists, labels, names, .data files.

    python tools/make_digits.py --mnist FOLDER --out DIR [--limit N]

FOLDER has the four original files (train-images-idx3-ubyte.gz and so on). Of the 60,000 pictures to train on, 5000 at
random choose (`valid` of digits.data), the other 55,000 train; the test set's 10,000 measure (`valid` of
digits-test.data). A picture's name ends in its class, like 00042_d7.png, and the labels are like `_d7.`, so that the
name of a folder can't be taken for one. With --limit no list has more than N pictures.
"""

from __future__ import annotations

import argparse
import gzip
import sys
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

CHOOSE = 5000
"""Pictures that choose, of the 60,000."""
CLASSES = 10
_SEED = 0
_Bytes = NDArray[np.uint8]


def main() -> None:
    """Convert."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", type=Path, required=True, help="folder of the four original files")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--limit", type=int, help="most pictures of a list")
    args = parser.parse_args()
    try:
        counts = write(args.mnist, args.out, args.limit)
    except (OSError, ValueError) as error:
        sys.exit(f"make_digits: {error}")
    print(", ".join(f"{name} {count}" for name, count in counts.items()))


def write(mnist: Path, out: Path, limit: int | None = None) -> dict[str, int]:
    """The set in `out`; how many pictures each list has. ValueError for files that are no MNIST."""
    out = out.resolve()
    images, classes = read(mnist, "train")
    order = np.random.default_rng(_SEED).permutation(len(images))
    parts = {"choose": order[:CHOOSE], "train": order[CHOOSE:]}
    counts = {
        name: _write_list(out, name, images[numbers[:limit]], classes[numbers[:limit]], numbers[:limit])
        for name, numbers in parts.items()
    }
    images, classes = read(mnist, "t10k")
    counts["test"] = _write_list(out, "test", images[:limit], classes[:limit], np.arange(len(images))[:limit])
    (out / "digits.names").write_text("".join(f"{number}\n" for number in range(CLASSES)))
    (out / "digits.labels").write_text("".join(f"_d{number}.\n" for number in range(CLASSES)))
    for name, valid in (("digits", "choose"), ("digits-test", "test")):
        (out / f"{name}.data").write_text(
            f"classes={CLASSES}\ntrain={out}/train.txt\nvalid={out}/{valid}.txt\nlabels={out}/digits.labels\n"
            f"names={out}/digits.names\nbackup={out}/backup\ntop=5\n"
        )
    return counts


def read(mnist: Path, part: str) -> tuple[_Bytes, _Bytes]:
    """Pictures [N, H, W] and classes [N] of `train` or `t10k`."""
    images = _read_idx(mnist / f"{part}-images-idx3-ubyte.gz", 3)
    classes = _read_idx(mnist / f"{part}-labels-idx1-ubyte.gz", 1)
    if len(images) != len(classes):
        raise ValueError(f"{mnist}: {len(images)} pictures and {len(classes)} labels of {part}")
    return images, classes


def _read_idx(path: Path, axes: int) -> _Bytes:
    """The bytes of an idx file: 0, 0, 8 (for bytes), the number of axes, a big-endian length each, the values."""
    content = gzip.decompress(path.read_bytes())
    if content[:4] != bytes((0, 0, 8, axes)) or len(content) < 4 + 4 * axes:
        raise ValueError(f"{path}: expected an idx file of bytes with {axes} axes")
    shape = np.frombuffer(content, ">u4", axes, 4)
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * axes)
    if values.size != np.prod(shape, dtype=np.int64):
        raise ValueError(f"{path}: expected {'x'.join(map(str, shape))} values, found {values.size}")
    return values.reshape(shape)


def _write_list(out: Path, name: str, images: _Bytes, classes: _Bytes, numbers: NDArray[np.int64]) -> int:
    """The pictures and their list. numbers: of each in its file."""
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for pixels, kind, number in zip(images, classes, numbers, strict=True):
        path = folder / f"{number:05d}_d{kind}.png"
        if not cv2.imwrite(str(path), pixels):
            raise OSError(f"cannot write {path}")
        lines.append(f"{path}\n")
    (out / f"{name}.txt").write_text("".join(lines))
    return len(lines)


if __name__ == "__main__":
    main()
