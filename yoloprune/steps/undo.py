"""`undo`: takes the last round back."""

from __future__ import annotations

from pathlib import Path

from yoloprune.errors import InputError
from yoloprune.workspace import DEFAULT, Workspace


def undo(workspace: Path = DEFAULT, *, dry_run: bool = False) -> tuple[int, Workspace]:
    """Make the last round undone, its training too: its number, and the workspace without it.

    Its plan, its weights, what was trained, and the analysis of the round behind it go; the analysis that it chose by
    stays, so that the round can be pruned anew. Nothing goes in a dry run. InputError where there is no round.
    """
    known = Workspace.load(workspace)
    if not known.rounds:
        raise InputError("there is no round to take back", file=workspace)
    number, before = known.last.number, known.without_last()
    if not dry_run:
        before.take_back(number)
    return number, before
