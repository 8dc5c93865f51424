"""What commands are entered into."""

from __future__ import annotations

from typing import Final

import typer

from yoloprune import console

app: Final = typer.Typer(
    cls=console.Commands,
    help="Prunes trained Darknet/YOLO networks and gives back files that stock Darknet runs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
