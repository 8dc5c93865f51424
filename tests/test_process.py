"""What holds for a whole process: freed memory stays, float32 is whole on GPUs too, how threads wait."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from yoloprune.cli.device import prepare

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = """
import resource, sys
import numpy as np
from yoloprune.malloc import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
np.ones(12_000_000)  # 96 MB, freed at once
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
np.ones(12_000_000)
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) * resource.getpagesize())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="malloc is not glibc's")
def test_what_is_freed_need_not_be_faulted_in_again() -> None:
    plain, kept = (
        int(subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True).stdout)
        for how in ("plain", "kept")
    )
    assert kept < plain / 2


def test_gpus_compute_convolutions_in_whole_float32() -> None:
    allowed = torch.backends.cudnn.allow_tf32
    try:
        torch.backends.cudnn.allow_tf32 = True
        prepare("cpu")
        assert torch.backends.cudnn.allow_tf32
        prepare("cuda")
        assert not torch.backends.cudnn.allow_tf32
    finally:
        torch.backends.cudnn.allow_tf32 = allowed


@pytest.mark.parametrize(
    ("start", "users", "spins"),
    [
        ("yoloprune.__main__, torch", {}, 5000),
        ("yoloprune.errors, torch", {}, 5000),
        ("tests.conftest", {}, 5000),
        ("yoloprune, torch", {"GOMP_SPINCOUNT": "77"}, 77),
        ("yoloprune, torch", {"OMP_WAIT_POLICY": "passive"}, 0),
        ("yoloprune, torch", {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "77"}, 77),
    ],
)
def test_threads_wait_in_loops_for_microseconds_unless_the_user_says_otherwise(
    start: str, users: dict[str, str], spins: int
) -> None:
    """As GNU's OpenMP itself tells when PyTorch loads it."""
    ours = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    done = subprocess.run(
        [sys.executable, "-c", f"import {start}"],
        env={**ours, **users, "OMP_DISPLAY_ENV": "VERBOSE"}, cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    told = re.search(r"GOMP_SPINCOUNT = '(\d+)'", done.stderr)
    if told is None:
        pytest.skip("PyTorch's OpenMP is not GNU's")
    assert int(told[1]) == spins
