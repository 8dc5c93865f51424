"""Numbers off the front of a text: those of the C library on this machine, bit for bit."""

from __future__ import annotations

import ctypes
import math
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from yoloprune.darknet.cnumbers import atof, atoi, strtod, strtol

LIBC = ctypes.CDLL(None)
LIBC.atoi.argtypes, LIBC.atoi.restype = [ctypes.c_char_p], ctypes.c_int
LIBC.atof.argtypes, LIBC.atof.restype = [ctypes.c_char_p], ctypes.c_double
LIBC.strtol.argtypes, LIBC.strtol.restype = [ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int], ctypes.c_long
LIBC.strtod.argtypes, LIBC.strtod.restype = [ctypes.c_char_p, ctypes.c_void_p], ctypes.c_double

PIECES = [
    *"0123456789+-.,eExXpPabfinytNA_()#;/ \t\v\f\r",
    *("0x", "0x1", "1e", "e-", "p+", "inf", "infinity", "nan", "nan(", "INF", "NaN(a1)", "99999999", "0000", "1e30"),
    *("1e-320", "2147483648", "9223372036854775807", "0x1.8p", "\u0663", "\uff13", "\u00a0", "ı", "\udc80", "K"),
]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=12).map("".join)
NUMBERS = st.one_of(
    st.integers(-(2**66), 2**66).map(str),
    st.floats().map(repr),
    st.floats(allow_nan=False, allow_infinity=False).map(float.hex),
    st.decimals(allow_nan=False, allow_infinity=False).map(str),
)
ANY = st.one_of(TEXTS, st.tuples(NUMBERS, TEXTS).map("".join), st.text(st.characters(exclude_characters="\0")))


def bits(value: float) -> bytes:
    """All of a double but the payload and the sign of a NaN, which say nothing."""
    return b"nan" if math.isnan(value) else struct.pack("<d", value)


@given(ANY)
@example("1" * 5000)
@example("-" + "0" * 5000 + "7")
@example("0x1p99999999999999999999")
@example("0x.1p-99999999999999999999")
@example("0x0p99999999999999999999")
@example("1e99999999999999999999")
@example("0." + "0" * 400 + "1e400")
@example("2.4703282292062327208e-324")
@example("0x1.fffffffffffff8p1023")
@example("0x.8p")
@example("0xg")
@example("1e+")
@example("-nan(0x1)z")
@example("infinit")
def test_as_the_c_library_has_it(text: str) -> None:
    data = text.encode("utf-8", "surrogatepass")
    assert atoi(text) == LIBC.atoi(data)
    assert bits(atof(text)) == bits(LIBC.atof(data))
    end = ctypes.c_char_p()
    value, rest = strtol(text)
    assert value == LIBC.strtol(data, ctypes.byref(end), 10)
    assert rest.encode("utf-8", "surrogatepass") == end.value
    number, rest = strtod(text)
    assert bits(number) == bits(LIBC.strtod(data, ctypes.byref(end)))
    assert rest.encode("utf-8", "surrogatepass") == end.value


@pytest.mark.parametrize(
    ("text", "whole", "real"),
    [
        ("0.001,0.0005", 0, 0.001),
        ("1e-3f", 1, 0.001),
        ("64/2", 64, 64.0),
        ("none", 0, 0.0),
        ("", 0, 0.0),
        ("3.9", 3, 3.9),
        ("1e6", 1, 1e6),
        ("4294967297", 1, 4294967297.0),
        ("0x10", 0, 16.0),
        ("-inf", 0, -math.inf),
    ],
)
def test_what_stands_in_cfgs(text: str, whole: int, real: float) -> None:
    assert (atoi(text), atof(text)) == (whole, real)
