"""The device that a command computes on."""

from __future__ import annotations

import os
from typing import Final

import typer

_BESIDE_A_GPU: Final = 4
"""Threads where the device is not the CPU: what is left for that is small, and more would mostly wait for each other.

On 16 cores beside an H200 `ana` of yolo-fastest took 31 s with 1, 27 s with 4, 39 s with 16.
"""


def usable(device: str) -> str:
    if device == "cpu":
        return device
    import torch

    try:
        torch.zeros(1, dtype=torch.float64, device=device).item()  # "meta" only lacks the number, "mps" float64
    except (RuntimeError, AssertionError, ImportError, TypeError) as error:
        reason = f" ({str(error).splitlines()[0]})" if device.startswith("cuda") else ""  # of others it lists them all
        raise typer.BadParameter(f"expected cpu, cuda or cuda:N, found {device!r}{reason}") from error
    prepare(device)
    return device


def prepare(device: str) -> None:
    """Where the device is not the CPU: float32 is whole, and threads are few, unless the user says how many."""
    import torch

    if torch.device(device).type == "cpu":
        return
    torch.backends.cudnn.allow_tf32 = False  # GPUs would round what a convolution reads to 10 bits; Darknet's don't
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(min(torch.get_num_threads(), _BESIDE_A_GPU))
