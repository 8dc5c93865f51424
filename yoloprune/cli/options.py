"""Options that several commands have, and the file that may set them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from yoloprune.choices import CRITERIA_NAMES, MULTIPLE, NOTHING, OBJECTIVES, RECALIBRATE, RULES
from yoloprune.console import LINES
from yoloprune.darknet.dialect import DIALECTS
from yoloprune.errors import InputError, unreadable
from yoloprune.steps.goal import meant

_BESIDE_A_GPU: Final = 4
"""Threads where the device is not the CPU: what is left for that is small, and more would mostly wait for each other.

On 16 cores beside an H200 `ana` of yolo-fastest took 31 s with 1, 27 s with 4, 39 s with 16.
"""


def layers_of(text: str | None, option: str = "--exclude") -> frozenset[int]:
    """`3,5-8` as numbers, `none` as no layer. InputError for anything else."""
    found: set[int] = set()
    text = "" if (text or "").strip() == "none" else text
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
        expected = "expected shares between 0 and 1 like 0.25,0.5,0.75"
        raise InputError(f"{option}: {expected}, found {text!r}{meant(*shares)}")
    return tuple(sorted(set(shares)))


def compensation_of(no_compensate: bool, bn_recalibrate: bool) -> str | None:
    """What is done about a cut, None where nothing is said. InputError for both."""
    if no_compensate and bn_recalibrate:
        raise InputError("expected --no-compensate or --bn-recalibrate, found both")
    return NOTHING if no_compensate else RECALIBRATE if bn_recalibrate else None


def _usable(device: str) -> str:
    if device == "cpu":
        return device
    import torch

    try:
        torch.zeros(1, dtype=torch.float64, device=device).item()  # "meta" only lacks the number, "mps" float64
    except (RuntimeError, AssertionError, ImportError, TypeError) as error:
        reason = f" ({str(error).splitlines()[0]})" if device.startswith("cuda") else ""  # of others it lists them all
        raise typer.BadParameter(f"expected cpu, cuda or cuda:N, found {device!r}{reason}") from error
    prepare(device)
    return device


def prepare(device: str) -> None:
    """Where the device is not the CPU: float32 is whole, and threads are few, unless the user says how many."""
    import torch

    if torch.device(device).type == "cpu":
        return
    torch.backends.cudnn.allow_tf32 = False  # GPUs would round what a convolution reads to 10 bits; Darknet's don't
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(min(torch.get_num_threads(), _BESIDE_A_GPU))


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


def _one_of(*known: str) -> Callable[[str | None], str | None]:
    """A callback that refuses other words."""

    def checked(value: str | None) -> str | None:
        if value is not None and value not in known:
            raise typer.BadParameter(f"expected one of {', '.join(known)}, found {value!r}")
        return value

    return checked


_CRITERIA: Final = ", ".join(CRITERIA_NAMES)


def _key(name: str) -> str:
    return name.lstrip("-").replace("-", "_").lower()


CfgArg = Annotated[Path, typer.Argument(metavar="CFG", help="The network's .cfg file.")]
WeightsArg = Annotated[Path, typer.Argument(metavar="WEIGHTS", help="Its .weights file.")]
Data = Annotated[
    Path | None,
    typer.Option("--data", metavar="FILE", help="Darknet's .data file; left out, the only one beside the cfg or here."),
]
WorkspaceDir = Annotated[
    Path, typer.Option("-w", "--workspace", metavar="DIR", help="Folder that knows the job: inputs, analysis, rounds.")
]
DialectName = Annotated[
    str,
    typer.Option("--dialect", metavar="NAME", callback=_one_of(*DIALECTS), help="Whose Darknet: alexeyab or pjreddie."),
]
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
        "--rule",
        metavar="NAME",
        callback=_one_of(*RULES),
        help="interpolated, or prefix: stop at the measurement before a group loses too much.",
    ),
]
Objective = Annotated[
    str,
    typer.Option(
        "--objective",
        metavar="NAME",
        callback=_one_of(*OBJECTIVES),
        help="What a cut is to save: bflops, parameters or latency.",
    ),
]
ReaderName = Annotated[
    str | None,
    typer.Option(
        "--reader", metavar="NAME", help="Whose time: darknet, opencv or ncnn; left out, the first that runs it."
    ),
]
DropBranches = Annotated[
    bool, typer.Option("--drop-branches", help="Whole residual branches may go too, where little is lost with them.")
]
Exclude = Annotated[
    str | None,
    typer.Option(
        "--exclude", metavar="LAYERS", help="Layers whose channels all stay, like 3,5-8, or none; left out, as before."
    ),
]
Multiple = Annotated[
    int | None,
    typer.Option(
        "--multiple",
        metavar="N",
        min=1,
        help=f"Kept channels of a group are a multiple of N; left out, as before, at first {MULTIPLE}. Groups of fewer "
        "than 16 channels go by 4 at the most, of fewer than 8 by 2, of fewer than 4 by 1.",
    ),
]
MinKeep = Annotated[
    int | None,
    typer.Option("--min-keep", metavar="N", min=1, help="Channels of a group that stay at least; left out, as before."),
]
Criterion = Annotated[
    str | None,
    typer.Option(
        "--criterion",
        metavar="NAME",
        callback=_one_of(*CRITERIA_NAMES),
        help=f"What ranks channels: {_CRITERIA}; left out, the best there is.",
    ),
]
Calibrate = Annotated[
    int,
    typer.Option("--calibrate", metavar="N", min=0, help="Train pictures that consumers are refitted on; 0: no refit."),
]
CriterionAsBefore = Annotated[
    str | None,
    typer.Option(
        "--criterion",
        metavar="NAME",
        callback=_one_of(*CRITERIA_NAMES),
        help=f"As for ana: {_CRITERIA}; left out, as ana had it.",
    ),
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
    typer.Option(
        "--for",
        metavar="READER",
        help="Who reads it: pjreddie, alexeyab, hank-ai or opencv (left out, all four); ncnn, tensorrt_demos, "
        "pytorch-yolov4 or opencv5.",
    ),
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
    typer.Option(
        "--losses",
        metavar="LIST",
        help="Losses at which groups shall be prunable; left out, 0.005 to 0.05.",
    ),
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
