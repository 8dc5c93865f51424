"""The library as people use it: the steps, with paths as text or `Path` and options by name.

`import yoloprune` hands these on. What a step takes as a class of options, its function here takes by the names of that
class's fields (options.py); `help()` lists them. Every function raises `InputError` for bad input. With `progress=True`
bars are shown on stderr; a function instead is called with every `Progress`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import is_dataclass
from inspect import Parameter, Signature, cleandoc, signature
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from yoloprune.console import ProgressBar
from yoloprune.darknet.dialect import dialect_named
from yoloprune.darknet.model import Model
from yoloprune.darknet.model import load as load_model
from yoloprune.option import made, options_of
from yoloprune.options import ALIASES
from yoloprune.progress import silent
from yoloprune.report.rewrite import report as _report
from yoloprune.report.rewrite import rewriting
from yoloprune.steps.accuracy import accuracy
from yoloprune.steps.ana import ana as _ana
from yoloprune.steps.bench import bench as _bench
from yoloprune.steps.check import check as _check
from yoloprune.steps.convert import convert as _convert
from yoloprune.steps.detect import detect as _detect
from yoloprune.steps.export import export as _export
from yoloprune.steps.finetune import finetune as _finetune
from yoloprune.steps.pack import pack as _pack
from yoloprune.steps.pack import unpack as _unpack
from yoloprune.steps.prune import prune as _prune
from yoloprune.steps.run import run as _run
from yoloprune.steps.train import train_network
from yoloprune.steps.verify import verify as _verify

_Result = TypeVar("_Result")


def public(step: Callable[..., _Result], *first: str, **usual: Any) -> Callable[..., _Result]:
    """A step as a function for people.

    Parameters
    ----------
    step
        Its annotations say what is a path, and what is a class of options.
    first
        Options that may also be given by position, in front.
    usual
        Options whose defaults are others than their class has.
    """
    hints: dict[str, Any] = get_type_hints(step)
    own = signature(step).parameters
    shown: dict[str, Parameter] = {}
    said = ""
    for name, each in own.items():
        if not is_dataclass(hints[name]):
            shown[name] = each.replace(default=False) if name == "progress" else each
            continue
        for option in options_of(hints[name]).values():
            how = Parameter.POSITIONAL_OR_KEYWORD if option.name in first else Parameter.KEYWORD_ONLY
            default = usual.get(option.name, option.default)
            shown.setdefault(option.name, Parameter(option.name, how, default=default, annotation=option.kind))
            kind = option.kind.__name__ if isinstance(option.kind, type) else option.kind
            also = (f"{value!r}: {what}" for value, what in option.help.switches.values())
            said += f"\n{option.name} : {kind}\n    {option.help.text or ' '.join(also)}"
    known = Signature(sorted(shown.values(), key=lambda each: each.kind))

    def call(*arguments: Any, **named: Any) -> _Result:
        given = known.bind(*arguments, **{ALIASES.get(name, name): value for name, value in named.items()}).arguments
        bar = ProgressBar(quiet=False)
        if isinstance(told := given.get("progress", False), bool):
            given["progress"] = bar if told else silent
        values = {name: _step_value(hints[name], value) for name, value in given.items() if name in own}
        wanted = usual | {name: _step_value(None, value) for name, value in given.items()}
        values |= {name: made(hint, wanted) for name, hint in hints.items() if name in own and is_dataclass(hint)}
        try:
            return step(**values)
        finally:
            bar.close()

    call.__signature__ = known  # type: ignore[attr-defined]  # what inspect asks for first
    call.__name__ = call.__qualname__ = step.__name__
    call.__doc__ = cleandoc(step.__doc__ or "") + (f"\n\nParameters\n----------{said}" if said else "")
    return call


def _step_value(hint: Any, value: Any) -> Any:
    """What people gave, as a step of that type takes it; options of files are paths already where they are text."""
    if hint in (Path, Path | None):
        return None if value is None else Path(value)
    if hint == Sequence[Path]:
        return [Path(each) for each in ([value] if isinstance(value, (str, PathLike)) else value)]
    return tuple(value) if isinstance(value, (list, set, frozenset, range)) else value


def _load(cfg: Path, weights: Path, *, dialect: str = "alexeyab", allow_partial: bool = False) -> Model:
    """A network as its files hold it: graph and weights."""
    return load_model(cfg, weights, dialect_named(dialect), allow_partial=allow_partial)


ana = public(rewriting(_ana))
prune = public(rewriting(_prune), "threshold")
finetune = public(rewriting(_finetune))
export = public(rewriting(_export))
run = public(rewriting(_run))
report = public(_report)
train = public(train_network)
map = public(accuracy)
detect = public(_detect)
check = public(_check)
verify = public(_verify)
convert = public(_convert)
bench = public(_bench)
pack = public(_pack)
unpack = public(_unpack)
load = public(_load)
