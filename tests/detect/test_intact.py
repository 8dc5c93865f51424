"""Which pictures can be decoded: against what OpenCV and stock Darknet decode."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import pytest

from tests.oracles.libdarknet_image import Library
from yoloprune.detect import image, intact
from yoloprune.detect.intact import check_pictures
from yoloprune.detect.resize import network_input
from yoloprune.errors import InputError, InputWarning

WAYS: Final = {
    "plain": (".jpg", []),
    "progressive": (".jpg", [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]),
    "restarts": (".jpg", [cv2.IMWRITE_JPEG_RST_INTERVAL, 2]),
    "optimised": (".jpg", [cv2.IMWRITE_JPEG_OPTIMIZE, 1, cv2.IMWRITE_JPEG_QUALITY, 60]),
    "png": (".png", []),
}


def encoded(way: str, channels: int = 3) -> tuple[str, bytes]:
    """Ending and content of a picture of an odd size."""
    ending, how = WAYS[way]
    rng = np.random.default_rng(len(way))
    pixels = cv2.GaussianBlur(rng.integers(0, 256, (37, 29, channels), np.uint8), (5, 5), 0)
    return ending, cv2.imencode(ending, pixels, how)[1].tobytes()


def damaged(content: bytes, count: int) -> Iterator[bytes]:
    """Cut at any place, or with bytes changed, or both."""
    rng = np.random.default_rng(0)
    for number in range(count):
        data = bytearray(content)
        if number % 3:
            for at in rng.integers(0, len(data), number % 5 + 1):
                data[at] = rng.integers(0, 256)
        if number % 3 < 2:
            del data[rng.integers(0, len(data)) :]
        yield bytes(data)


@pytest.mark.filterwarnings("ignore::yoloprune.errors.InputWarning")
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("way", WAYS)
def test_what_imread_decodes_is_decoded_to_the_same_pixels(tmp_path: Path, way: str, channels: int) -> None:
    ending, content = encoded(way, channels)
    path = tmp_path / f"a{ending}"
    seen = set()
    for data in (*damaged(content, 120), *(content[:-cut] for cut in range(1, 40))):
        path.write_bytes(data)
        try:
            theirs = cv2.imread(str(path), cv2.IMREAD_COLOR if channels == 3 else cv2.IMREAD_GRAYSCALE)
        except cv2.error:  # a size that is too large
            theirs = None
        seen.add(theirs is None)
        if theirs is None:
            with pytest.raises(InputError, match="not a picture that can be decoded"):
                image.read_pixels(path, channels)
        else:
            assert (image.read_pixels(path, channels) == theirs.reshape(*theirs.shape[:2], channels)).all()
    assert seen == ({True} if way == "png" else {True, False})


@pytest.mark.parametrize("way", [way for way in WAYS if way != "png"])
def test_a_jpeg_without_its_end_is_read_as_darknet_does_and_warned_of(
    libdarknet: Path, tmp_path: Path, way: str
) -> None:
    darknet = Library(libdarknet)
    path = tmp_path / "a.jpg"
    _, content = encoded(way)
    for cut in (1, 2, 9, len(content) // 4):
        path.write_bytes(content[:-cut])
        with pytest.warns(InputWarning, match=r"a\.jpg: ends early"):
            ours = network_input(image.read_pixels(path), 29, 37, "stretch")
        # two builds of libjpeg, which smooth what a progressive one lacks by more or less
        assert np.abs(ours - darknet.load(path)).max() <= (4 if way == "progressive" else 1) / 255 + 1e-6


@pytest.mark.parametrize("way", WAYS)
def test_no_broken_off_picture_is_taken_for_whole(tmp_path: Path, way: str) -> None:
    """Whole: it decodes, and to its end."""
    ending, content = encoded(way)
    path = tmp_path / f"a{ending}"
    path.write_bytes(content)
    assert intact._is_whole(path)
    doubted = 0
    for data in (*(content[:end] for end in range(0, len(content), 3)), b"<html>404</html>"):
        path.write_bytes(data)
        if intact._is_whole(path):
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                image.read_pixels(path)
        else:
            doubted += 1
    assert doubted > len(content) // 3 - 5


def test_every_unreadable_picture_is_named_at_once(tmp_path: Path) -> None:
    paths = []
    for number in range(150):
        ending, content = encoded([*WAYS][number % len(WAYS)])
        if number % 50 == 0:  # a page in place of a picture, nothing, half of one
            content = (b"<html>404</html>", b"", encoded("png")[1][:400])[number // 50]
        paths.append(tmp_path / f"{number}{ending}")
        paths[-1].write_bytes(content)
    early = paths[7]
    early.write_bytes(early.read_bytes()[:-5])
    gone = tmp_path / "gone.jpg"
    told: list[tuple[int, int]] = []
    with pytest.warns(InputWarning) as warned, pytest.raises(InputError) as raised:
        check_pictures([*paths, gone, *paths], 3, lambda done, total: told.append((done, total)))
    assert [str(each.message).split(": ")[0] for each in warned] == [str(early)]
    bad = [f"{paths[number]}: not a picture that can be decoded" for number in (0, 50, 100)]
    lines = ["4 of 151 pictures can't be decoded:", *bad, f"{gone}: cannot be read: No such file or directory"]
    assert str(raised.value).splitlines() == lines
    assert told[-1] == (151, 151)
    with pytest.raises(InputError) as raised:
        check_pictures(paths[:1], 1)
    assert str(raised.value) == bad[0]
    check_pictures(paths[1:7], 3)


def test_pictures_are_not_decoded_to_be_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for those of a kind whose structure isn't known, and those in doubt."""
    decoded: list[str] = []
    monkeypatch.setattr(intact, "read_pixels", lambda path, channels: decoded.append(path.name))
    paths = []
    for way in WAYS:
        ending, content = encoded(way)
        paths.append(tmp_path / f"{way}{ending}")
        paths[-1].write_bytes(content)
    other, doubtful = tmp_path / "a.bmp", tmp_path / "trailing.jpg"
    assert cv2.imwrite(str(other), np.zeros((3, 5, 3), np.uint8))
    doubtful.write_bytes(encoded("plain")[1] + b"\0" * 9)
    check_pictures([*paths, other, doubtful], 3)
    assert decoded == ["a.bmp", "trailing.jpg"]
