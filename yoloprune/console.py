"""What all commands share: options, the config file, progress, where answers go, and how a command ends."""

from __future__ import annotations

import json
import math
import re
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import torch
import typer
from rich.console import Console, RenderableType
from tqdm import tqdm  # type: ignore[import-untyped]  # its stubs are a package of their own
from typer.core import TyperGroup

from yoloprune.artefacts import atomic_path
from yoloprune.errors import INTERRUPTED, INTERRUPTED_STATUS, InputError
from yoloprune.prune.criteria import CRITERIA
from yoloprune.prune.cutter import NOTHING, RECALIBRATE
from yoloprune.readers import ReaderError
from yoloprune.steps.job import Step
from yoloprune.train.processes import rank_of

BAD_INPUT: Final = 2
_UNSEEN_WIDTH: Final = 200
"""Columns of tables that go to a file or a pipe."""
_LINES: Final = "yoloprune.lines"
"""Of a context's meta: for each option that the config file sets, the line that does, as `options:3: images=two`."""
_SLOW: Final = 10.0
"""Seconds between two lines of progress that go to a file or a pipe."""


class Commands(TyperGroup):
    """The commands; every foreseen ending of one becomes a line on stderr and an exit status."""

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]  # Typer's own name for its context
        """Run the command that is asked for."""
        try:
            return super().invoke(ctx)
        except (InputError, ReaderError) as error:
            raise _ended(str(error), BAD_INPUT) from None
        except typer.TyperException as error:
            raise _ended(f"{_line_of(error)}{error.format_message()} (--help shows the use)", BAD_INPUT) from None
        except torch.cuda.OutOfMemoryError as error:
            said = str(error).split(". ", 1)[0]
            raise _ended(f"{said}; training takes less with larger subdivisions= in the cfg", BAD_INPUT) from None
        except KeyboardInterrupt:
            raise _ended(INTERRUPTED, INTERRUPTED_STATUS) from None


def _line_of(error: typer.TyperException) -> str:
    """The config file's line, where a wrong value is from there; else nothing."""
    ctx, param = (getattr(error, name, None) for name in ("ctx", "param"))
    if ctx is None or param is None or getattr(ctx.get_parameter_source(param.name), "name", "") != "DEFAULT_MAP":
        return ""
    return f"{ctx.meta[_LINES][param.name]}: "


def _ended(message: str, status: int) -> typer.Exit:
    print(f"yoloprune: {message}", file=sys.stderr)
    return typer.Exit(status)


class Progress:
    """Follows the steps it is told of on stderr: a bar on a terminal, else a line now and then."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._stage = ("", 0)
        self._bar: Any = None  # a tqdm
        self._spoken = -math.inf

    def __call__(self, step: Step) -> None:
        """Show how far a step is; a stage's first text gets a line of its own."""
        if self._quiet:
            return
        if self._stage != (step.stage, step.total):
            self.close()
            self._stage = (step.stage, step.total)
            self._spoken = time.monotonic()
            if step.text:
                print(f"{step.stage}: {step.text}", file=sys.stderr)
            if sys.stderr.isatty():
                self._bar = tqdm(desc=step.stage, total=step.total, leave=False, file=sys.stderr)
        if self._bar is not None:
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
        self.watch = Progress(quiet)

    def answer(self, payload: Mapping[str, Any], *parts: RenderableType) -> None:
        """What was found out, for programs and for people; with `--json -` only for programs."""
        self.watch.close()
        text = json.dumps(plain(payload), indent=1, allow_nan=False)
        if self._json == "-":
            print(text)
            return
        if self._json is not None:
            with atomic_path(self._json) as temporary:
                temporary.write_text(text + "\n", encoding="utf-8")
        if not self._quiet:
            width = None if sys.stdout.isatty() else _UNSEEN_WIDTH
            console = Console(width=width, markup=False, highlight=False, emoji=False)
            for part in parts:
                console.print(part)

    def warn(self, text: str) -> None:
        """A line on stderr that doesn't stop anything."""
        if not self._quiet:
            self.watch.close()
            print(f"yoloprune: warning: {text}", file=sys.stderr)


@contextmanager
def screen_of(json_file: str | None, quiet: bool, force: bool) -> Iterator[Screen]:
    """A command's screen. InputError, before any work, if the JSON file exists and may not be replaced."""
    if json_file not in (None, "-") and Path(str(json_file)).exists() and not force:
        raise InputError("exists already; --force replaces it", file=json_file)
    screen = Screen(json_file, quiet) if rank_of() == 0 else Screen(None, True)
    try:
        yield screen
    finally:
        screen.watch.close()


def plain(value: Any) -> Any:
    """A value as JSON has it: paths as text, numbers that are none (infinite, NaN) as null."""
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def layers_of(text: str | None, option: str = "--exclude") -> frozenset[int]:
    """`3,5-8` as numbers. InputError for anything else."""
    found: set[int] = set()
    for part in filter(None, map(str.strip, (text or "").split(","))):
        span = re.fullmatch(r"([0-9]{1,4})(?:\s*-\s*([0-9]{1,4}))?", part)  # more layers than any network has
        first, last = (int(span[1]), int(span[2] or span[1])) if span else (1, 0)
        if first > last:
            raise InputError(f"{option}: expected layer numbers like 3,5,8 or 0-4, up to 9999, found {part!r}")
        found.update(range(first, last + 1))
    return frozenset(found)


def shares_of(option: str, text: str | None) -> tuple[float, ...] | None:
    """`0.25,0.5` as numbers between 0 and 1; None for None. InputError, which names the option, for anything else."""
    if text is None:
        return None
    try:
        shares = tuple(float(part) for part in text.split(","))
    except ValueError:
        shares = ()
    if not shares or not all(0 < share < 1 for share in shares):
        raise InputError(f"{option}: expected shares between 0 and 1 like 0.25,0.5,0.75, found {text!r}")
    return tuple(sorted(set(shares)))


def compensation_of(no_compensate: bool, bn_recalibrate: bool) -> str | None:
    """What is done about a cut, None where nothing is said. InputError for both."""
    if no_compensate and bn_recalibrate:
        raise InputError("expected --no-compensate or --bn-recalibrate, found both")
    return NOTHING if no_compensate else RECALIBRATE if bn_recalibrate else None


def _usable(device: str) -> str:
    try:
        torch.zeros(1, device=device).item()  # "meta" only lacks the number
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = f" ({str(error).splitlines()[0]})" if device.startswith("cuda") else ""  # of others it lists them all
        raise typer.BadParameter(f"expected cpu, cuda or cuda:N, found {device!r}{reason}") from error
    return device


_OPPOSITE = {
    **dict.fromkeys(("1", "true", "t", "yes", "y", "on"), "false"),
    **dict.fromkeys(("0", "false", "f", "no", "n", "off"), "true"),
}
"""Of what a flag can be."""


def _from_config(ctx: typer.Context, file: Path | None) -> Path | None:
    """Defaults for this command out of a file of `key=value` lines; what the command line says comes before it."""
    if file is None:
        return None
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read: {getattr(error, 'strerror', None) or 'no UTF-8 text'}", file=file) from error
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
    ctx.meta[_LINES] = where
    return file


def _key(name: str) -> str:
    return name.lstrip("-").replace("-", "_").lower()


# Options that several commands have.

CfgArg = Annotated[Path, typer.Argument(metavar="CFG", help="The network's .cfg file.")]
WeightsArg = Annotated[Path, typer.Argument(metavar="WEIGHTS", help="Its .weights file.")]
Data = Annotated[
    Path | None,
    typer.Option("--data", metavar="FILE", help="Darknet's .data file; left out, the only one beside the cfg or here."),
]
WorkspaceDir = Annotated[
    Path, typer.Option("-w", "--workspace", metavar="DIR", help="Folder that knows the job: inputs, analysis, rounds.")
]
DialectName = Annotated[str, typer.Option("--dialect", metavar="NAME", help="Whose Darknet: alexeyab or pjreddie.")]
Letterbox = Annotated[
    bool | None,
    typer.Option("--letterbox/--stretch", help="Keep a picture's aspect or not; left out, as the cfg and dialect say."),
]
Metric = Annotated[
    str | None,
    typer.Option("--metric", metavar="NAME", help="map50, map75, map50-95, top1 or top5; left out, map50 or top1."),
]
Images = Annotated[
    int | None, typer.Option("--images", metavar="N", min=1, help="Measure on the first N pictures of the valid list.")
]
Threshold = Annotated[
    float | None,
    typer.Option("--threshold", metavar="T", help="Accuracy that each group, cut alone, may lose; 0.01 is a point."),
]
Ratio = Annotated[
    float | None,
    typer.Option("--ratio", metavar="R", help="Instead: the share of the BFLOPs (or --objective) to remove."),
]
Relative = Annotated[bool, typer.Option("--relative", help="T is a fraction of the original's accuracy.")]
TotalLoss = Annotated[
    float | None,
    typer.Option("--total-loss", metavar="L", help="Instead: accuracy that all groups together may lose, measured."),
]
Rule = Annotated[
    str,
    typer.Option(
        "--rule", metavar="NAME", help="interpolated, or prefix: stop at the measurement before a group loses too much."
    ),
]
Objective = Annotated[
    str, typer.Option("--objective", metavar="NAME", help="What a cut is to save: bflops, parameters or latency.")
]
ReaderName = Annotated[
    str | None,
    typer.Option("--reader", metavar="NAME", help="Whose time is the latency: darknet or opencv; left out, the first."),
]
DropBranches = Annotated[
    bool, typer.Option("--drop-branches", help="Whole residual branches may go too, where little is lost with them.")
]
Exclude = Annotated[
    str | None, typer.Option("--exclude", metavar="LAYERS", help="Layers whose channels all stay, like 3,5,8.")
]
Multiple = Annotated[
    int, typer.Option("--multiple", metavar="N", min=1, help="Kept channels of a group are a multiple of N.")
]
MinKeep = Annotated[int, typer.Option("--min-keep", metavar="N", min=1, help="Channels of a group that stay at least.")]
Criterion = Annotated[
    str | None,
    typer.Option(
        "--criterion", metavar="NAME", help=f"What ranks channels: {', '.join(CRITERIA)}; left out, the best there is."
    ),
]
Calibrate = Annotated[
    int,
    typer.Option("--calibrate", metavar="N", min=0, help="Train pictures that consumers are refitted on; 0: no refit."),
]
CriterionAsBefore = Annotated[
    str | None,
    typer.Option("--criterion", metavar="NAME", help=f"As for ana: {', '.join(CRITERIA)}; left out, as ana had it."),
]
CalibrateAsBefore = Annotated[
    int | None,
    typer.Option("--calibrate", metavar="N", min=0, help="As for ana; left out, as ana had it."),
]
NoCompensate = Annotated[
    bool, typer.Option("--no-compensate", help="Cut plainly; --calibrate then only serves the criterion.")
]
BnRecalibrate = Annotated[
    bool, typer.Option("--bn-recalibrate", help="Instead of refitting: batch norm's statistics measured anew.")
]
Epochs = Annotated[float | None, typer.Option("--epochs", metavar="N", min=0, help="Times through the train list.")]
NeededThreshold = Annotated[float, typer.Option("--threshold", metavar="T", help="As for prune, of the last round.")]
RoundEpochs = Annotated[float, typer.Option("--epochs", metavar="N", min=0, help="As for finetune, of each round.")]
LearningRate = Annotated[
    float | None, typer.Option("--learning-rate", metavar="X", min=0, help="Left out, a share of the cfg's.")
]
BatchSize = Annotated[
    int | None, typer.Option("--batch", metavar="N", min=1, help="Pictures of an update; left out, as the cfg says.")
]
Ema = Annotated[
    float | None,
    typer.Option(
        "--ema",
        metavar="A",
        min=0,
        max=0.99999,
        help="Share that an average of the weights keeps; left out, the cfg's.",
    ),
]
EarlyStop = Annotated[
    int,
    typer.Option("--early-stop", metavar="N", min=0, help="End after N measurements without a better one; 0: don't."),
]
Bf16 = Annotated[
    bool, typer.Option("--bf16", help="Compute layers in bfloat16 on a CPU; a GPU that has it does anyway.")
]
Out = Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Folder for what is written.")]
OutOrBackup = Annotated[
    Path | None,
    typer.Option("-o", "--out", metavar="DIR", help="Folder for what is written; left out, the .data file's backup."),
]
ForReader = Annotated[
    str | None,
    typer.Option("--for", metavar="READER", help="Who reads it: pjreddie, alexeyab, hank-ai or opencv; left out, all."),
]
Nms = Annotated[
    str | None,
    typer.Option("--nms", metavar="KIND", help="default, greedynms, diounms or cornersnms; left out, the cfg's."),
]
AllowPartial = Annotated[
    bool, typer.Option("--allow-partial", help="WEIGHTS may hold the first layers only; the others start at random.")
]
Losses = Annotated[
    str | None,
    typer.Option("--losses", metavar="LIST", help="How far groups may go at these is found; left out, 0.005 to 0.05."),
]
Sparsities = Annotated[
    str | None, typer.Option("--sparsities", metavar="LIST", help="Instead: measure at all of these, like 0.25,0.5.")
]
Grid = Annotated[bool, typer.Option("--grid", help="Instead: the classic nine sparsities, 0.1,0.2 to 0.9.")]
Labels = Annotated[
    bool,
    typer.Option("--labels/--no-labels", help="Accuracy by labels, or agreement with what the original network finds."),
]
Seed = Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Of all that is random.")]
Workers = Annotated[
    int, typer.Option("--workers", metavar="N", min=0, help="Processes that prepare train pictures; 0: none.")
]
Device = Annotated[
    str, typer.Option("--device", metavar="NAME", callback=_usable, help="As PyTorch names it: cpu, cuda, cuda:1.")
]
Force = Annotated[bool, typer.Option("--force", help="Replace outputs that exist.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done and written, and leave it.")]
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
        callback=_from_config,
        help="Options as key=value lines; the command line comes first.",
    ),
]
