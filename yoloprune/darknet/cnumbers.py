"""Numbers as C reads them off the front of a text (C17 7.22.1; Darknet: option_list.c, by atoi and atof).

As glibc has it where C leaves it open: int has 32 bits, long 64, and a long that no int holds loses its upper half.
"""

from __future__ import annotations

import math
import re
from typing import Final

_BLANK: Final = r"[ \t\n\v\f\r]*"
_INTEGER: Final = re.compile(_BLANK + r"([+-]?)([0-9]+)")
_NUMBER: Final = re.compile(
    _BLANK
    + r"""([+-]?)(?:
    (?P<hex>0x(?:[0-9a-f]+\.?[0-9a-f]*|\.[0-9a-f]+)(?:p[+-]?[0-9]+)?)
    | (?P<decimal>(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?)
    | (?P<inf>inf(?:inity)?)
    | (?P<nan>nan(?:\([0-9a-z_]*\))?)
    )""",
    re.ASCII | re.IGNORECASE | re.VERBOSE,
)
_LONG_MAX: Final = 2**63 - 1
_LONGEST: Final = 19
"""Digits of that."""


def strtol(text: str) -> tuple[int, str]:
    """The whole number (base 10) that a text starts with, kept within a long, and the text behind it.

    Where there is none, 0 and all of the text.
    """
    found = _INTEGER.match(text)
    if found is None:
        return 0, text
    digits = found[2].lstrip("0") or "0"
    value = int(digits) if len(digits) <= _LONGEST else _LONG_MAX + 1
    value = -min(value, _LONG_MAX + 1) if found[1] == "-" else min(value, _LONG_MAX)
    return value, text[found.end() :]


def strtod(text: str) -> tuple[float, str]:
    """The number that a text starts with, as the nearest double, and the text behind it.

    Decimal or hexadecimal, `inf` or `nan`; one that is too large is infinite. Where there is none, 0 and all of it.
    """
    found = _NUMBER.match(text)
    if found is None:
        return 0.0, text
    return math.copysign(_size(found), -1.0 if found[1] == "-" else 1.0), text[found.end() :]


def atoi(text: str) -> int:
    """`strtol` as an int."""
    return (strtol(text)[0] + 2**31) % 2**32 - 2**31


def atof(text: str) -> float:
    """`strtod` without the rest."""
    return strtod(text)[0]


def _size(found: re.Match[str]) -> float:
    if found["hex"] is not None:
        try:
            return float.fromhex(found["hex"])
        except OverflowError:
            return math.inf
    return float(found["decimal"]) if found["decimal"] is not None else math.inf if found["inf"] else math.nan
