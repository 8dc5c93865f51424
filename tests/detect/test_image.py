"""Pictures against stock Darknet's own image functions."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.oracles.libdarknet_image import Library
from yoloprune.darknet.layers.base import Shape
from yoloprune.detect import image, resize
from yoloprune.detect.pictures import load_batches
from yoloprune.errors import InputError

TOLERANCE = 1e-6
"""A few float32 roundings of numbers up to 1; the weights themselves are computed alike."""


@pytest.fixture(scope="module")
def darknet(libdarknet: Path) -> Library:
    return Library(libdarknet)


def planes(pixels: image.Pixels) -> resize.Planes:
    """Of the same size, as float32."""
    return resize.network_input(pixels, pixels.shape[1], pixels.shape[0], "stretch")


def random_pixels(height: int, width: int, channels: int = 3, seed: int = 0) -> image.Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def write(path: Path, pixels: image.Pixels) -> Path:
    assert cv2.imwrite(str(path), pixels)
    return path


SIZES = [
    (48, 64, 32, 24),  # (source height, source width, target width, target height)
    (31, 47, 47, 31),
    (13, 17, 60, 41),
    (97, 61, 23, 119),
    (1, 9, 5, 7),
    (9, 1, 5, 7),
    (1, 1, 4, 3),
    (5, 7, 1, 6),
    (480, 640, 320, 320),
    (427, 640, 416, 416),
    (2, 2, 33, 35),
]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 3])
def test_stretch_is_resize_image(darknet: Library, size: tuple[int, int, int, int], channels: int) -> None:
    pixels = random_pixels(size[0], size[1], channels)
    ours = resize.network_input(pixels, size[2], size[3], "stretch")
    assert ours.shape == (channels, size[3], size[2])
    assert np.abs(ours - darknet.resize(planes(pixels), size[2], size[3])).max() <= TOLERANCE


def test_stretch_over_many_heights_keeps_darknets_last_row(darknet: Library) -> None:
    dark = 0
    for target in range(2, 80):
        pixels = np.full((53, 11, 3), 255, np.uint8)
        ours = resize.network_input(pixels, 9, target, "stretch")
        assert np.abs(ours - darknet.resize(planes(pixels), 9, target)).max() <= TOLERANCE
        dark += bool(ours[:, -1].max() < 0.5)
    assert dark > 0, "no height among these shows the rounding that the docstring tells of"


def test_stretch_to_one_row_takes_the_last() -> None:
    pixels = random_pixels(7, 5)
    ours = resize.network_input(pixels, 5, 1, "stretch")
    np.testing.assert_allclose(ours[:, 0], planes(pixels)[:, -1], atol=TOLERANCE)


def test_stretch_takes_views(darknet: Library) -> None:
    pixels = random_pixels(50, 60)[3:40, 5:44]
    whole = np.ascontiguousarray(planes(pixels))
    assert np.abs(resize.network_input(pixels, 33, 29, "stretch") - darknet.resize(whole, 33, 29)).max() <= TOLERANCE


@pytest.mark.parametrize("size", [*SIZES[:4], (480, 640, 320, 320), (333, 500, 416, 352), (500, 333, 416, 352)])
def test_letterbox_is_letterbox_image(darknet: Library, size: tuple[int, int, int, int]) -> None:
    pixels = random_pixels(size[0], size[1])
    ours = resize.network_input(pixels, size[2], size[3], "letterbox")
    assert np.abs(ours - darknet.letterbox(planes(pixels), size[2], size[3])).max() <= TOLERANCE


@pytest.mark.parametrize(("height", "width"), [(61, 97), (97, 61), (40, 40), (32, 50)])
@pytest.mark.parametrize(("net_width", "net_height"), [(32, 32), (33, 33), (48, 32), (32, 48)])
def test_short_side_is_resize_min_and_crop(
    darknet: Library, height: int, width: int, net_width: int, net_height: int
) -> None:
    pixels = random_pixels(height, width)
    resized = darknet.resize_min(planes(pixels), net_width)
    x, y = int((resized.shape[2] - net_width) / 2), int((resized.shape[1] - net_height) / 2)
    expected = darknet.crop(resized, x, y, net_width, net_height)
    assert np.abs(resize.network_input(pixels, net_width, net_height, "short_side") - expected).max() <= TOLERANCE


@pytest.mark.parametrize(("height", "width"), [(61, 97), (97, 62), (40, 40)])
def test_centre_square_is_center_crop_image(darknet: Library, height: int, width: int) -> None:
    pixels = random_pixels(height, width)
    expected = darknet.center_crop(planes(pixels), 31, 35)
    assert np.abs(resize.network_input(pixels, 31, 35, "centre_square") - expected).max() <= TOLERANCE


def test_planes_are_load_image_color(darknet: Library, tmp_path: Path) -> None:
    path = write(tmp_path / "a.png", random_pixels(20, 31))
    np.testing.assert_allclose(planes(image.read_pixels(path)), darknet.load(path), atol=TOLERANCE)


@pytest.mark.parametrize(
    "kind",
    ["png 1", "png 3", "png 4", "png 1 wide", "png 3 wide", "png 4 wide", "bmp 1", "bmp 3", "bmp 4", "jpg 1", "jpg 3",
     "JPEG 3", "ppm 3", "pgm 1", "tiff 1", "tiff 3", "tiff 4"],
)  # fmt: skip
def test_every_kind_of_picture_is_decoded_as_darknet_does(darknet: Library, tmp_path: Path, kind: str) -> None:
    """Grey, colour, colour with alpha; 8 bits or 16. One channel against the weights of ITU-R BT.601, since the library
    writes past its memory when it is asked for that.
    """
    ending, stored, *wide = kind.split()
    pixels = random_pixels(13, 17, int(stored), seed=len(kind))
    path = tmp_path / f"a.{ending}"
    assert cv2.imwrite(str(path), pixels.astype(np.uint16) * 257 if wide else pixels)
    theirs = darknet.load(path)
    assert theirs.shape == (3, 13, 17)
    levels = 1 if ending in ("jpg", "JPEG") else 0  # two builds of libjpeg
    assert np.abs(planes(image.read_pixels(path)) - theirs).max() <= levels / 255 + TOLERANCE
    grey = np.tensordot([0.299, 0.587, 0.114], theirs, 1)[None]
    # whole levels; a colour JPEG has its grey as it was before it was rounded and cut to colours, so only on average
    apart = np.abs(planes(image.read_pixels(path, 1)) - grey)
    assert (apart.mean() if levels else apart.max()) <= 1.5 / 255 + TOLERANCE


def test_a_photograph_that_says_how_it_was_held(darknet: Library, tmp_path: Path) -> None:
    """Exif orientation 6: turned by a quarter, by Darknet's OpenCV too."""
    path = write(tmp_path / "a.jpg", random_pixels(24, 40))
    tiff = b"II*\0\x08\0\0\0" + struct.pack("<HHHII", 1, 0x0112, 3, 1, 6) + bytes(4)
    exif = b"Exif\0\0" + tiff
    data = path.read_bytes()
    path.write_bytes(data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:])
    ours = planes(image.read_pixels(path))
    assert ours.shape == (3, 40, 24)
    assert np.abs(ours - darknet.load(path)).max() <= 1 / 255 + TOLERANCE


def test_planes_are_red_green_blue_from_0_to_1(tmp_path: Path) -> None:
    path = write(tmp_path / "a.png", np.full((2, 3, 3), (0, 51, 255), np.uint8))
    np.testing.assert_allclose(planes(image.read_pixels(path))[:, 0, 0], [1, 0.2, 0], atol=TOLERANCE)


@pytest.mark.parametrize("stored", [1, 3, 4])
@pytest.mark.parametrize("wanted", [1, 3])
def test_channels_are_forced(tmp_path: Path, stored: int, wanted: int) -> None:
    path = write(tmp_path / "a.png", random_pixels(4, 5, stored))
    pixels = image.read_pixels(path, wanted)
    assert pixels.shape == (4, 5, wanted)
    if stored == 1:
        assert (pixels == cv2.imread(str(path), cv2.IMREAD_UNCHANGED)[..., None]).all()


def test_unreadable_pictures(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.png: cannot be read: No such file"):
        image.read_pixels(tmp_path / "gone.png")
    for content in (b"", b"no picture"):
        (tmp_path / "bad.png").write_bytes(content)
        with pytest.raises(InputError, match=r"bad\.png: not a picture"):
            image.read_pixels(tmp_path / "bad.png")
    huge = cv2.imencode(".png", random_pixels(3, 3))[1].tobytes()
    head = huge[12:16] + struct.pack(">II", 100_000, 100_000) + huge[24:29]  # IHDR and its checksum
    (tmp_path / "bad.png").write_bytes(huge[:12] + head + struct.pack(">I", zlib.crc32(head)) + huge[33:])
    with pytest.raises(InputError, match=r"bad\.png: not a picture"):
        image.read_pixels(tmp_path / "bad.png")
    with pytest.raises(InputError, match="the network wants 4"):
        image.read_pixels(tmp_path / "bad.png", 4)


def test_every_kind_that_is_written_holds_colours(tmp_path: Path) -> None:
    pixels = cv2.GaussianBlur(random_pixels(16, 24), (5, 5), 0)
    written = [ending for ending in sorted(image.ENDINGS) if image.is_written(ending)]
    assert {".png", ".jpg", ".bmp", ".ppm"} <= set(written)
    assert not {".pgm", ".pbm", ".exr", ""} & set(written)
    for ending in (*written, ".PNG", ".Jpg"):
        path = tmp_path / f"a{ending}"
        path.write_bytes(image.encoded(pixels, path))
        lost = np.abs(image.read_pixels(path).astype(int) - pixels).mean()
        assert lost < (8 if ending.lower() in (".jpg", ".jpe", ".jpeg", ".webp") else 1e-9), ending
    with pytest.raises(InputError, match=r"a\.jpg: a picture of this size can't be written as \.jpg"):
        image.encoded(np.zeros((1, 70_000, 3), np.uint8), tmp_path / "a.jpg")


@pytest.mark.parametrize("fit", ["stretch", "letterbox", "short_side", "centre_square"])
def test_load_batches_in_order(tmp_path: Path, fit: resize.Fit) -> None:
    sizes = [(30 + 3 * number, 50 - 2 * number) for number in range(9)]
    paths = [
        write(tmp_path / f"{number}.png", random_pixels(height, width, seed=number))
        for number, (width, height) in enumerate(sizes)
    ]
    batches = list(load_batches(paths, Shape(3, 32, 24), fit, 2))
    assert [len(tensor) for tensor, _ in batches] == [2, 2, 2, 2, 1]
    assert [size for _, some in batches for size in some] == sizes
    loaded = np.concatenate([tensor.numpy() for tensor, _ in batches])
    one_by_one = [resize.network_input(image.read_pixels(path), 24, 32, fit) for path in paths]
    assert (loaded == np.stack(one_by_one)).all()
    ((tensor, some),) = load_batches(paths, Shape(3, 32, 24), fit, 9)
    assert (tensor.numpy() == loaded).all()
    assert some == sizes


def test_load_batches_reports_a_bad_picture_and_can_be_left(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{number}.png", random_pixels(8, 8)) for number in range(6)]
    paths.append(tmp_path / "gone.png")
    batches = load_batches(paths, Shape(3, 8, 8), "stretch", 2)
    assert len(next(batches)[0]) == 2
    batches.close()
    with pytest.raises(InputError, match=r"gone\.png"):
        list(load_batches(paths, Shape(3, 8, 8), "stretch", 2))
