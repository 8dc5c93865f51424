"""The command line: parse, call, print."""

from __future__ import annotations

from yoloprune.cli import demo, job, networks, packing
from yoloprune.cli.app import app

__all__ = ["app", "demo", "job", "networks", "packing"]
