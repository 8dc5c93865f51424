"""Top-k by stock Darknet's own function."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.oracles.libdarknet_image import Library
from yoloprune.detect.classify import ClassOutcome, hits, top_k


@pytest.mark.parametrize("spoilt", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("levels", [3, 1000])
@pytest.mark.parametrize("k", [1, 2, 5])
def test_top_k_is_darknets(libdarknet: Path, levels: int, k: int, spoilt: float) -> None:
    """Few levels: many equal scores, whose order depends on how top_k meets them; so does the place of NaN."""
    darknet = Library(libdarknet)
    rng = np.random.default_rng(levels + k)
    scores = rng.integers(0, levels, (200, 9)).astype(np.float32)
    scores[rng.random(scores.shape) < spoilt] = np.nan
    classes = rng.integers(0, 9, 200)
    best = [darknet.top_k(row, k) for row in scores]
    assert [top_k(row, k) for row in scores] == best
    assert hits(scores, classes, k).tolist() == [number in row for number, row in zip(classes, best, strict=True)]


def test_hand_counted() -> None:
    scores = np.array([[0.1, 0.9, 0.3, 0.2, 0.4, 0.5, 0.6]] * 4, np.float32)
    classes = np.array([1, 0, 6, -1])
    assert [ClassOutcome(hits(scores, classes, k)).accuracy for k in (1, 5)] == [0.25, 0.5]


def test_fewer_than_five_classes() -> None:
    scores = np.array([[0.1, 0.9], [0.9, 0.1]], np.float32)
    classes = np.array([1, 1])
    assert [ClassOutcome(hits(scores, classes, k)).accuracy for k in (1, 5)] == [0.5, 1]


def test_resampled_counts_images_as_often_as_they_are_drawn() -> None:
    outcome = ClassOutcome(np.array([True, False, True]))
    drawn = np.array([[1, 1, 1], [0, 3, 0], [2, 1, 0]], np.float32)
    assert outcome.accuracy == pytest.approx(2 / 3)
    assert outcome.resampled(torch.from_numpy(drawn)) == pytest.approx([2 / 3, 0, 2 / 3])
