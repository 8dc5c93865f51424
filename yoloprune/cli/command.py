"""Commands out of functions: options that are fields of a frozen class become parameters, and values of that class."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import is_dataclass
from inspect import Parameter, Signature, signature
from typing import Annotated, Any, Final, get_type_hints

import typer

from yoloprune.cli import params
from yoloprune.cli.app import HELP, app
from yoloprune.cli.device import usable
from yoloprune.console import WORDS, Screen, screen_of
from yoloprune.errors import InputError
from yoloprune.option import Help, made, options_of
from yoloprune.options import ALIASES, ProcessOptions
from yoloprune.steps.goal import meant
from yoloprune.train.ranks import world_size

_OUTPUT: Final[Mapping[str, tuple[Any, Any]]] = {
    "force": (params.Force, False),
    "quiet": (params.Quiet, False),
    "json": (params.Json, None),
    "config": (params.Config, None),
}
"""What every command takes, with its default."""


def command(
    name: str, example: str, *, omit: Collection[str] = (), defaults: Mapping[str, Any] | None = None
) -> Callable[[Callable[..., None]], None]:
    """Decorator that enters a function into the program.

    Its first parameter is the command's `Screen`. A parameter whose type is a class of options becomes an option for
    each field, but those in `omit`; the others are as Typer takes them. defaults: other ones than the fields have; ...
    for an option that must be given.
    """

    def enter(function: Callable[..., None]) -> None:
        hints = get_type_hints(function, include_extras=True)
        given = {key: each for key, each in signature(function).parameters.items() if hints[key] is not Screen}
        groups = {key: hints[key] for key in given if is_dataclass(hints[key])}
        taken: dict[str, Parameter] = {}
        for key, each in given.items():
            if key in groups:
                taken |= {k: p for k, p in _expanded(groups[key], omit, defaults or {}).items() if k not in taken}
            else:
                taken[key] = each.replace(annotation=hints[key], kind=Parameter.KEYWORD_ONLY)
        for key, (annotation, default) in _OUTPUT.items():
            taken.setdefault(key, _parameter(key, annotation, default))

        taken["ctx"] = Parameter("ctx", Parameter.KEYWORD_ONLY, annotation=typer.Context)

        def run(ctx: typer.Context, **values: Any) -> None:
            with screen_of(values["json"], values["quiet"], values["force"]) as screen:
                if values.get("devices"):
                    if values.get("processes"):
                        raise InputError("expected one of --processes and --devices, found both")
                    values["device"] = usable("cuda")
                own = {key: _value(groups[key], values) if key in groups else values[key] for key in given}
                shared = [each for each in own.values() if isinstance(each, ProcessOptions)]
                if not (shared and _launched(shared[0], ctx.meta[WORDS])):
                    function(screen, **own)

        ordered = sorted(taken.values(), key=lambda each: each.default is not Parameter.empty)
        run.__signature__ = Signature(ordered)  # type: ignore[attr-defined]  # what inspect asks for first
        run.__doc__ = function.__doc__
        aliases = {"token_normalize_func": lambda word: ALIASES.get(word, word), **HELP}
        app.command(name, epilog=f"Example: yoloprune {name} {example}".rstrip(), context_settings=aliases)(run)

    return enter


def _launched(where: ProcessOptions, words: Sequence[str]) -> bool:
    """Run the command in several processes, where that is asked for and this is none of them; whether that was so."""
    if world_size() > 1 and where.count not in (1, world_size()):
        raise InputError(f"--processes: expected none, or torchrun's {world_size()}, found {where.count}")
    if world_size() > 1 or where.count == 1:
        return False
    from yoloprune.train.launch import launch

    if status := launch(words, where.count, where.devices or ()):
        raise typer.Exit(status)
    return True


def layers_of(text: str, option: str) -> tuple[int, ...]:
    """`3,5-8` as numbers, `none` as no layer. InputError for anything else."""
    found: set[int] = set()
    for part in filter(None, map(str.strip, "" if text.strip() == "none" else text.split(","))):
        span = re.fullmatch(r"([0-9]{1,4})(?:\s*-\s*([0-9]{1,4}))?", part)  # more layers than any network has
        first, last = (int(span[1]), int(span[2] or span[1])) if span else (1, 0)
        if first > last:
            raise InputError(f"{option}: expected layer numbers like 3,5,8 or 0-4, up to 9999, found {part!r}")
        found.update(range(first, last + 1))
    return tuple(sorted(found))


def shares_of(text: str, option: str) -> tuple[float, ...]:
    """`0.25,0.5` as numbers between 0 and 1. InputError, which names the option, for anything else."""
    try:
        shares = tuple(float(part) for part in text.split(","))
    except ValueError:
        shares = ()
    if not shares or not all(0 < share < 1 for share in shares):
        expected = "expected shares between 0 and 1 like 0.25,0.5,0.75"
        raise InputError(f"{option}: {expected}, found {text!r}{meant(*shares)}")
    return tuple(sorted(set(shares)))


def numbers_of(text: str, option: str) -> tuple[float, ...]:
    """`0.01` or `0.01,0.02` as numbers, in that order. InputError, which names the option, for anything else."""
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"{option}: expected numbers like 0.01,0.02, found {text!r}") from None
    return numbers


def words_of(text: str, option: str) -> tuple[str, ...]:
    """`1x1,connected` as words. InputError, which names the option, where there is none."""
    words = tuple(filter(None, map(str.strip, text.split(","))))
    if not words:
        raise InputError(f"{option}: expected a list like 1x1,connected, found {text!r}")
    return words


_PARSERS: Final[Mapping[Any, Callable[[str, str], tuple[Any, ...]]]] = {
    tuple[int, ...]: layers_of,
    tuple[int, ...] | None: layers_of,
    tuple[float, ...] | None: shares_of,
    tuple[float, ...]: numbers_of,
    tuple[str, ...] | None: words_of,
}
"""By the type of an option that is written as a list."""


def _expanded(options: type[Any], omit: Collection[str], defaults: Mapping[str, Any]) -> dict[str, Parameter]:
    """A parameter for each option, and for each switch that says a value of one."""
    found: dict[str, Parameter] = {}
    for name, each in options_of(options).items():
        if name in omit:
            continue
        if each.help.text:
            listed = each.kind in _PARSERS
            default = defaults.get(name, None if listed else each.default)
            written: Any = str | None if listed else each.kind
            annotation = Annotated[written, _option(name, each.kind, each.help)]
            found[name] = _parameter(name, annotation, Parameter.empty if default is ... else default)
        for flag, (_, said) in each.help.switches.items():
            found[_key(flag)] = _parameter(_key(flag), Annotated[bool, typer.Option(flag, help=said)], False)
    return found


def _option(name: str, kind: Any, said: Help) -> Any:
    """Typer's option for a field."""
    flags = said.flags or (_flag(name),)
    if kind is bool or kind == bool | None:
        return typer.Option(*flags, help=said.text)
    whole = kind in (int, int | None)
    metavar = said.metavar or ("NAME" if said.one_of else "N" if whole else "X")
    return typer.Option(
        *flags,
        metavar=metavar,
        help=said.text,
        min=said.least,
        max=said.most,
        callback=params.one_of(*said.one_of) if said.one_of else params.in_small_letters if said.small else None,
    )


def _parameter(name: str, annotation: Any, default: Any) -> Parameter:
    return Parameter(name, Parameter.KEYWORD_ONLY, annotation=annotation, default=default)


def _value(options: type[Any], values: Mapping[str, Any]) -> Any:
    """The class of options out of a command's values. InputError for what can't be, or says two things."""
    wanted: dict[str, Any] = {}
    for name, each in options_of(options).items():
        said: dict[str, Any] = {}
        value, parse = values.get(name), _PARSERS.get(each.kind)
        if parse is not None and value is not None:
            flag = each.help.flags[0] if each.help.flags else _flag(name)
            said[flag] = parse(value, flag)
        elif name in values and parse is None:
            wanted[name] = value
            if each.help.switches and value != each.default:
                said[_flag(name)] = value
        said |= {flag: chosen for flag, (chosen, _) in each.help.switches.items() if values.get(_key(flag))}
        if len(said) > 1:
            raise InputError(f"expected {' or '.join(said)}, found {'both' if len(said) == 2 else 'all'}")
        if said:
            (wanted[name],) = said.values()
    return made(options, wanted)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _key(flag: str) -> str:
    return flag.lstrip("-").replace("-", "_")
