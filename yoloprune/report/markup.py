"""HTML and SVG out of values: what isn't markup already is escaped, so that no name of a file or class can be any."""

from __future__ import annotations

from html import escape
from typing import Final


class Markup(str):
    """Text that is markup."""

    __slots__ = ()


Content = str | float | None
"""Text, which is escaped unless it is `Markup`; a number; nothing."""
_VOID: Final = frozenset({"br", "input", "meta"})
"""Elements that have no end."""
_DIGITS: Final = 2
"""Of coordinates."""


def tag(name: str, /, *content: Content, **attributes: Content) -> Markup:
    """An element. Of attributes' names an underscore at the end is dropped, others become dashes; None is left out."""
    said = "".join(_attribute(key, value) for key, value in attributes.items() if value is not None)
    if name in _VOID:
        return Markup(f"<{name}{said}>")
    return Markup(f"<{name}{said}>{join(*content)}</{name}>")


def join(*content: Content) -> Markup:
    """One behind the other."""
    return Markup("".join(map(_text, content)))


def number(value: float) -> str:
    """A coordinate."""
    return f"{value:.{_DIGITS}f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def _text(content: Content) -> str:
    if content is None:
        return ""
    if isinstance(content, Markup):
        return content
    return escape(_printable(content if isinstance(content, str) else number(content)))


def _attribute(key: str, value: Content) -> str:
    name = key.removesuffix("_").replace("_", "-")
    if value is True:
        return f" {name}"
    return f' {name}="{escape(_printable(value if isinstance(value, str) else number(value or 0)))}"'


def _printable(text: str) -> str:
    """Without what no HTML can hold: bytes of file names that are no UTF-8, and control characters."""
    whole = text.encode("utf-8", "replace").decode()
    return "".join(each if each >= " " or each in "\n\t" else "\ufffd" for each in whole if each != "\x7f")
