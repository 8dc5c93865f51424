"""The commands with `--device other` to choose: a device that is not the CPU, where there is no GPU.

`python -m tests.oracles.other_device FOLDER ana ...` is `yoloprune ana ...`; FOLDER keeps the compiled device.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import torch
from torch.utils.cpp_extension import load

from yoloprune.__main__ import main

NAME = "other"


class _Device(ModuleType):
    """What PyTorch asks a device's module for."""

    @staticmethod
    def is_available() -> bool:
        return True

    @staticmethod
    def device_count() -> int:
        return 1

    @staticmethod
    def get_amp_supported_dtype() -> list[torch.dtype]:
        return [torch.bfloat16]

    @staticmethod
    def get_rng_state(device: object) -> torch.Tensor:
        return torch.get_rng_state()

    @staticmethod
    def set_rng_state(state: torch.Tensor, device: object) -> None:
        torch.set_rng_state(state)

    @staticmethod
    def _is_in_bad_fork() -> bool:
        return False

    @staticmethod
    def manual_seed_all(seed: int) -> None:
        """The CPU's generator is the one there is."""


def register(folder: Path) -> None:
    """Make the device known to PyTorch, compiled unless `folder` holds it."""
    source = Path(__file__).with_suffix(".cpp")
    load("other_device", [str(source)], build_directory=str(folder), extra_cflags=["-O0"]).register_hooks()
    torch._C._rename_privateuse1_backend(NAME)
    torch._register_device_module(NAME, _Device(NAME))  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    register(Path(sys.argv.pop(1)))
    main()
