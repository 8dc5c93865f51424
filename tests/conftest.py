"""What tests find outside the checkout, or skip without."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from yoloprune.readers import libdarknet as stock

SHARED = Path(os.environ.get("YOLOPRUNE_SHARED", Path(__file__).resolve().parents[2] / "shared"))
"""Trained nets, pictures and AlexeyAB's cfgs: $YOLOPRUNE_SHARED, or `shared` beside the checkout."""
CFGS = {"alexeyab": SHARED / "cfgs" / "alexeyab", "debian": Path("/usr/share/darknet/cfg")}
"""Folders of stock cfgs."""


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with trained nets and pictures."""
    if not (SHARED / "models").is_dir():
        pytest.skip(f"no nets in {SHARED}; YOLOPRUNE_SHARED can name another folder")
    return SHARED


@pytest.fixture(scope="session")
def cfg_folders() -> list[Path]:
    """Those folders of stock cfgs that are here."""
    found = [folder for folder in CFGS.values() if folder.is_dir()]
    if not found:
        pytest.skip("no stock cfgs: neither Debian's darknet nor AlexeyAB's cfgs are here")
    return found


@pytest.fixture(scope="session")
def stock_cfg(cfg_folders: list[Path]) -> Callable[[str], Path]:
    """A stock cfg by its name, AlexeyAB's before Debian's, or by `debian/name`; without it the test is skipped."""

    def find(name: str) -> Path:
        folder, _, stem = name.rpartition("/")
        wanted = [CFGS[folder]] if folder else cfg_folders
        found = [path for each in wanted if (path := each / f"{stem}.cfg").exists()]
        if not found:
            pytest.skip(f"no {stem}.cfg in {', '.join(map(str, wanted))}")
        return found[0]

    return find


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
