"""Draws a detection set: six shapes on cluttered ground, with labels as Darknet reads them (yoloprune/shapes.py).

python tools/make_shapes.py --out DIR --train 4000 --valid 500
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from yoloprune.errors import InputError
from yoloprune.shapes import write

__all__ = ["write"]


def main() -> int:
    """Parse, draw, print the rate."""
    parser = argparse.ArgumentParser(description="Draws a detection set of six shapes on cluttered ground.")
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    parser.add_argument("--train", type=int, default=4000, help="images to train on (default 4000)")
    parser.add_argument("--valid", type=int, default=500, help="images to measure on (default 500)")
    parser.add_argument("--size", type=int, default=160, help="side in pixels (default 160)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--force", action="store_true", help="replace a set drawn before")
    args = parser.parse_args()
    if min(args.train, args.valid) < 1 or args.size < 64 or args.seed < 0 or args.processes < 1:
        parser.error(
            "expected --train, --valid and --processes of 1 or more, --size of 64 or more, --seed of 0 or more"
        )
    start = time.perf_counter()
    try:
        counts = {"train": args.train, "valid": args.valid}
        objects = write(args.out, counts, args.size, args.seed, args.processes, args.force)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    took = time.perf_counter() - start
    total = args.train + args.valid
    print(f"{args.out}: {total} images, {objects} objects, {took:.1f} s, {total / took:.0f} images/s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
