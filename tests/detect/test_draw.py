"""What is drawn where."""

from __future__ import annotations

import numpy as np
import torch

from yoloprune.darknet.predictions import Detections, join
from yoloprune.detect.draw import class_colour, draw


def one(box: tuple[float, ...], number: int = 0, prob: float = 0.9) -> Detections:
    return Detections(*map(torch.tensor, ([0], [number], [prob], [box])))


def test_draws_a_copy_with_the_box_where_it_is() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
    before = pixels.copy()
    drawn = draw(pixels, one((0.5, 0.6, 0.5, 0.4)), ["thing"])
    assert (pixels == before).all()
    assert (drawn.shape, drawn.dtype) == (pixels.shape, np.uint8)
    for y, x in ((144, 80), (144, 240), (192, 160)):  # the sides' middles; the label covers a part of the top
        assert np.abs(drawn[y, x].astype(int) - class_colour(0)).max() < 40
    inside = (slice(110, 180), slice(90, 230))
    assert (drawn[inside] == pixels[inside]).all()
    assert (drawn[200:] == pixels[200:]).all()


def test_label_stays_in_the_picture() -> None:
    """A box in the upper right corner: the label goes inside and to the left, whole."""
    pixels = np.zeros((200, 200, 3), np.uint8)
    drawn = draw(pixels, one((0.97, 0.02, 0.1, 0.1)), ["a long name indeed"])
    field = (drawn == class_colour(0)).all(2)
    assert field[:, :100].any()
    high = draw(pixels, one((0.5, 0.6, 0.5, 0.4)), ["a long name indeed"])
    # The letters dim nothing but the field: as many field pixels as where there is room.
    assert field.sum() > 0.5 * (high == class_colour(0)).all(2).sum()


def test_more_probable_is_on_top() -> None:
    pixels = np.zeros((100, 100, 3), np.uint8)
    both = join([one((0.5, 0.7, 0.4, 0.4), 3, 0.9), one((0.5, 0.7, 0.4, 0.4), 1, 0.5)])
    drawn = draw(pixels, both, [f"class {number}" for number in range(4)])
    assert np.abs(drawn[70, 30].astype(int) - class_colour(3)).max() < 40
    assert np.abs(drawn[70, 30].astype(int) - class_colour(1)).max() > 40


def test_boxes_over_the_edge_and_none() -> None:
    pixels = np.zeros((30, 40, 3), np.uint8)
    assert draw(pixels, one((0.5, 0.5, 3, 3)), ["x"]).any()
    nothing = one((0.0, 0.0, 0.0, 0.0)).over(1)
    assert not draw(pixels, nothing, ["x"]).any()


def test_colours_differ() -> None:
    colours = np.array([class_colour(number) for number in range(20)])
    apart = np.abs(colours[:, None] - colours[None]).sum(2) + 1000 * np.eye(20)
    assert apart.min() > 20
