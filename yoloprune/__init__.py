"""Prunes trained Darknet/YOLO networks and gives back files that stock Darknet runs."""

from __future__ import annotations

import os
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from yoloprune.errors import InputError

if TYPE_CHECKING:
    from yoloprune.api import (
        ana,
        bench,
        check,
        convert,
        detect,
        export,
        finetune,
        load,
        map,
        pack,
        prune,
        report,
        run,
        train,
        unpack,
        verify,
    )

__version__ = "0.1.0"
__all__ = [
    "InputError",
    "ana",
    "bench",
    "check",
    "convert",
    "detect",
    "export",
    "finetune",
    "load",
    "map",
    "pack",
    "prune",
    "report",
    "run",
    "train",
    "unpack",
    "verify",
]

if "OMP_WAIT_POLICY" not in os.environ:
    # PyTorch's threads wait for each other after every layer. GNU's OpenMP, in PyTorch for Linux, then loops for
    # milliseconds. Where other processes want the cores, that is the time of the very thread that is waited for, and
    # all takes three to ten times as long. Sleeping at once ("passive") costs an idle machine a quarter of a small
    # network's time, so many rounds of the loop 3 to 6 %. Read when PyTorch is loaded; what a user has set stays.
    os.environ.setdefault("GOMP_SPINCOUNT", "5000")


class _Package(ModuleType):
    """The package. Some functions are called as the folder that their work is in, and those are what its names mean."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in __all__ and isinstance(value, ModuleType)):  # as an import does with a folder
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    """The functions of api.py, with which PyTorch is loaded: not before one is asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from yoloprune import api

    return getattr(api, name)
