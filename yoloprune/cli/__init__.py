"""The command line: parse, call, print."""

from __future__ import annotations

from yoloprune.cli import job, networks
from yoloprune.cli.app import app

__all__ = ["app", "job", "networks"]
