"""The file that may set a command's options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from yoloprune.console import LINES
from yoloprune.errors import InputError, unreadable
from yoloprune.options import ALIASES

_OPPOSITE = {
    **dict.fromkeys(("1", "true", "t", "yes", "y", "on"), "false"),
    **dict.fromkeys(("0", "false", "f", "no", "n", "off"), "true"),
}
"""Of what a flag can be."""


def from_config(ctx: typer.Context, file: Path | None) -> Path | None:
    """Defaults for this command out of a file of `key=value` lines; what the command line says comes before it."""
    if file is None:
        return None
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise unreadable(error, file) from error
    except UnicodeDecodeError as error:
        raise InputError("cannot be read: no UTF-8 text", file=file) from error
    own = {"config", "help"}
    options = {_key(name): param for param in ctx.command.params for name in param.opts if _key(name) not in own}
    opposites = {_key(name): param for param in ctx.command.params for name in param.secondary_opts}
    defaults: dict[str, Any] = {}
    where: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        key, equals, value = (part.strip() for part in line.partition("="))
        if not line.strip() or key.startswith(("#", ";")):
            continue
        if not equals or not value:
            raise InputError(f"expected key=value, found {line.strip()!r}", file=file, line=number)
        if _key(key) in opposites:
            if value.lower() not in _OPPOSITE:
                raise InputError(f"{key}: expected yes or no, found {value!r}", file=file, line=number)
            param = opposites[_key(key)]
            value = _OPPOSITE[value.lower()]
        elif _key(key) in options:
            param = options[_key(key)]
        else:
            known = ", ".join(sorted(options))
            raise InputError(
                f"{key}: {ctx.info_name} has no such option (expected some of {known})", file=file, line=number
            )
        defaults[str(param.name)] = value.split(",") if param.nargs == -1 else value
        where[str(param.name)] = f"{file}:{number}: {line.strip()}"
    ctx.default_map = defaults
    ctx.meta[LINES] = where
    return file


def _key(name: str) -> str:
    key = name.lstrip("-").replace("-", "_").lower()
    return ALIASES.get(key, key)
