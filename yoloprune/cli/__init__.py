"""The command line: parse, call, print."""

from __future__ import annotations

from yoloprune.allocator import keep_freed_memory
from yoloprune.cli import job, look
from yoloprune.cli.app import app

__all__ = ["app", "job", "look", "main"]


def main() -> None:
    """The console script."""
    keep_freed_memory()
    app(prog_name="yoloprune")
