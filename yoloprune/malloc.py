"""How this program's memory is handed out."""

from __future__ import annotations

import ctypes
import sys
from typing import Final

_TRIM_THRESHOLD: Final = -1
_MMAP_MAX: Final = -4
"""glibc's malloc.h: M_TRIM_THRESHOLD, M_MMAP_MAX."""
_NEVER: Final = 2**31 - 1


def keep_freed_memory() -> None:
    """From now on the process keeps what it frees, for what it asks for next. Only where malloc is glibc's.

    That one gives blocks of over 32 MB back at once, so that the system maps, clears and faults in every layer's output
    anew, each mini-batch again. This is for programs to call, not for a library: it holds for the whole process.
    """
    if sys.platform != "linux":
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        library.mallopt(_MMAP_MAX, 0)
        library.mallopt(_TRIM_THRESHOLD, _NEVER)
