"""What commands are entered into."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

import typer

from yoloprune import __version__, console

HELP: Final[Mapping[str, Any]] = {"help_option_names": ["-h", "--help"]}
"""Settings of every command."""
app: Final = typer.Typer(
    cls=console.Commands,
    help="Prunes trained Darknet/YOLO networks and gives back files that stock Darknet runs.",
    no_args_is_help=True,
    context_settings=dict(HELP),
    pretty_exceptions_enable=False,
)


def _version(asked: bool) -> None:
    if asked:
        print(f"yoloprune {__version__}")
        raise typer.Exit


@app.callback()
def _of_all(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_version, help="Say which version this is, and exit.")
    ] = False,
) -> None:
    """Prunes trained Darknet/YOLO networks and gives back files that stock Darknet runs."""
