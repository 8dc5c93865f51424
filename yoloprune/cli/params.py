"""Parameters of several commands that are no field of a class of options."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from yoloprune.cli.config import from_config
from yoloprune.cli.device import usable


def one_of(*known: str) -> Callable[[str | None], str | None]:
    """A callback that refuses other words; letters may be large or small."""
    by_lower = {word.lower(): word for word in known}

    def checked(value: str | None) -> str | None:
        if value is not None and value.lower() not in by_lower:
            raise typer.BadParameter(f"expected one of {', '.join(known)}, found {value!r}")
        return None if value is None else by_lower[value.lower()]

    return checked


def in_small_letters(value: str | None) -> str | None:
    """A callback for words of which all are written small."""
    return None if value is None else value.lower()


CfgArg = Annotated[Path, typer.Argument(metavar="CFG", help="The network's .cfg file.")]
WeightsArg = Annotated[Path, typer.Argument(metavar="WEIGHTS", help="Its .weights file.")]
Data = Annotated[
    Path | None,
    typer.Option("--data", metavar="FILE", help="Darknet's .data file; left out, the only one beside the cfg or here."),
]
WorkspaceDir = Annotated[
    Path, typer.Option("-w", "--workspace", metavar="DIR", help="Folder that knows the job: inputs, analysis, rounds.")
]
Out = Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Folder for what is written.")]
OutOrBackup = Annotated[
    Path | None,
    typer.Option("-o", "--out", metavar="DIR", help="Folder for what is written; left out, the .data file's backup."),
]
Nms = Annotated[
    str | None,
    typer.Option(
        "--nms",
        metavar="KIND",
        callback=in_small_letters,
        help="default, greedynms, diounms or cornersnms; left out, the cfg's.",
    ),
]
Device = Annotated[
    str, typer.Option("--device", metavar="NAME", callback=usable, help="As PyTorch names it: cpu, cuda, cuda:1.")
]
Force = Annotated[bool, typer.Option("--force", help="Replace outputs that exist.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done and written, and leave it.")]
Ms = Annotated[bool, typer.Option("--ms", help="Time the networks, too: milliseconds in every reader on this machine.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Say nothing but errors.")]
Json = Annotated[
    str | None,
    typer.Option("--json", metavar="FILE", help="Write the answer as JSON; - for stdout and nothing else there."),
]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        is_eager=True,
        callback=from_config,
        help="Options as key=value lines; the command line comes first.",
    ),
]
Seed = Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Of all that is random.")]
