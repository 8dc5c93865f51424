"""How sure a measured loss is: the bootstrap against what is known in closed form."""

from __future__ import annotations

import numpy as np
import pytest

from yoloprune.detect.classify import ClassOutcome
from yoloprune.detect.outcome import interval, resamples


def test_resamples_draw_as_many_images_as_there_are() -> None:
    counts = resamples(37, seed=1)
    assert counts.shape == (1000, 37)
    assert (counts.sum(1) == 37).all()
    assert np.array_equal(counts, resamples(37, seed=1))
    assert not np.array_equal(counts, resamples(37, seed=2))


def test_the_interval_of_a_share_is_the_binomial_one() -> None:
    """The loss of a share has the standard error sqrt(p (1-p) / n); its middle 90 % are 1.645 of it on either side."""
    images, share = 400, 0.3
    before = np.ones(images, np.bool_)
    after = np.arange(images) >= share * images
    counts = resamples(images, seed=3)
    low, high = interval(ClassOutcome(before).resampled(counts) - ClassOutcome(after).resampled(counts))
    error = 1.645 * np.sqrt(share * (1 - share) / images)
    assert low == pytest.approx(share - error, abs=0.15 * error)
    assert high == pytest.approx(share + error, abs=0.15 * error)


def test_what_is_common_to_both_networks_cancels_out() -> None:
    hard = np.random.default_rng(4).random(200) < 0.5
    counts = resamples(200, seed=5)
    assert interval(ClassOutcome(hard).resampled(counts) - ClassOutcome(hard).resampled(counts)) == (0, 0)
