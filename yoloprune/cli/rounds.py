"""Commands for the rounds of a workspace: what there is, and the last one taken back."""

from __future__ import annotations

from yoloprune import report
from yoloprune.cli import options
from yoloprune.cli.app import app
from yoloprune.console import screen_of
from yoloprune.workspace import DEFAULT


@app.command("status", epilog="Example: yoloprune status -w my-workspace")
def status_command(
    workspace: options.WorkspaceDir = DEFAULT,
    force: options.Force = False,
    quiet: options.Quiet = False,
    json: options.Json = None,
    config: options.Config = None,
) -> None:
    """Show the rounds of a workspace, and which of its files have changed or are gone."""
    with screen_of(json, quiet, force) as screen:
        from yoloprune.steps.status import status

        found = status(workspace)
        answer = report.round_dict(found.workspace) | {"changes": found.changes}
        screen.answer(answer, report.round_table(found.workspace), *found.changes)


@app.command("undo", epilog="Example: yoloprune undo -w my-workspace")
def undo_command(
    workspace: options.WorkspaceDir = DEFAULT,
    force: options.Force = False,
    dry_run: options.DryRun = False,
    quiet: options.Quiet = False,
    json: options.Json = None,
    config: options.Config = None,
) -> None:
    """Take the last round back: its cut and what was trained in it go, the analysis that it chose by stays."""
    with screen_of(json, quiet, force) as screen:
        from yoloprune.steps.undo import undo

        number, left = undo(workspace, dry_run=dry_run)
        said = f"round {number} {'would be' if dry_run else 'is'} taken back"
        screen.answer(report.round_dict(left) | {"undone": number}, report.round_table(left), said)
