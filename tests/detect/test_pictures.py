"""Which pictures are decoded when, and what is kept of them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from tests.helpers import graph_of
from yoloprune.detect import pictures as pictures_file
from yoloprune.detect.image import Pixels
from yoloprune.detect.pictures import Pictures, batch_for, room_on


def test_a_gpu_takes_as_many_pictures_as_its_outputs_fit_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    convolution = "[convolutional]\nsize=3\npad=1\nfilters={}\nactivation=linear\n".format
    text = "[net]\nwidth=16\nheight=16\nchannels=3\n" + convolution(8) + convolution(4) + convolution(2)
    graph = graph_of(text + "[route]\nlayers=0,-1\n" + convolution(5))
    assert graph.peak_activations == (8 + 2 + 10) * 16 * 16  # at the route: what it joins, and itself
    bytes_each = 4 * graph.peak_activations
    for room, batch in [(0, 1), (bytes_each * 1, 1), (bytes_each * 9, 8), (bytes_each * 1000, 64)]:
        monkeypatch.setattr(pictures_file, "ALIVE", room)
        assert batch_for(graph, "cuda:1") == batch
    assert batch_for(graph, "cpu") == 64


@pytest.mark.parametrize(("device", "room"), [("cpu", 1000), ("cuda:1", 500), ("cuda", 2000)])
def test_a_gpu_keeps_as_much_as_suits_it(monkeypatch: pytest.MonkeyPatch, device: str, room: int) -> None:
    memory = {"cuda": 16 * 2000, "cuda:1": 16 * 500 + 3}
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=memory[str(device)])
    )
    assert room_on(device, 1000) == room


SMALL = "[net]\nwidth=32\nheight=32\nchannels=3\n[convolutional]\nfilters=7\n[yolo]\nclasses=2\nnum=1\n"


def noise(folder: Path, widths: Iterable[int]) -> list[Path]:
    """Pictures 32 high."""
    rng, paths = np.random.default_rng(1), []
    for number, width in enumerate(widths):
        paths.append(folder / f"{number}.png")
        cv2.imwrite(str(paths[-1]), rng.integers(0, 256, (32, width, 3), np.uint8))
    return paths


def reads_of(paths: list[Path], monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of the pictures that are decoded from here on, as they are."""
    read: list[int] = []

    def read_pixels(path: Path, channels: int) -> Pixels:
        read.append(paths.index(path))
        return image_read(path, channels)

    image_read = pictures_file.read_pixels
    monkeypatch.setattr(pictures_file, "read_pixels", read_pixels)
    return read


def test_the_first_pictures_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory for 4 of 10: they are read once, the others each time, also where a pass ends early or two overlap."""
    paths = noise(tmp_path, [32] * 10)
    image_read = pictures_file.read_pixels
    read = reads_of(paths, monkeypatch)
    monkeypatch.setattr(pictures_file, "_AHEAD", 0)
    monkeypatch.setattr(pictures_file, "MEMORY", 4 * 3 * 32 * 32 * 4)
    pictures = Pictures(paths, graph_of(SMALL), "stretch", batch=2)
    next(iter(pictures))
    assert sorted(read) == [0, 1]
    one, other = iter(pictures), iter(pictures)
    passes = [[next(one), next(one)], [next(other)]]
    passes[1] += list(other)
    passes[0] += list(one)
    passes.append(list(pictures))
    assert sorted(set(read)) == list(range(10))
    assert read.count(0) == read.count(1) == 1
    assert read.count(2) <= 2
    assert all(read.count(number) == 3 for number in range(4, 10))
    expected = [image_read(path, 3) for path in paths]
    for batches in passes:
        pixels = torch.cat([batch.inputs for batch in batches])
        assert len(pixels) == 10
        for found, wanted in zip(pixels, expected, strict=True):
            assert np.array_equal((found.numpy() * 255).round().astype(np.uint8), wanted[..., ::-1].transpose(2, 0, 1))


@pytest.mark.parametrize(("kept", "again"), [(16, 0), (15, 8), (4, 8)])
def test_in_another_order_pictures_are_not_decoded_anew_where_there_is_room_for_both(
    kept: int, again: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """8 pictures, memory for so many."""
    paths = noise(tmp_path, range(33, 41))
    monkeypatch.setattr(pictures_file, "MEMORY", kept * 3 * 32 * 32 * 4)
    pictures = Pictures(paths, graph_of(SMALL), "stretch", batch=3)
    before = list(pictures)
    read = reads_of(paths, monkeypatch)
    order = np.random.default_rng(1).permutation(8)
    after = list(pictures.select(order.tolist()))
    assert len(read) == again
    assert [len(batch.sizes) for batch in after] == [3, 3, 2]
    assert [number for batch in after for number in batch.numbers] == order.tolist()
    assert [size for batch in after for size in batch.sizes] == [(33 + number, 32) for number in order]
    assert all(batch.inputs.is_contiguous(memory_format=torch.channels_last) for batch in after)
    inputs = [torch.cat([batch.inputs for batch in batches]) for batches in (before, after)]
    assert torch.equal(inputs[0][torch.from_numpy(order)], inputs[1])
    assert len(list(pictures)) == 3
