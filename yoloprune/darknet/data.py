"""Darknet's data files: .data, .names, lists of images, label files.

What Darknet does with them is in its option_list.c, data.c, utils.c and detector.c. One rule is ours: a path that does
not exist from the current folder is looked for beside the file that names it, so that a data set can be moved.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from yoloprune.artefacts import is_file, read_bytes
from yoloprune.darknet.dialect import Dialect
from yoloprune.darknet.labels import label_candidates
from yoloprune.errors import InputError, warn

Labels = npt.NDArray[np.float32]
"""Objects of one image, [T, 5]: class, then centre x, centre y, width, height as fractions of the image."""
Which = Literal["train", "valid"]

_MOST: Final = 3e38
"""What float32 holds."""


@dataclass(frozen=True)
class DataFile:
    """A .data file. Its paths are resolved; whether they exist is asked where they are read."""

    path: Path
    classes: int | None
    """As written; Darknet's detector goes by the network's own number."""
    train: Path | None
    valid: Path | None
    names: Path | None
    """One class name a line, for people."""
    labels: Path | None
    """`labels=`: what a classifier looks for in an image's path; elsewhere another word for names."""
    backup: Path
    """Folder that training writes to: as written, from the current folder."""
    difficult: Path | None
    """AlexeyAB: a list parallel to `valid`; detections on the objects it labels count neither way."""
    values: Mapping[str, str]
    """Every key as written, the first where one comes twice."""
    lines: Mapping[str, int]
    """The line (from 1) of every key."""


@dataclass(frozen=True)
class Split:
    """Images of a detection set with their objects; parallel tuples."""

    names: tuple[str, ...]
    """One a class."""
    images: tuple[Path, ...]
    truths: tuple[Labels, ...]
    difficult: tuple[Labels, ...]


@dataclass(frozen=True)
class ClassSplit:
    """Images of a classification set; parallel tuples."""

    names: tuple[str, ...]
    """One a class, for people."""
    images: tuple[Path, ...]
    classes: tuple[int, ...]
    """True class of each image, -1 where no label is in its path (such an image is never right)."""


def read_data(path: str | Path, beside: Path | None = None, content: bytes | None = None) -> DataFile:
    """Read a .data file: `key=value` lines, comments starting with # or ;, blanks around both parts ignored.

    Blanks within a value are part of it if there is such a file, else dropped, as Darknet drops them all. Keys that
    mean nothing to us are kept in `values`. beside: the folder in which files that it names are looked for, if it is a
    copy that lies elsewhere. content: the file's bytes, where they are at hand. InputError for a line without `=` and
    for a `classes` that is no positive integer. (Darknet option_list.c: read_data_cfg, first of equal keys wins.)
    """
    path = Path(path)
    values: dict[str, str] = {}
    lines: dict[str, int] = {}
    for number, text in enumerate(_lines(read_bytes(path) if content is None else content, path), start=1):
        if not text or text[0] in "#;":
            continue
        key, equals, value = text.partition("=")
        key, value = "".join(key.split()), value.strip()
        if not equals or not key:
            raise InputError(f"expected key=value, found {text!r}", file=path, line=number)
        if value and key not in values:
            values[key] = value
            lines[key] = number

    classes = None
    if "classes" in values:
        found = values["classes"]
        digits = "".join(found.split())
        if not re.fullmatch("[0-9]{1,9}", digits) or int(digits) < 1:
            raise InputError(f"classes: expected a positive integer, found {found!r}", file=path, line=lines["classes"])
        classes = int(digits)

    def where(key: str) -> Path | None:
        if key not in values:
            return None
        written, joined = (
            _resolve(text, beside or path.parent) for text in (values[key], "".join(values[key].split()))
        )
        return joined if is_file(joined) and not is_file(written) else written

    return DataFile(
        path=path,
        classes=classes,
        train=where("train"),
        valid=where("valid"),
        names=where("names") or where("labels"),
        labels=where("labels"),
        backup=Path(values.get("backup", "backup")),
        difficult=where("difficult"),
        values=values,
        lines=lines,
    )


def read_names(path: str | Path) -> tuple[str, ...]:
    """Class names, one a line. Blank lines at the end are dropped; one in between is a class, as in Darknet.

    InputError if the file cannot be read or names nothing. (Darknet data.c: get_labels.)
    """
    names = _read_lines(Path(path))
    while names and not names[-1]:
        names.pop()
    if not names:
        raise InputError("expected one class name a line, found none", file=path)
    return tuple(names)


def read_labels(path: str | Path, classes: int) -> Labels:
    """Objects of one label file, float32 [T, 5]: five numbers an object, `class x y w h`. T may be 0.

    Darknet reads them wherever lines end, so several may stand on a line (data.c: read_boxes), stops at the first that
    does not parse, and indexes arrays by the class unchecked; here what is not an integer and four finite numbers, a
    negative size, or a class outside 0..classes-1 is an InputError.
    """
    return np.array([row for _, row in _objects(Path(path), classes)], np.float32).reshape(-1, 5)


def _objects(path: Path, classes: int) -> Iterator[tuple[int, tuple[float, ...]]]:
    """The objects of a label file, each with the line (from 1) that it ends in."""
    uneven: tuple[int, str] | None = None
    words: list[str] = []
    for number, text in enumerate(_read_lines(path), start=1):
        on_line = text.split()
        words += on_line
        if len(on_line) % 5 and uneven is None:
            uneven = number, text  # if anything is wrong behind it, it is this
        while len(words) >= 5:
            row = _label_row(words[:5])
            unknown = row is not None and not 0 <= row[0] < classes
            if row is None or (unknown and uneven):
                raise _no_object(path, *(uneven or (number, text)), words[0])
            if unknown:
                found = f"class out of range: expected 0..{classes - 1}, found {row[0]:.0f}"
                raise InputError(found, file=path, line=number)
            yield number, row
            del words[:5]
    if words:
        assert uneven is not None
        raise _no_object(path, *uneven, words[0])


def _no_object(path: Path, line: int, text: str, kind: str) -> InputError:
    """What to say of a line that is wrong, or of what should be an object's class."""
    broken = re.fullmatch(r"([+-]?[0-9]+)(\.[0-9]*)", kind)
    if broken and len(text.split()) % 5 == 0:
        reads = f"Darknet would read {broken[1]} and take {broken[2]} for x"
        return InputError(f"class {kind[:40]}: expected a whole number; {reads}", file=path, line=line)
    return InputError(f"expected `class x y w h`, five numbers, found {text[:80]!r}", file=path, line=line)


def read_images(list_file: Path) -> list[Path]:
    """The images of a list, one a line. InputError if there are none, or one isn't there."""
    return _find_images(list_file, _read_list(list_file))


def list_images(data: DataFile, which: Which, limit: int | None = None) -> tuple[Path, ...]:
    """The images of a list of a .data file, the first so many. InputError as `load_split` for what isn't there."""
    list_file = _list_file(data, which)
    return tuple(_find_images(list_file, _first(_read_list(list_file), limit)))


def load_split(
    data: DataFile, which: Which, dialect: Dialect, *, classes: int, limit: int | None = None, labels: bool = True
) -> Split:
    """The images of a list with their objects; `limit` takes the first ones, `labels=False` leaves all objects empty.

    An image without a label file has no objects, which is warned of; pjreddie's dialect refuses it on a train list.
    InputError, with file and line, for: a list that is not given, missing or empty; an image that does not exist; a
    number of names other than `classes`; label files of which none exists or none holds an object in its image; a
    `difficult` list of another length; anything `read_labels` refuses.
    """
    names = load_names(data, classes)
    list_file = _list_file(data, which)
    entries = _read_list(list_file)
    images = _find_images(list_file, _first(entries, limit))
    nothing = np.zeros((0, 5), np.float32)
    truths = [nothing] * len(images)
    difficult = [nothing] * len(images)
    if labels:
        files = [_existing(label_candidates(image, dialect)) for image in images]
        if not any(files):
            looked = " and ".join(str(path) for path in label_candidates(images[0], dialect))
            raise InputError(
                f"no label file for any of {len(images)} images; for the first looked at {looked}", file=list_file
            )
        if which == "train" and dialect.labels_required and not all(files):
            image = images[files.index(None)]
            why = (
                f"an empty one says that there are no objects (dialect {dialect.name}; in alexeyab none says the same)"
            )
            raise InputError(f"no label file for {image}; {why}", file=list_file)
        truths = [read_labels(file, classes) if file else nothing for file in files]
        if not any(len(truth) for truth in truths):
            raise InputError(f"the label files of all {len(images)} images are empty", file=list_file)
        if None in files:
            first = images[files.index(None)]
            without = f"{files.count(None)} of {len(files)} images have no label file, and so no objects"
            warn(f"{without}; the first is {first}", file=list_file)
        _check_inside(files, truths, classes)
        if which == "valid" and data.difficult is not None:
            difficult = _load_difficult(data.difficult, dialect, classes, expected=len(entries))[:limit]
    return Split(names, tuple(images), tuple(truths), tuple(difficult))


def _check_inside(files: Sequence[Path | None], truths: Sequence[Labels], classes: int) -> None:
    """InputError if all objects have their centres outside of their images; warns of those that reach outside.

    Of the latter AlexeyAB's Darknet teaches none with its centre outside (data.c: fill_truth_detection).
    """
    outside = [np.flatnonzero(((truth[:, 1:] < 0) | (truth[:, 1:] > 1)).any(1)) for truth in truths]
    count, total = sum(map(len, outside)), sum(map(len, truths))
    if not count:
        return
    at = next(at for at, rows in enumerate(outside) if len(rows))
    file = files[at]
    assert file is not None
    line, row = list(_objects(file, classes))[outside[at][0]]
    found = f"found {' '.join(f'{value:g}' for value in row)}"
    if all(((truth[:, 1:3] < 0) | (truth[:, 1:3] > 1)).any(1).all() for truth in truths):
        why = f"expected parts of the image's width and height, 0..1, {found}, and all {total} objects are like that"
        raise InputError(f"{why}: are they pixels?", file=file, line=line)
    warn(
        f"{count} of {total} objects reach outside of their images, 0..1; this is the first: {found}",
        file=file,
        line=line,
    )


def load_classes(data: DataFile, which: Which, *, classes: int, limit: int | None = None) -> ClassSplit:
    """The images of a list, each with the first class whose label is part of its path as the list has it.

    The labels are the lines of `labels=`, else of `names=`. (Darknet classifier.c: validate_classifier_single.)
    InputError as `load_split`; and if no path holds any label.
    """
    if data.names is None:
        raise InputError("expected labels= or names=, found neither", file=data.path)
    if data.classes not in (None, classes):  # by which Darknet goes here
        differs = f"classes: expected {classes} as the network has, found {data.classes}"
        raise InputError(differs, file=data.path, line=data.lines["classes"])
    names = load_names(data, classes)
    keys = names if data.labels is None else _checked_names(_present(data, "labels", data.labels), classes)
    list_file = _list_file(data, which)
    entries = _first(_read_list(list_file), limit)
    images = _find_images(list_file, entries)
    truths = [next((k for k, key in enumerate(keys) if key in text), -1) for _, text in entries]
    if max(truths) < 0:
        raise InputError(f"no path holds any of the {classes} labels of {data.labels or data.names}", file=list_file)
    return ClassSplit(names, tuple(images), tuple(truths))


def _read_lines(path: Path) -> list[str]:
    """Lines of a text file without line ends (LF or CRLF) and outer blanks. InputError if there is no such text."""
    return _lines(read_bytes(path), path)


def _lines(content: bytes, path: Path) -> list[str]:
    if b"\0" in content:
        raise InputError("expected a text file, found zero bytes", file=path)
    # Paths may hold bytes that are no UTF-8: surrogateescape hands them back to the system unchanged.
    return [line.strip() for line in content.decode("utf-8-sig", "surrogateescape").split("\n")]


def _resolve(text: str, folder: Path) -> Path:
    """The path from the current folder if there is such a file, else from `folder`."""
    return Path(text) if is_file(Path(text)) else folder / text


def _missing(what: str, text: str, path: Path) -> str:
    """What to say of a path as written, which is no such file, nor is `path`."""
    folder = next((each for each in (text, path) if os.path.isdir(each)), None)  # noqa: PTH112 - as in is_file
    return f"no such {what}: {text} (nor {path})" if folder is None else f"{folder} is a folder, expected one {what}"


def _existing(paths: tuple[Path, ...]) -> Path | None:
    return next((path for path in paths if is_file(path)), None)


def _label_row(words: Sequence[str]) -> tuple[float, ...] | None:
    """Five numbers, the first an integer, all finite, sizes not negative; None if the words are anything else."""
    try:
        row = (float(int(words[0])), *map(float, words[1:]))
    except (ValueError, OverflowError):
        return None
    if not all(abs(value) < _MOST for value in row) or min(row[3:]) < 0 or any("_" in word for word in words):
        return None
    return row


def _list_file(data: DataFile, which: Which) -> Path:
    path = data.train if which == "train" else data.valid
    if path is None:
        raise InputError(f"expected a line {which}=<list of images>, found none", file=data.path)
    return _present(data, which, path)


def _present(data: DataFile, key: str, path: Path) -> Path:
    """`path`, which `key` of the .data file names. InputError with that key's line if there is no such file."""
    if not is_file(path):
        missing = _missing("file", data.values[key], path)
        raise InputError(f"{key}: {missing}", file=data.path, line=data.lines[key])
    return path


def _read_list(path: Path) -> list[tuple[int, str]]:
    """Line number and text of every entry. InputError if there is none."""
    entries = [(number, text) for number, text in enumerate(_read_lines(path), start=1) if text]
    if not entries:
        raise InputError("expected one image path a line, found none", file=path)
    return entries


def _first(entries: list[tuple[int, str]], limit: int | None) -> list[tuple[int, str]]:
    if limit is not None and limit < 1:
        raise InputError(f"number of images: expected 1 or more, found {limit}")
    return entries[:limit]


def _find_images(list_file: Path, entries: list[tuple[int, str]]) -> list[Path]:
    images = []
    for number, text in entries:
        image = _resolve(text, list_file.parent)
        if not is_file(image):
            raise InputError(_missing("image", text, image), file=list_file, line=number)
        images.append(image)
    return images


def load_names(data: DataFile, classes: int) -> tuple[str, ...]:
    """Names of the classes; where the .data file gives none, their numbers. InputError if they are not `classes`.

    A detector goes by the network's number of classes, whatever `classes=` says, so that is warned of.
    """
    differs = f"expected {classes} as the network has, found {data.classes}"
    for key, path in (("names", data.names), ("labels", data.labels)):
        if path is not None and key in data.values:
            names = _checked_names(_present(data, key, path), classes)
            if data.classes not in (None, classes):
                warn(f"classes: {differs}; Darknet goes by the network", file=data.path, line=data.lines["classes"])
            return names
    if data.classes not in (None, classes):
        raise InputError(f"classes: {differs}", file=data.path, line=data.lines["classes"])
    return tuple(str(number) for number in range(classes))


def _checked_names(path: Path, classes: int) -> tuple[str, ...]:
    """The lines of a names file. InputError if they are not as many as the classes."""
    names = read_names(path)
    if len(names) != classes:
        raise InputError(f"expected {classes} names as the network has classes, found {len(names)}", file=path)
    return names


def _load_difficult(list_file: Path, dialect: Dialect, classes: int, *, expected: int) -> list[Labels]:
    """Objects of the `difficult` list, which names images only for their label files (AlexeyAB detector.c)."""
    entries = _read_list(list_file)
    if len(entries) != expected:
        raise InputError(f"expected {expected} lines as the valid list has, found {len(entries)}", file=list_file)
    objects = []
    for _, text in entries:
        file = _existing(label_candidates(text, dialect)) or _existing(
            label_candidates(list_file.parent / text, dialect)
        )
        objects.append(read_labels(file, classes) if file else np.zeros((0, 5), np.float32))
    return objects
