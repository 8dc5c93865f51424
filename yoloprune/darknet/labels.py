"""Where each Darknet looks for the label file of a picture, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from yoloprune.darknet.dialect import Dialect

_IMAGE_FOLDERS: Final = ("images", "JPEGImages")


@dataclass(frozen=True)
class LabelRule:
    """How the path of a picture becomes that of its label file."""

    parts: tuple[tuple[str, str], ...] = ()
    """What is replaced, one after the other, each at its first place only."""
    endings: tuple[str, ...] | None = None
    """Endings that become .txt; None: whatever there is."""
    ending_anywhere: bool = False
    """Whether an ending is also replaced within the path, at its first place."""

    def path(self, image: str) -> str:
        """The label file's path. Without an ending that the rule knows it keeps the picture's, and is none."""
        for old, new in self.parts:
            image = image.replace(old, new, 1)
        if self.endings is None:
            return str(Path(image).with_suffix(".txt")) if Path(image).name else image
        for ending in self.endings:
            if self.ending_anywhere:
                image = image.replace(ending, ".txt", 1)
            # utils.c takes an ending that also occurs before (a.jpg.jpg) for none
            elif image.endswith(ending) and image.count(ending) == 1:
                image = image.removesuffix(ending) + ".txt"
        return image


RULES: Final[Mapping[str, LabelRule]] = {
    # data.c fill_truth_detection
    "pjreddie": LabelRule(
        parts=(("images", "labels"), ("JPEGImages", "labels"), ("raw", "labels")),
        endings=(".jpg", ".png", ".JPG", ".JPEG"),
        ending_anywhere=True,
    ),
    # utils.c replace_image_to_label
    "alexeyab": LabelRule(
        parts=(
            ("/images/train2017/", "/labels/train2017/"),
            ("/images/val2017/", "/labels/val2017/"),
            ("/JPEGImages/", "/labels/"),
            ("/images/train2014/", "/labels/train2014/"),
            ("/images/val2014/", "/labels/val2014/"),
        ),
        endings=(
            *(".jpg", ".JPG", ".jpeg", ".JPEG", ".png", ".PNG", ".bmp", ".BMP", ".ppm", ".PPM", ".tiff", ".TIFF"),
        ),
    ),
    # utils.cpp replace_image_to_label: beside the picture
    "hank-ai": LabelRule(),
}
"""By the name of the Darknet."""


def label_candidates(image: str | Path, dialect: Dialect) -> tuple[Path, ...]:
    """Where the labels of an image may be, best first, each once.

    By the dialect's own rule; then the last folder named images or JPEGImages replaced by labels; then by hank-ai's
    rule, beside the image.
    """
    image = Path(image)
    beside = Path(RULES["hank-ai"].path(str(image)))
    candidates = [RULES[dialect.name].path(str(image))]
    folders = beside.parts[:-1]
    for at in reversed(range(len(folders))):
        if folders[at] in _IMAGE_FOLDERS:
            candidates.append(str(Path(*folders[:at], "labels", *beside.parts[at + 1 :])))
            break
    candidates.append(str(beside))
    # A rule that knows no such ending leaves the image's own; that is no label file.
    return tuple(dict.fromkeys(Path(text) for text in candidates if text.endswith(".txt")))
