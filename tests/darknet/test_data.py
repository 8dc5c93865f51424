"""Darknet's data files: what is found where, and what is said of what is not."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from yoloprune.darknet.data import (
    DataFile,
    load_classes,
    load_split,
    read_data,
    read_labels,
    read_names,
)
from yoloprune.darknet.dialect import ALEXEYAB, PJREDDIE, Dialect
from yoloprune.darknet.labels import RULES, label_candidates
from yoloprune.errors import InputError, InputWarning

Maker = Callable[..., DataFile]


@pytest.fixture
def make(tmp_path: Path) -> Maker:
    """Writes files under tmp_path/set by their relative names, and reads its set.data."""

    def make(files: dict[str, str]) -> DataFile:
        files = {"set.data": "classes=2\ntrain=train.txt\nvalid=valid.txt\nnames=set.names\n", **files}
        for name, text in {"set.names": "cat\ndog\n", **files}.items():
            path = tmp_path / "set" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.encode())
        return read_data(tmp_path / "set" / "set.data")

    return make


TWO: dict[str, str] = {
    "valid.txt": "images/a.jpg\nimages/b.png\n",
    "images/a.jpg": "",
    "images/b.png": "",
    "labels/a.txt": "0 .5 .5 .25 .25\n1 0.1 0.2 0.3 0.4\n",
    "labels/b.txt": "",
}


def test_read_data(make: Maker, tmp_path: Path) -> None:
    data = make(
        {"set.data": "\ufeff# about\r\n classes = 2\r\n\r\n;x\r\ntrain=train.txt\r\nclasses=3\r\nbackup = b/\r\n"}
    )
    assert (data.classes, data.train, data.valid, data.names) == (2, tmp_path / "set" / "train.txt", None, None)
    assert data.values == {"classes": "2", "train": "train.txt", "backup": "b/"}
    assert data.lines == {"classes": 2, "train": 5, "backup": 7}


def test_paths_from_the_current_folder_first(make: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make(TWO)
    (tmp_path / "valid.txt").write_text("set/images/b.png\nb2.png\n")
    (tmp_path / "b2.png").touch()
    data = read_data("set/set.data")
    assert data.valid == Path("valid.txt")
    assert data.names == Path("set/set.names")
    split = load_split(data, "valid", ALEXEYAB, classes=2, labels=False)
    assert split.images == (Path("set/images/b.png"), Path("b2.png"))


def test_blanks_within_values_are_dropped_where_that_is_a_file(make: Maker, tmp_path: Path) -> None:
    text = "class es = 1 2\ntrain = my set.txt\nvalid = my list.txt\nnames=no thing\n"
    data = make({"set.data": text, "my set.txt": "", "mylist.txt": "", "myset.txt": ""})
    folder = tmp_path / "set"
    assert (data.classes, data.train, data.valid) == (12, folder / "my set.txt", folder / "mylist.txt")
    assert data.names == folder / "no thing"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("classes=2\njust words\n", r"set\.data:2: expected key=value, found 'just words'"),
        ("=3", r"set\.data:1: expected key=value"),
        ("train=a\nclasses=two", r"set\.data:2: classes: expected a positive integer, found 'two'"),
        ("classes=0", "expected a positive integer"),
        ("a\0b", r"set\.data: expected a text file"),
    ],
)
def test_bad_data_files(make: Maker, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make({"set.data": text})


def test_read_names(tmp_path: Path) -> None:
    path = tmp_path / "x.names"
    path.write_bytes("traffic light\r\n\r\nmañana\r\n\r\n\r\n".encode())
    assert read_names(path) == ("traffic light", "", "mañana")
    path.write_text("\n\n")
    with pytest.raises(InputError, match=r"x\.names: expected one class name a line"):
        read_names(path)
    with pytest.raises(InputError, match=r"gone: cannot be read: No such file"):
        read_names(tmp_path / "gone")


@pytest.mark.parametrize(
    ("dialect", "image", "expected"),
    [
        (ALEXEYAB, "/d/images/val2017/a.jpg", ["/d/labels/val2017/a.txt", "/d/images/val2017/a.txt"]),
        (ALEXEYAB, "/VOC/JPEGImages/a.JPEG", ["/VOC/labels/a.txt", "/VOC/JPEGImages/a.txt"]),
        (ALEXEYAB, "/d/images/a.png", ["/d/images/a.txt", "/d/labels/a.txt"]),
        (ALEXEYAB, "d/a.tiff", ["d/a.txt"]),
        (ALEXEYAB, "images/images/a.jpg", ["images/images/a.txt", "images/labels/a.txt"]),
        (ALEXEYAB, "d/a.jpg.jpg", ["d/a.jpg.txt"]),
        (ALEXEYAB, "d/a.webp", ["d/a.txt"]),
        (ALEXEYAB, "a.b", ["a.txt"]),
        (PJREDDIE, "/d/images/a.jpg", ["/d/labels/a.txt", "/d/images/a.txt"]),
        (PJREDDIE, "/images/images/a.jpg", ["/labels/images/a.txt", "/images/labels/a.txt", "/images/images/a.txt"]),
        (PJREDDIE, "/drawings/a.png", ["/dlabelsings/a.txt", "/drawings/a.txt"]),
        (PJREDDIE, "/V/JPEGImages/a.JPEG", ["/V/labels/a.txt", "/V/JPEGImages/a.txt"]),
        (PJREDDIE, "/d/images/a.bmp", ["/d/labels/a.txt", "/d/images/a.txt"]),
    ],
)  # fmt: skip
def test_label_candidates(dialect: Dialect, image: str, expected: list[str]) -> None:
    assert [str(path) for path in label_candidates(image, dialect)] == expected


@pytest.mark.parametrize(
    ("image", "pjreddie", "alexeyab", "hank_ai"),
    [
        ("/d/images/a.jpg", "/d/labels/a.txt", "/d/images/a.txt", "/d/images/a.txt"),
        ("/d/images/val2014/a.PNG", "/d/labels/val2014/a.PNG", "/d/labels/val2014/a.txt", "/d/images/val2014/a.txt"),
        ("/V/JPEGImages/a.jpeg", "/V/labels/a.jpeg", "/V/labels/a.txt", "/V/JPEGImages/a.txt"),
        ("/d/raw/a.b.bmp", "/d/labels/a.b.bmp", "/d/raw/a.b.txt", "/d/raw/a.b.txt"),
        ("/d/a.jpg.d/a.jpg", "/d/a.txt.d/a.jpg", "/d/a.jpg.d/a.jpg", "/d/a.jpg.d/a.txt"),
        ("a.webp", "a.webp", "a.webp", "a.txt"),
    ],
)  # fmt: skip
def test_each_darknets_own_rule(image: str, pjreddie: str, alexeyab: str, hank_ai: str) -> None:
    """As data.c, utils.c and utils.cpp have it; a path that keeps the picture's ending is no label file."""
    assert {name: rule.path(image) for name, rule in RULES.items()} == {
        "pjreddie": pjreddie,
        "alexeyab": alexeyab,
        "hank-ai": hank_ai,
    }


LOOK = """
import ctypes, sys
function = ctypes.CDLL(sys.argv[1]).fill_truth_detection
function.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_int, *[ctypes.c_float] * 4]
function(sys.argv[2].encode(), 0, None, 1, 0, 0, 0, 1, 1)
"""


@pytest.mark.parametrize(
    "image",
    ["/n/images/a.jpg", "/n/images/images/a.png", "/n/drawings/a.JPG", "/V/JPEGImages/a.JPEG",
     "/n/raw/images/x.jpg.jpg", "/n/a.png.jpg", "/n/images.JPEGImages/raw.jpeg"],
)  # fmt: skip
def test_pjreddies_rule_is_its_librarys(libdarknet: Path, image: str) -> None:
    """No such picture: the library ends with the name of the label file that it can't open."""
    done = subprocess.run(
        [sys.executable, "-c", LOOK, str(libdarknet), image], capture_output=True, text=True, check=False
    )
    assert done.stderr.strip() == f"Couldn't open file: {RULES['pjreddie'].path(image)}"


def test_read_labels(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"1 .5 5e-1 0.25 0\r\n\r\n0\t0.1 1.01 0.3 0.4")
    labels = read_labels(path, 2)
    assert labels.dtype == np.float32
    np.testing.assert_array_equal(labels, np.array([[1, 0.5, 0.5, 0.25, 0], [0, 0.1, 1.01, 0.3, 0.4]], np.float32))
    path.write_text("")
    assert read_labels(path, 2).shape == (0, 5)


@pytest.mark.parametrize(
    "row",
    ["0 .5 .5 .2", "0 .5 .5 .2 .2 .9", "dog .5 .5 .2 .2", "0 .5 x .2 .2", "0 nan .5 .2 .2", "0 .5 inf .2 .2",
     "0 .5 .5 -.2 .2", "0 .5 .5 .2 -1", "9" * 400 + " .5 .5 .2 .2", "0 .5 .5 .2 .2 1", "0 .5 .5 .2 .2\n0"],
)  # fmt: skip
@pytest.mark.parametrize("behind", [0, 7])
def test_malformed_labels(tmp_path: Path, row: str, behind: int) -> None:
    path = tmp_path / "a.txt"
    path.write_text(f"0 .5 .5 .2 .2\n\n{row}\n" + "0 .5 .5 .2 .2\n" * behind)
    line, start = 3 + row.count("\n"), re.escape(row.splitlines()[-1][:80])
    with pytest.raises(InputError, match=rf"a\.txt:{line}: expected `class x y w h`, five numbers, found '{start}'"):
        read_labels(path, 1)


@pytest.mark.parametrize(("kind", "whole", "rest"), [("0.0", "0", ".0"), ("1.", "1", "."), ("-3.50", "-3", ".50")])
def test_a_class_with_a_point_is_told_so(tmp_path: Path, kind: str, whole: str, rest: str) -> None:
    path = tmp_path / "a.txt"
    path.write_text(f"0 .5 .5 .2 .2\n{kind} .5 .5 .2 .2\n")
    with pytest.raises(InputError) as raised:
        read_labels(path, 2)
    told = f"class {kind}: expected a whole number; Darknet would read {whole} and take {rest} for x"
    assert str(raised.value) == f"{path}:2: {told}"


LABELS = """
import ctypes, json, sys
class Box(ctypes.Structure):
    _fields_ = [("id", ctypes.c_int), *[(name, ctypes.c_float) for name in "x y w h left right top bottom".split()]]
function = ctypes.CDLL(sys.argv[1]).read_boxes
function.argtypes = [ctypes.c_char_p, ctypes.POINTER(ctypes.c_int)]
function.restype = ctypes.POINTER(Box)
count = ctypes.c_int()
found = []
for file in sys.argv[2:]:
    boxes = function(file.encode(), ctypes.byref(count))
    found.append([[box.id, box.x, box.y, box.w, box.h] for box in boxes[:count.value]])
print(json.dumps(found))
"""


def darknets_labels(library: Path, *files: Path) -> list[npt.NDArray[np.float32]]:
    """What read_boxes makes of label files, [T, 5] each."""
    command = [sys.executable, "-c", LABELS, str(library), *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [np.array(rows, np.float32).reshape(-1, 5) for rows in json.loads(done.stdout)]


def test_objects_are_read_as_darknet_reads_them(libdarknet: Path, tmp_path: Path) -> None:
    """However lines end, and wherever: between objects, within one, not at all."""
    rng = np.random.default_rng(0)
    files = []
    for number, ends in enumerate(["\n", "\r\n", "\r", " ", "\t\n\n", "\v", "random", "random"]):
        rows = np.column_stack([rng.integers(0, 7, 9), rng.uniform(0, 1, (9, 4)).round(6)])
        words = [f"{int(row[0])} {' '.join(f'{value:g}' for value in row[1:])}" for row in rows]
        text = " ".join(words) if ends == "random" else ends.join(words)
        if ends == "random":
            text = "".join("\n" if each == " " and rng.random() < 0.3 else each for each in text)
        files.append(tmp_path / f"{number}.txt")
        files[-1].write_bytes(text.encode())
    for file, theirs in zip(files, darknets_labels(libdarknet, *files), strict=True):
        assert len(theirs) == 9
        np.testing.assert_array_equal(read_labels(file, 7), theirs)


def test_what_darknet_makes_of_a_byte_order_mark_and_of_a_class_with_a_point(libdarknet: Path, tmp_path: Path) -> None:
    """As docs/files.md and the error say."""
    marked, broken = tmp_path / "a.txt", tmp_path / "b.txt"
    marked.write_bytes("\ufeff0 .5 .5 .25 .25\n".encode())
    broken.write_text("3.25 .5 .75 .125 .375\n")
    nothing, shifted = darknets_labels(libdarknet, marked, broken)
    assert len(nothing) == 0
    assert len(read_labels(marked, 1)) == 1
    assert shifted.tolist() == [[3, 0.25, 0.5, 0.75, 0.125]]


@pytest.mark.parametrize("number", [-1, 2, 80])
def test_class_out_of_range(tmp_path: Path, number: int) -> None:
    path = tmp_path / "a.txt"
    path.write_text(f"1 .5 .5 .2 .2\n{number} .5 .5 .2 .2\n")
    with pytest.raises(InputError, match=rf"a\.txt:2: class out of range: expected 0\.\.1, found {number}"):
        read_labels(path, 2)


@pytest.mark.parametrize("dialect", [ALEXEYAB, PJREDDIE])
def test_load_split(make: Maker, tmp_path: Path, dialect: Dialect) -> None:
    split = load_split(make(TWO), "valid", dialect, classes=2)
    assert split.names == ("cat", "dog")
    assert split.images == (tmp_path / "set/images/a.jpg", tmp_path / "set/images/b.png")
    assert [truth.shape for truth in split.truths] == [(2, 5), (0, 5)]
    assert [hard.shape for hard in split.difficult] == [(0, 5), (0, 5)]
    np.testing.assert_allclose(split.truths[0][1], [1, 0.1, 0.2, 0.3, 0.4], rtol=1e-6)


def test_limit_and_no_labels(make: Maker) -> None:
    data = make({**TWO, "labels/a.txt": "nonsense"})
    assert len(load_split(data, "valid", ALEXEYAB, classes=2, limit=1, labels=False).images) == 1
    assert len(load_split(data, "valid", ALEXEYAB, classes=2, limit=9, labels=False).images) == 2
    with pytest.raises(InputError, match="expected 1 or more, found 0"):
        load_split(data, "valid", ALEXEYAB, classes=2, limit=0)


def test_the_dialects_own_place_goes_first(make: Maker) -> None:
    data = make({**TWO, "images/a.txt": "1 .5 .5 .2 .2\n"})
    assert len(load_split(data, "valid", ALEXEYAB, classes=2).truths[0]) == 1
    assert len(load_split(data, "valid", PJREDDIE, classes=2).truths[0]) == 2


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"valid.txt": "\n\r\n"}, r"valid\.txt: expected one image path a line, found none"),
        ({"valid.txt": "images/a.jpg\n\nimages/c.jpg\n"}, r"valid\.txt:3: no such image: images/c\.jpg"),
        ({"valid.txt": "x" * 5000}, r"valid\.txt:1: no such image"),
        ({"labels/a.txt": "2 .5 .5 .2 .2"}, r"labels/a\.txt:1: class out of range: expected 0\.\.1, found 2"),
        ({"labels/a.txt": ""}, r"valid\.txt: the label files of all 2 images are empty"),
        ({"set.names": "cat\n"}, r"set\.names: expected 2 names as the network has classes, found 1"),
        ({"set.data": "valid=valid.txt\nnames=no\n"}, r"set\.data:2: names: no such file: no"),
        ({"set.data": "names=set.names\nvalid=no\n"}, r"set\.data:2: valid: no such file: no"),
        ({"set.data": "names=set.names\n"}, r"set\.data: expected a line valid="),
        ({"set.data": "valid=valid.txt\nclasses=3\n"}, r"set\.data:2: classes: expected 2 as the network has, found 3"),
    ],
)  # fmt: skip
def test_bad_splits(make: Maker, files: dict[str, str], message: str) -> None:
    data = make({**TWO, **files})
    with pytest.raises(InputError, match=message):
        load_split(data, "valid", ALEXEYAB, classes=2)


def test_no_labels_at_all(make: Maker) -> None:
    data = make({name: text for name, text in TWO.items() if not name.startswith("labels")})
    with pytest.raises(InputError, match=r"valid\.txt: no label file for any of 2 images; .*labels/a\.txt"):
        load_split(data, "valid", ALEXEYAB, classes=2)


def test_images_without_a_label_file_are_counted_in_one_line(make: Maker, tmp_path: Path) -> None:
    files = {name: text for name, text in TWO.items() if name != "labels/b.txt"}
    data = make({**files, "valid.txt": "images/a.jpg\nimages/b.png\nimages/c.png\n", "images/c.png": ""})
    with pytest.warns(InputWarning) as told:
        split = load_split(data, "valid", ALEXEYAB, classes=2)
    first = tmp_path / "set/images/b.png"
    (text,) = (str(each.message) for each in told)
    assert text == f"{data.valid}: 2 of 3 images have no label file, and so no objects; the first is {first}"
    assert [len(truth) for truth in split.truths] == [2, 0, 0]


@pytest.mark.parametrize("dialect", [ALEXEYAB, PJREDDIE])
def test_labels_in_pixels_are_refused(make: Maker, dialect: Dialect) -> None:
    data = make({**TWO, "labels/a.txt": "0 320 .5 40 30\n1 .5 90 30 20\n", "labels/b.txt": "\n1 9 9 9 9\n"})
    with pytest.raises(InputError, match=r"labels/a\.txt:1: .*0\.\.1, found 0 320 0\.5 40 30, and all 3 objects"):
        load_split(data, "valid", dialect, classes=2)


def test_objects_that_reach_outside_are_counted_in_one_line(make: Maker) -> None:
    rows = "0 .5 .5 1 1\n1 0 1 0 .25 0 .5 .5 .5 1.25\n0 1.5 .5 .1 .1\n"  # two of the four, the second object of line 2
    data = make({**TWO, "labels/b.txt": rows})
    with pytest.warns(InputWarning) as told:
        split = load_split(data, "valid", ALEXEYAB, classes=2)
    (text,) = (str(each.message) for each in told)
    assert re.search(
        r"labels/b\.txt:2: 2 of 6 objects reach outside of their images, .*found 0 0\.5 0\.5 0\.5 1\.25$", text
    )
    assert [len(truth) for truth in split.truths] == [2, 4]


def test_the_number_of_classes_is_the_networks(make: Maker) -> None:
    """A detector's; a classifier goes by the .data file in Darknet, too (classifier.c)."""
    data = make({**TWO, "set.data": "classes = 3\nvalid=valid.txt\nnames=set.names\n"})
    with pytest.warns(
        InputWarning, match=r"set\.data:1: classes: expected 2 as the network has, found 3; Darknet goes"
    ):
        assert load_split(data, "valid", ALEXEYAB, classes=2).names == ("cat", "dog")
    with pytest.raises(InputError, match=r"set\.data:1: classes: expected 2 as the network has, found 3$"):
        load_classes(data, "valid", classes=2)


def test_names_are_numbers_where_the_data_file_has_none(make: Maker) -> None:
    data = make({**TWO, "set.data": "valid=valid.txt\n"})
    assert load_split(data, "valid", ALEXEYAB, classes=2).names == ("0", "1")


def test_difficult(make: Maker) -> None:
    files = {
        **TWO,
        "set.data": "train=valid.txt\nvalid=valid.txt\ndifficult=hard.txt\n",
        "hard.txt": "hard/a.jpg\nhard/b.png\n",
        "hard/b.txt": "1 .5 .5 .2 .2\n",
    }
    data = make(files)
    assert [len(hard) for hard in load_split(data, "valid", ALEXEYAB, classes=2).difficult] == [0, 1]
    assert [len(hard) for hard in load_split(data, "valid", ALEXEYAB, classes=2, limit=1).difficult] == [0]
    assert [len(hard) for hard in load_split(data, "train", ALEXEYAB, classes=2).difficult] == [0, 0]
    with pytest.raises(InputError, match=r"hard\.txt: expected 2 lines as the valid list has, found 1"):
        load_split(make({**files, "hard.txt": "hard/a.jpg\n"}), "valid", ALEXEYAB, classes=2)


def test_load_classes(make: Maker, tmp_path: Path) -> None:
    files = {
        "set.data": "valid=valid.txt\nlabels=set.labels\nnames=set.names\n",
        "set.labels": "n01\nn02\n",
        "valid.txt": "pics/n02_1.png\npics/n01_n02.png\npics/other.png\n",
        **{f"pics/{name}.png": "" for name in ("n02_1", "n01_n02", "other")},
    }
    split = load_classes(make(files), "valid", classes=2)
    assert split.names == ("cat", "dog")
    assert split.classes == (1, 0, -1)
    assert split.images[0] == tmp_path / "set/pics/n02_1.png"
    # The folders above the list are no part of what is looked at: "set" is in every path found.
    split = load_classes(make({**files, "set.labels": "set\nn02\n"}), "valid", classes=2, limit=2)
    assert split.classes == (1, 1)
    with pytest.raises(InputError, match=r"valid\.txt: no path holds any of the 2 labels"):
        load_classes(make({**files, "set.labels": "x\ny\n"}), "valid", classes=2)
    with pytest.raises(InputError, match=r"set\.labels: expected 3 names"):
        load_classes(make({**files, "set.names": "a\nb\nc\n"}), "valid", classes=3)
    with pytest.raises(InputError, match=r"set\.data: expected labels= or names=, found neither"):
        load_classes(make({**files, "set.data": "valid=valid.txt\n"}), "valid", classes=2)


def test_image_names_that_are_no_utf8(make: Maker, tmp_path: Path) -> None:
    data = make(TWO)
    name = os.fsdecode(b"images/\xff.jpg")
    (tmp_path / "set" / name).touch()
    assert data.valid is not None
    data.valid.write_bytes(b"images/\xff.jpg\n")
    assert load_split(data, "valid", ALEXEYAB, classes=2, labels=False).images == (tmp_path / "set" / name,)


def test_real_sets(shared: Path) -> None:
    coco = read_data(shared / "data/coco_train128/coco_train128_all.data")
    split = load_split(coco, "valid", ALEXEYAB, classes=80)
    assert (len(split.images), sum(map(len, split.truths)), split.names[0]) == (128, 929, "person")
    blood = read_data(shared / "data/bccd/bccd.data")
    assert len(load_split(blood, "train", PJREDDIE, classes=3).images) == 292
