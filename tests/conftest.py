"""What tests find outside the checkout, or skip without."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from yoloprune.readers import libdarknet as stock


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with trained nets and pictures: $YOLOPRUNE_SHARED, or `shared` beside the checkout."""
    beside = Path(__file__).resolve().parents[2] / "shared"
    folder = Path(os.environ.get("YOLOPRUNE_SHARED", beside))
    if not (folder / "models").is_dir():
        pytest.skip(f"no nets in {folder}; YOLOPRUNE_SHARED can name another folder")
    return folder


@pytest.fixture(scope="session")
def libdarknet() -> Path:
    """Stock Darknet's library."""
    reason = stock.available()
    library = stock.find()
    if reason is not None or library is None:
        pytest.skip(f"stock Darknet: {reason}")
    return library


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """For tiny networks: their layers only wait for a second thread, the longer the busier the machine is."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> None:
    """A shell starts what it runs in the background with Ctrl-C ignored; tests of Ctrl-C need it, children too."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
