"""The program: the console script and `python -m yoloprune`."""

from __future__ import annotations

import os
import sys

from yoloprune.errors import INTERRUPTED, INTERRUPTED_STATUS


def main() -> None:
    """Parse, call, print."""
    try:
        # NumPy's threads would wait in loops for its few small products of matrices, and take cores from PyTorch's.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        # Within the block, for Ctrl-C. Commands load PyTorch, which takes seconds, when their arguments are right.
        from yoloprune.cli import app
        from yoloprune.malloc import keep_freed_memory

        keep_freed_memory()
        app(prog_name="yoloprune")
    except KeyboardInterrupt:
        print(f"yoloprune: {INTERRUPTED}", file=sys.stderr)
        sys.exit(INTERRUPTED_STATUS)


if __name__ == "__main__":
    main()
