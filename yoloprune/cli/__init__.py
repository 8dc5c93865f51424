"""The command line: parse, call, print."""

from __future__ import annotations

from yoloprune.cli import converting, demo, job, networks, packing
from yoloprune.cli.app import app

__all__ = ["app", "converting", "demo", "job", "networks", "packing"]
