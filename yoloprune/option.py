"""How an option is declared: a field of a frozen class, annotated with what the command line says and asks of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, get_type_hints


@dataclass(frozen=True)
class Help:
    """What the command line says and asks of an option, beside its name and type."""

    text: str
    metavar: str = ""
    """Left out: NAME where there are choices, N for whole numbers, X for others."""
    flags: tuple[str, ...] = ()
    """Left out: the field's name with dashes."""
    least: float | None = None
    most: float | None = None
    one_of: tuple[str, ...] = ()
    """The words that it can be; others are refused."""
    small: bool = False
    """Whether it is a word in small letters, however it is typed."""
    switches: Mapping[str, tuple[Any, str]] = field(default_factory=dict)
    """Flags that say a value each, and what is said of them."""


@dataclass(frozen=True)
class Option:
    """A field of a class of options."""

    name: str
    kind: Any
    """Its type."""
    default: Any
    help: Help


def options_of(kind: Any) -> dict[str, Option]:
    """The options of a class by name, and of the classes that it is made of; of two with a name the first."""
    hints = get_type_hints(kind, include_extras=True)
    found: dict[str, Option] = {}
    for each in fields(kind):
        hint: Any = hints[each.name]
        if is_dataclass(hint):
            found |= {name: option for name, option in options_of(hint).items() if name not in found}
        else:
            said = next(part for part in hint.__metadata__ if isinstance(part, Help))
            found.setdefault(each.name, Option(each.name, hint.__origin__, each.default, said))
    return found


def words_of(options: Any) -> list[str]:
    """A class of options as the command line says them: what isn't as when it is left out."""
    found: list[str] = []
    for each in options_of(type(options)).values():
        value = getattr(options, each.name)
        if value == each.default:
            continue
        said = [flag for flag, (meant, _) in each.help.switches.items() if meant == value]
        yes, _, no = (each.help.flags[0] if each.help.flags else f"--{each.name.replace('_', '-')}").partition("/")
        if said:
            found += said
        elif isinstance(value, bool):
            found.append((yes if value else no).strip())
        elif isinstance(value, tuple):
            found += [yes, ",".join(map(str, value)) or "none"]
        else:
            found += [yes, str(value)]
    return found


def made(kind: Any, values: Mapping[str, Any]) -> Any:
    """A class of options out of values by name; what is left out has its default."""
    hints = get_type_hints(kind)
    given = {each.name: values[each.name] for each in fields(kind) if each.name in values}
    classes: dict[str, Any] = {name: hint for name, hint in hints.items() if is_dataclass(hint)}
    inner = {name: made(inside, values) for name, inside in classes.items()}
    return kind(**given, **inner)
