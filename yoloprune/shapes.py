"""Draws a detection set: six shapes on cluttered ground, with labels as Darknet reads them.

The same seed, size and index give the same image, whatever the counts and the number of processes.
"""

from __future__ import annotations

import multiprocessing
import shutil
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from yoloprune.errors import InputError

Floats = NDArray[np.floating[Any]]
Bytes = NDArray[np.uint8]

CLASSES: Final = ("circle", "square", "triangle", "star", "cross", "ring")
DISTRACTORS: Final = ("bar", "oval", "blob", "half", "arc", "angle", "arrow")
SMALLEST, LARGEST = 0.08, 0.60
"""Longest side of an object's box over the image's side."""
MOST_OBJECTS: Final = 6
MOST_HIDDEN: Final = 0.25
"""Share of an object that later ones may cover."""
MOST_OUTSIDE: Final = 0.2
"""Share of an object's extent that may lie beyond the image's edge."""
SPLITS: Final = ("train", "valid")


@dataclass(frozen=True)
class Scene:
    """One image and what is in it."""

    image: Bytes
    """[H, W, 3], BGR."""
    labels: Floats
    """[T, 5]: class, then centre x, y, width, height as shares of the image."""
    masks: tuple[Bytes, ...]
    """T masks [H, W], 0..255: each object as drawn, before others covered parts of it."""


def draw(rng: np.random.Generator, size: int) -> tuple[Bytes, Floats]:
    """An image [size, size, 3] (BGR) and its labels [T, 5], T in 1..6."""
    made = scene(rng, size)
    return made.image, made.labels


def scene(rng: np.random.Generator, size: int) -> Scene:
    """Ground, clutter, objects, then light, blur and noise over all."""
    image = _ground(rng, size)
    _clutter(rng, image)
    labels: list[tuple[float, ...]] = []
    masks: list[Bytes] = []
    for _ in range(int(rng.integers(1, MOST_OBJECTS + 1))):
        kind = int(rng.integers(len(CLASSES)))
        for _attempt in range(8):
            outline = _placed(rng, _outline(rng, CLASSES[kind]), size, SMALLEST, LARGEST, MOST_OUTSIDE)
            mask = mask_of(outline, size)
            if not any(_hides(mask, earlier) for earlier in masks):
                _paint(rng, image, outline, mask)
                x0, y0, x1, y1 = (edge / size for edge in box_of(mask))
                labels.append((kind, (x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0))
                masks.append(mask)
                break
    _lines(rng, image, int(rng.integers(0, 3)))
    return Scene(_seen(rng, image), np.array(labels), tuple(masks))


def mask_of(outline: list[Floats], size: int) -> Bytes:
    """Coverage 0..255 of the area between closed outlines [n, 2] in pixels (inside of an odd number of them)."""
    mask = np.zeros((size, size), np.uint8)
    cv2.fillPoly(mask, [np.round(part * 16).astype(np.int32) for part in outline], 255, cv2.LINE_AA, 4)
    return mask


def box_of(mask: Bytes) -> tuple[int, int, int, int]:
    """Left, top, right, bottom (exclusive) of the pixels that are covered by half or more."""
    x, y, width, height = cv2.boundingRect((mask >= 128).astype(np.uint8))
    return x, y, x + width, y + height


def _hides(mask: Bytes, earlier: Bytes) -> bool:
    """Whether an object would cover too much of an earlier one, or lie within it."""
    both = cv2.countNonZero(cv2.bitwise_and(mask, earlier))
    left, top, right, bottom = box_of(earlier)
    within = cv2.countNonZero(mask[top:bottom, left:right])
    return both > MOST_HIDDEN * cv2.countNonZero(earlier) or within > 0.5 * cv2.countNonZero(mask)


# Outlines: lists of closed polygons in any unit, scaled when they are placed.


def _outline(rng: np.random.Generator, kind: str) -> list[Floats]:
    """An object's shape; parameters vary within what a person still calls by that name."""
    match kind:
        case "circle":
            return [_polygon(40)]
        case "square":
            return [_polygon(4)]
        case "triangle":
            return [_polygon(3)]
        case "star":
            radii = np.where(np.arange(10) % 2, rng.uniform(0.36, 0.5), 1.0)
            return [_polygon(10) * radii[:, None]]
        case "cross":
            arm = rng.uniform(0.24, 0.38)
            quarter = np.array([(arm, 1), (arm, arm), (1, arm)])
            turns = [_rotation(-np.pi / 2 * turn) for turn in range(4)]
            return [np.concatenate([quarter @ turn.T for turn in turns])]
        case "ring":
            return [_polygon(40), _polygon(32) * rng.uniform(0.5, 0.7)]
        case _:
            raise ValueError(kind)


def _distractor(rng: np.random.Generator, kind: str) -> list[Floats]:
    """A shape that is none of the classes."""
    match kind:
        case "bar":
            return [_polygon(4) @ _rotation(np.pi / 4).T * (1, rng.uniform(0.15, 0.4))]
        case "oval":
            return [_polygon(32) * (1, rng.uniform(0.25, 0.5))]
        case "blob":
            turn = np.linspace(0, 2 * np.pi, 40, endpoint=False)
            waves = [rng.uniform(0.1, 0.3) * np.sin(n * turn + rng.uniform(0, 2 * np.pi)) for n in (1, 2, 3)]
            return [_polygon(40) * (1 + np.sum(waves, axis=0))[:, None]]
        case "half":
            return [_polygon(40)[:21]]
        case "arc":
            part = _polygon(40)[: int(rng.integers(12, 24))]
            return [np.concatenate([part, part[::-1] * rng.uniform(0.6, 0.8)])]
        case "angle":
            width = rng.uniform(0.2, 0.4)
            return [np.array([(0, 0), (1, 0), (1, width), (width, width), (width, 1), (0, 1)])]
        case "arrow":
            return [np.array([(0, 1), (0.8, -0.9), (0, rng.uniform(-0.3, 0.2)), (-0.8, -0.9)])]
        case _:
            raise ValueError(kind)


def _polygon(corners: int) -> Floats:
    """Corners of a regular polygon on the unit circle."""
    turn = 2 * np.pi * np.arange(corners) / corners
    return np.stack([np.cos(turn), np.sin(turn)], axis=1)


def _rotation(angle: float) -> Floats:
    return np.array([(np.cos(angle), -np.sin(angle)), (np.sin(angle), np.cos(angle))])


def _placed(
    rng: np.random.Generator, outline: list[Floats], size: int, smallest: float, largest: float, outside: float
) -> list[Floats]:
    """The outline in pixels: stretched a little, turned, its longest side smallest..largest of the image's."""
    stretch = np.sqrt(rng.uniform(0.8, 1.25))
    turned = [part * (stretch, 1 / stretch) @ _rotation(rng.uniform(0, 2 * np.pi)).T for part in outline[:1]]
    if len(outline) > 1:  # a hole keeps to its ring; circles need no turn
        turned = [part * (stretch, 1 / stretch) for part in outline]
    low, high = turned[0].min(axis=0), turned[0].max(axis=0)
    longest = size * np.exp(rng.uniform(np.log(smallest), np.log(largest)))
    scale = longest / (high - low).max()
    extent = (high - low) * scale
    over = extent * outside if rng.random() < 0.2 else np.zeros(2)
    corner = rng.uniform(-over, size - extent + over)
    return [(part - low) * scale + corner for part in turned]


# Painting, in place on an image of float32 in 0..255.


def _paint(rng: np.random.Generator, image: Floats, outline: list[Floats], mask: Bytes) -> None:
    """Fill the mask with a colour that differs from what lies beneath, plain, shaded or striped, some with an edge."""
    size = len(image)
    beneath = np.array(cv2.mean(image, (mask >= 128).astype(np.uint8))[:3])
    colour = _colour_unlike(rng, beneath, rng.uniform(70, 170))
    if rng.random() < 0.25:
        shade = mask_of([part + rng.uniform(0.02, 0.05, 2) * size for part in outline], size)
        image *= _bgr(1 - 0.4 / 255 * cv2.blur(shade, (5, 5)).astype(np.float32))
    left, top, right, bottom = box_of(mask)
    left, top = max(left - 1, 0), max(top - 1, 0)
    window = np.s_[top : bottom + 1, left : right + 1]
    part = image[window]
    fill: Floats = np.broadcast_to(colour, part.shape).astype(np.float32)
    style = rng.random()
    if style < 0.5:
        across = _wave(rng, part.shape[:2], cycles=0.5 if style < 0.3 else rng.uniform(2, 5))
        fill = fill + _bgr(rng.uniform(10, 35) * across)
    if rng.random() < 0.3:
        edge = np.zeros(image.shape[:2], np.uint8)
        closed = [np.round(points * 16).astype(np.int32) for points in outline]
        thick = max(1, round(max(part.shape[:2]) * rng.uniform(0.03, 0.1)))
        cv2.polylines(edge, closed, True, 255, thick, cv2.LINE_AA, 4)
        fill = _mix(fill, _colour_unlike(rng, colour, 90), edge[window], 1.0)
    part[:] = _mix(part, fill, mask[window], rng.uniform(0.85, 1))


def _mix(below: Floats, above: Floats, mask: Bytes, opacity: float) -> Floats:
    return np.asarray(below + (above - below) * _bgr(mask.astype(np.float32) * (opacity / 255)), np.float32)


def _colour_unlike(rng: np.random.Generator, other: Floats, distance: float) -> Floats:
    """A random colour at least `distance` from another (0..441), or the farthest of some."""
    tries = rng.uniform(0, 255, (24, 3))
    far = np.linalg.norm(tries - other, axis=1)
    fits = np.flatnonzero(far >= distance)
    return np.asarray(tries[fits[0] if len(fits) else far.argmax()], np.float32)


def _wave(rng: np.random.Generator, shape: tuple[int, ...], cycles: float) -> Floats:
    """A sine in a random direction [H, W], -1..1, `cycles` times across the longer side."""
    angle, phase = rng.uniform(0, 2 * np.pi, 2)
    rate = 2 * np.pi * cycles / max(shape)
    y = np.arange(shape[0])[:, None] * (rate * np.sin(angle)) + phase
    x = np.arange(shape[1])[None, :] * (rate * np.cos(angle))
    rows, columns = np.hstack([np.sin(y), np.cos(y)]), np.vstack([np.cos(x), np.sin(x)])
    return rows.astype(np.float32) @ columns.astype(np.float32)  # sin(x + y), without a sine for every pixel


def _ground(rng: np.random.Generator, size: int) -> Floats:
    """A gradient between two colours, clouds, and sometimes a regular texture."""
    low, high = rng.uniform(20, 235, (2, 3)).tolist()
    blend = 0.5 + 0.5 * _wave(rng, (size, size), rng.uniform(0.2, 1))
    image = np.asarray(cv2.merge([start + (end - start) * blend for start, end in zip(low, high, strict=True)]))
    for cells in (int(rng.integers(3, 7)), int(rng.integers(12, 40))):
        channels = 3 if rng.random() < 0.5 else 1
        cloud = rng.normal(0, rng.uniform(3, 25), (cells, cells, channels)).astype(np.float32)
        large = cv2.resize(cloud, (size, size), interpolation=cv2.INTER_CUBIC)
        image += large if channels == 3 else _bgr(np.asarray(large, np.float32))
    if rng.random() < 0.35:
        texture = _wave(rng, (size, size), rng.uniform(5, 25))
        if rng.random() < 0.5:
            texture = np.sign(texture * _wave(rng, (size, size), rng.uniform(5, 25)))
        image += _bgr(rng.uniform(8, 25) * texture)
    return image


def _clutter(rng: np.random.Generator, image: Floats) -> None:
    """Lines, letters and shapes of no class."""
    size = len(image)
    _lines(rng, image, int(rng.integers(0, 8)))
    for _ in range(int(rng.integers(0, 3))):
        letter = chr(int(rng.integers(ord("A"), ord("Z") + 1)))
        if letter in "OQTX":  # too near to a ring or a cross
            continue
        at = tuple(int(x) for x in rng.integers(0, size, 2))
        colour = rng.uniform(0, 255, 3).tolist()
        scale = size / 160 * rng.uniform(0.4, 1.8)
        cv2.putText(image, letter, at, int(rng.integers(0, 5)), scale, colour, int(rng.integers(1, 4)), cv2.LINE_AA)
    for _ in range(int(rng.integers(0, 6))):
        kind = DISTRACTORS[int(rng.integers(len(DISTRACTORS)))]
        outline = _placed(rng, _distractor(rng, kind), size, SMALLEST, LARGEST, MOST_OUTSIDE)
        mask = mask_of(outline, size)
        if mask.max() >= 128:
            _paint(rng, image, outline, mask)


def _lines(rng: np.random.Generator, image: Floats, count: int) -> None:
    size = len(image)
    for _ in range(count):
        start, end = (tuple(int(x) for x in point) for point in rng.integers(-size // 4, size * 5 // 4, (2, 2)))
        thick = max(1, round(size / 160 * rng.uniform(0.6, 2.4)))
        cv2.line(image, start, end, rng.uniform(0, 255, 3).tolist(), thick, cv2.LINE_AA)


def _seen(rng: np.random.Generator, image: Floats) -> Bytes:
    """What a camera makes of it: uneven light, a cast, gamma, blur, noise; [H, W, 3], cut to 0..255."""
    size = len(image)
    light = rng.uniform(0.55, 1.2) * (1 + rng.uniform(0, 0.3) * _wave(rng, (size, size), rng.uniform(0.2, 0.6)))
    tinted = cv2.merge([light * share for share in rng.uniform(0.85, 1.15, 3).tolist()])
    gamma = 255 * np.linspace(0, 1, 256) ** rng.uniform(0.75, 1.35)
    lit = cv2.LUT(cv2.multiply(image, tinted, dtype=cv2.CV_8U), np.round(gamma).astype(np.uint8))
    if rng.random() < 0.6:
        lit = cv2.GaussianBlur(lit, (0, 0), size / 160 * rng.uniform(0.3, 1.3))
    channels = 1 if rng.random() < 0.6 else 3
    noise = rng.uniform(0, 12) * rng.standard_normal((size, size, channels), dtype=np.float32)
    return np.asarray(cv2.add(lit, noise if channels == 3 else _bgr(noise), dtype=cv2.CV_8U), np.uint8)


def _bgr(plane: Floats) -> Floats:
    """[H, W] -> [H, W, 3]; numpy's broadcasting over a last axis of 3 takes several times longer."""
    return np.asarray(cv2.cvtColor(plane, cv2.COLOR_GRAY2BGR))


# Files.


def write(out: Path, counts: dict[str, int], size: int, seed: int, processes: int, force: bool) -> int:
    """Draw the set into the folder `out`, whole or not at all; the number of objects drawn.

    InputError if `out` is there, unless `force` and it holds such a set.
    """
    if out.exists() and not (force and (out / "shapes.data").is_file()):
        raise InputError("exists already; --force replaces a set drawn before", file=out)
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        (folder / "images").mkdir()
        (folder / "labels").mkdir()
        jobs = [(folder, split, index, size, seed) for split in SPLITS for index in range(counts[split])]
        if processes > 1:
            context = multiprocessing.get_context("spawn")  # OpenCV's threads don't survive a fork
            with ProcessPoolExecutor(processes, context) as pool:
                objects = sum(pool.map(_write_one, jobs, chunksize=64))
        else:
            objects = sum(map(_write_one, jobs))
        for split in SPLITS:
            lines = [f"images/{_stem(split, index)}.jpg\n" for index in range(counts[split])]
            (folder / f"{split}.txt").write_text("".join(lines))
        (folder / "shapes.names").write_text("".join(f"{name}\n" for name in CLASSES))
        data = f"classes={len(CLASSES)}\ntrain=train.txt\nvalid=valid.txt\nnames=shapes.names\nbackup=backup\n"
        (folder / "shapes.data").write_text(data)
        folder.chmod(0o755)
        if out.exists():
            shutil.rmtree(out)
        folder.replace(out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return objects


def _stem(split: str, index: int) -> str:
    return f"{split}_{index:05}"


def _write_one(job: tuple[Path, str, int, int, int]) -> int:
    folder, split, index, size, seed = job
    rng = np.random.default_rng([seed, SPLITS.index(split), index])
    image, labels = draw(rng, size)
    stem = _stem(split, index)
    quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(70, 96))]
    if not cv2.imwrite(str(folder / "images" / f"{stem}.jpg"), image, quality):
        raise InputError("cannot be written", file=folder / "images" / f"{stem}.jpg")
    lines = [f"{int(kind)} {x:.6f} {y:.6f} {w:.6f} {h:.6f}\n" for kind, x, y, w, h in labels]
    (folder / "labels" / f"{stem}.txt").write_text("".join(lines))
    return len(lines)
