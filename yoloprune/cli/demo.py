"""`demo`: the whole job on the built-in network, each command printed before it runs."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from yoloprune.cli import params
from yoloprune.cli.app import app
from yoloprune.cli.command import command
from yoloprune.console import Screen
from yoloprune.report import answers

_SHOWN = 8
"""Pictures that boxes are drawn into."""


@command("demo", "-o demo")
def demo_command(
    screen: Screen,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Folder for what is written.")] = Path("demo"),
    iterations: Annotated[
        int, typer.Option("--iterations", metavar="N", min=1, help="Of the training; a tenth for a first look.")
    ] = 500,
    pictures: Annotated[
        float, typer.Option("--pictures", metavar="S", min=0.01, max=1, help="Share of the pictures that are drawn.")
    ] = 1.0,
    force: params.Force = False,
    quiet: params.Quiet = False,
    json: params.Json = None,
) -> None:
    """Draw pictures, and run the whole job on the built-in network: about four minutes on two cores.

    Ends with figures on fresh pictures that neither training nor choosing has seen; pictures with boxes are in
    DIR/before and DIR/after, files for Darknet in DIR/slim.
    """
    from yoloprune.steps import demo

    silent = quiet or json == "-"
    counts = {"train": demo.TRAIN, "valid": demo.CHOOSE, "test": demo.TEST}
    counts = {name: max(round(count * pictures), 8) for name, count in counts.items()}
    if not silent:
        print(f"drawing {sum(counts.values())} pictures into {out}", flush=True)
    demo.draw(out, counts, force=force)
    cfg, weights = demo.built_in()

    def yoloprune(*words: object) -> None:
        _run([str(word) for word in words], silent)

    space, slim = out / "workspace", (out / "slim" / "shapes-slim.cfg", out / "slim" / "shapes-slim.weights")
    yoloprune("ana", cfg, weights, "--data", out / "pictures" / "shapes.data", "-w", space)
    yoloprune("prune", "--threshold", 0.01, "-w", space)
    yoloprune("finetune", "--iterations", iterations, "-w", space)
    yoloprune("export", "-o", out / "slim", "-w", space)
    yoloprune("verify", cfg, space / "round-1" / "finetuned.weights", *slim)
    test = out / "test" / "shapes.data"
    shown = sorted((out / "test" / "images").glob("valid_*.jpg"))[:_SHOWN]
    for folder, pair in (("before", (cfg, weights)), ("after", slim)):
        yoloprune("detect", *pair, *shown, "--data", test, "-o", out / folder, "--quiet")
    masked = (cfg, space / "round-1" / "pruned.weights")
    networks = {"original": (cfg, weights), "pruned": masked, "finetuned, slim": slim}
    screen.show(answers.demo(demo.figures(networks, test, screen.progress), counts["test"], out))


def _run(words: list[str], silent: bool) -> None:
    """A command as a user would type it; its ending, where that isn't a good one, is this command's."""
    if not silent:
        print(f"\n$ yoloprune {shlex.join(words)}", flush=True)
    quiet = ["--quiet"] if silent and "--quiet" not in words else []
    status: Any = app([*words, *quiet], prog_name="yoloprune", standalone_mode=False)
    if status:
        raise typer.Exit(status)
