"""What the program sets for its whole process: freed memory stays, float32 is whole on GPUs too."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import numpy as np
from yoloprune.allocator import keep_freed_memory
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
    program = """
import sys, torch
from yoloprune.__main__ import main
sys.argv[1:] = ["--help"]
try:
    main()
finally:
    assert not torch.backends.cudnn.allow_tf32
"""
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=False).returncode == 0
