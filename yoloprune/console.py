"""What all commands share: progress, where answers go, and how a command ends."""

from __future__ import annotations

import json
import math
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import typer
from rich.console import Console
from typer.core import TyperGroup

from yoloprune.artefacts import atomic_path, check_free
from yoloprune.errors import INTERRUPTED, INTERRUPTED_STATUS, InputError, InputWarning, ReaderError
from yoloprune.train.ranks import rank_of

if TYPE_CHECKING:
    from yoloprune.progress import Progress
    from yoloprune.report.answers import Answer


BAD_INPUT: Final = 2
_UNSEEN_WIDTH: Final = 200
"""Columns of tables that go to a file or a pipe."""
LINES: Final = "yoloprune.lines"
"""Of a context's meta: for each option that the config file sets, the line that does, as `options:3: images=two`."""
HEADING: Final = "round"
"""Stage whose text is a heading."""
_TOLD: Final = "{desc}: {percentage:3.0f}%|{bar:8}|{postfix}"
"""Of a bar whose text says what time is left: that is wide enough."""
_SLOW: Final = 10.0
"""Seconds between two lines of progress that go to a file or a pipe."""


WORDS: Final = "yoloprune.words"
"""Of a context's meta: the command line."""


class Commands(TyperGroup):
    """The commands; every foreseen ending of one becomes a line on stderr and an exit status."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]  # as below
        """Remember the words, in case that several processes are to run them."""
        ctx.meta[WORDS] = tuple(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]  # Typer's own name for its context
        """Run the command that is asked for."""
        try:
            return super().invoke(ctx)
        except (InputError, ReaderError) as error:
            raise _ended(str(error), BAD_INPUT) from None
        except typer.TyperException as error:
            raise _ended(f"{_line_of(error)}{error.format_message()} (--help shows the use)", BAD_INPUT) from None
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
            said = str(error).split(". ", 1)[0]
            raise _ended(f"{said}; training takes less with larger subdivisions= in the cfg", BAD_INPUT) from None
        except KeyboardInterrupt:
            raise _ended(INTERRUPTED, INTERRUPTED_STATUS) from None


def _is_out_of_memory(error: RuntimeError) -> bool:
    """Whether it is PyTorch's, of a GPU; not, if that was never loaded. Typer's exit is a RuntimeError too."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(error, torch.cuda.OutOfMemoryError)


def _line_of(error: typer.TyperException) -> str:
    """The config file's line, where a wrong value is from there; else nothing."""
    ctx, param = (getattr(error, name, None) for name in ("ctx", "param"))
    if ctx is None or param is None or getattr(ctx.get_parameter_source(param.name), "name", "") != "DEFAULT_MAP":
        return ""
    return f"{ctx.meta[LINES][param.name]}: "


def _ended(message: str, status: int) -> typer.Exit:
    print(f"yoloprune: {message}", file=sys.stderr)
    return typer.Exit(status)


class ProgressBar:
    """Follows the steps it is told of on stderr: a bar on a terminal, else a line now and then."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._stage = ("", 0)
        self._bar: Any = None  # a tqdm
        self._spoken = -math.inf

    def __call__(self, step: Progress) -> None:
        """Show how far a step is; a stage's first text gets a line of its own."""
        if self._quiet:
            return
        if step.stage == HEADING:
            self.close()
            print(f"\n--- {step.text} ---", file=sys.stderr)
            return
        if self._stage != (step.stage, step.total):
            self.close()
            self._stage = (step.stage, step.total)
            self._spoken = time.monotonic()
            if step.text:
                print(f"{step.stage}: {step.text}", file=sys.stderr)
            if sys.stderr.isatty():
                from tqdm import tqdm  # type: ignore[import-untyped]  # its stubs are a package of their own

                where: Any = {"leave": False, "file": sys.stderr, "dynamic_ncols": True}
                self._bar = tqdm(desc=step.stage, total=step.total, **where)
        if self._bar is not None:
            self._bar.bar_format = _TOLD if " left" in step.text else None  # one time on a line
            self._bar.set_postfix_str(step.text, refresh=False)
            self._bar.update(step.done - self._bar.n)
        elif time.monotonic() - self._spoken >= _SLOW:
            self._spoken = time.monotonic()
            print(f"{step.stage}: {step.done} of {step.total} {step.text}", file=sys.stderr)

    def close(self) -> None:
        """Take the bar away."""
        self._stage = ("", 0)
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class Screen:
    """Where a command's answers go: JSON where it is wanted, tables to stdout, progress and warnings to stderr."""

    def __init__(self, json_file: str | None, quiet: bool) -> None:
        self._json = json_file
        self._quiet = quiet
        self._warned: set[str] = set()
        self.progress = ProgressBar(quiet)

    def show(self, answer: Answer) -> None:
        """What was found out; with `--json -` only for programs. Warnings come last."""
        self.progress.close()
        self._print(answer)
        for text in answer.warnings:
            self.warn(text)

    def _print(self, answer: Answer) -> None:
        text = json.dumps(plain(answer.payload), indent=1, allow_nan=False)
        if self._json == "-":
            print(text)
            return
        if self._json is not None:
            with atomic_path(self._json) as temporary:
                temporary.write_text(text + "\n", encoding="utf-8")
        if not self._quiet:
            width = None if sys.stdout.isatty() else _UNSEEN_WIDTH
            console = Console(width=width, markup=False, highlight=False, emoji=False)
            for part in answer.parts:
                console.print(part, soft_wrap=isinstance(part, str))  # what a terminal wraps can still be copied
            for number, path in enumerate(answer.written):
                console.print(f"{'' if number else 'Wrote':5} {path}", soft_wrap=True)
            if answer.following:
                console.print(f"Next: {answer.following}", soft_wrap=True)

    def warn(self, text: str) -> None:
        """A line on stderr that doesn't stop anything; a second time it isn't said."""
        if self._quiet or text in self._warned:
            return
        self._warned.add(text)
        self.progress.close()
        print(f"yoloprune: warning: {text}", file=sys.stderr)

    @contextmanager
    def warned(self) -> Iterator[None]:
        """Show what library code warns of within."""
        with warnings.catch_warnings():  # gives back the filters and what shows warnings
            others = warnings.showwarning

            def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
                if issubclass(category, InputWarning):
                    self.warn(str(message))
                else:
                    others(message, category, *where, **more)

            warnings.simplefilter("always", InputWarning)
            warnings.showwarning = show
            yield


@contextmanager
def screen_of(json_file: str | None, quiet: bool, force: bool) -> Iterator[Screen]:
    """A command's screen. InputError, before any work, if the JSON file exists and may not be replaced."""
    if json_file not in (None, "-"):
        check_free(Path(str(json_file)), force=force)
    screen = Screen(json_file, quiet) if rank_of() == 0 else Screen(None, True)
    try:
        with screen.warned():
            yield screen
    finally:
        screen.progress.close()


def plain(value: Any) -> Any:
    """A value as JSON has it: paths as text, numbers that are none (infinite, NaN) as null."""
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
