"""How large files and functions may be, and that steps don't import each other."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "yoloprune"
MOST_LINES = 400
LONGEST = 60
MOST_PARAMETERS = 10
COMMANDS = {"accuracy", "ana", "bench", "check", "convert", "detect", "export", "finetune", "pack", "prune", "report",
            "stat", "status", "train", "undo", "verify"}  # fmt: skip
"""Steps that are commands; `run` is made of them."""


def files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def functions(file: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


@pytest.mark.parametrize("file", files(), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_files_and_functions_are_small(file: Path) -> None:
    assert len(file.read_text().splitlines()) <= MOST_LINES
    for each in functions(file):
        assert (each.end_lineno or 0) - each.lineno < LONGEST, each.name
        own = each.args
        if not _is_command(each):
            taken = [*own.posonlyargs, *own.args, *own.kwonlyargs]
            assert len([name for name in taken if name.arg not in ("self", "cls")]) <= MOST_PARAMETERS, each.name


def _is_command(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether its parameters are the options of a command, one each, as Typer takes them."""
    return any(
        isinstance(each, ast.Call) and getattr(each.func, "id", "") == "command" for each in function.decorator_list
    )


@pytest.mark.parametrize("step", sorted(COMMANDS))
def test_steps_meet_through_files(step: str) -> None:
    tree = ast.parse((PACKAGE / "steps" / f"{step}.py").read_text())
    imported = {
        (node.module or "").removeprefix("yoloprune.steps.")
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("yoloprune.steps.")
    }
    assert not imported & (COMMANDS | {"run"})
